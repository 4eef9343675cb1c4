"""The words and values of the rendered world: factors, held-out compositions and named kinds (docs/method.md)."""

SHAPES = ("circle", "square", "triangle", "cross", "ring", "star", "crescent", "hexagon")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "white")
FILLS = ("solid", "striped", "dotted", "outlined")
SIZES = ("small", "large")
PLACES = ("top left", "top right", "bottom left", "bottom right", "centre")
BACKGROUNDS = ("plain", "dark", "sky", "sand", "grass", "brick")

OBJECT_FACTORS = {"shape": SHAPES, "colour": COLOURS, "fill": FILLS, "size": SIZES, "place": PLACES}
"""Factors of one object, in the column order of ``Scenes.objects``."""

ANY = -1
KINDS: dict[str, tuple[tuple[str, str, str | None], ...]] = {
    "wug": (("ring", "red", None), ("star", "blue", None), ("square", "white", "striped")),
    "dax": (("triangle", "yellow", None), ("crescent", "purple", None), ("cross", "green", "dotted")),
    "blick": (("circle", "cyan", None), ("hexagon", "orange", None), ("star", "white", "solid")),
    "fep": (("square", "purple", None), ("crescent", "red", None), ("hexagon", "green", "striped")),
}
"""A noun names visually unlike things (shape, colour, fill or any fill): only language unites them."""

HELD_OUT = (
    ("circle", "purple"),
    ("square", "orange"),
    ("triangle", "blue"),
    ("cross", "yellow"),
    ("ring", "cyan"),
    ("star", "green"),
    ("crescent", "white"),
    ("hexagon", "red"),
)
"""(shape, colour) pairs that never appear in pretraining."""
