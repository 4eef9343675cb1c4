"""Texts that ask a vision-language model for one factor of a scene.

Their embeddings are averaged over everything else, as CLIP averages over its templates.
"""

from itertools import product

from conceptbench.data.captions import BACKGROUND_WORDS, COLOUR_WORDS, FILL_WORDS, PLACE_WORDS, SHAPE_WORDS, SIZE_WORDS
from conceptbench.data.vocabulary import BACKGROUNDS, COLOURS, FILLS, KINDS, PLACES, SHAPES, SIZES

PROMPTED = {
    "shape": SHAPES,
    "colour": COLOURS,
    "fill": FILLS,
    "size": SIZES,
    "place": PLACES,
    "background": BACKGROUNDS,
    "kind": tuple(KINDS),
}
"""Factors that can be asked for, with their values."""


def factor_prompts(factor: str) -> dict[str, list[str]]:
    """For each value of a factor, the texts whose mean embedding stands for it."""
    return {value: list(dict.fromkeys(_texts(factor, value))) for value in PROMPTED[factor]}


def _texts(factor: str, value: str) -> list[str]:
    fills = [words[0] for words in FILL_WORDS.values()]
    colours = [words[0] for words in COLOUR_WORDS.values()]
    shapes = [words[0] for words in SHAPE_WORDS.values()]
    if factor == "shape":
        return [f"a photo of a {f} {c} {w}" for w in SHAPE_WORDS[value] for f, c in product(fills, colours)]
    if factor == "colour":
        return [f"a photo of a {f} {w} {s}" for w in COLOUR_WORDS[value] for f, s in product(fills, shapes)]
    if factor == "fill":
        return [f"a photo of a {w} {c} {s}" for w in FILL_WORDS[value] for c, s in product(colours, shapes)]
    if factor == "size":
        return [f"a photo of a {w} {c} {s}" for w in SIZE_WORDS[value] for c, s in product(colours, shapes)]
    if factor == "place":
        return [f"a photo of a {c} {s} {w}" for w in PLACE_WORDS[value] for c, s in product(colours, shapes)]
    if factor == "background":
        return [f"a photo of a {c} {s} {w}" for w in BACKGROUND_WORDS[value] for c, s in product(colours, shapes)]
    return [f"a photo of a {value}", f"a picture of a {value}", f"there is a {value}", f"a {value}"]
