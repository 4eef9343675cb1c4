"""A small grammar that describes scenes as people do: a random part of what is there, in varying words and order.

Caption number ``variant`` of a scene is a pure function of the scene's key and ``variant``. Objects that belong to a
named kind are called by the kind's noun half of the time.
"""

from collections.abc import Iterator

import numpy as np

from conceptbench.data.scenes import COLOUR, FILL, PLACE, SHAPE, SIZE, Scenes, kind_members
from conceptbench.data.vocabulary import BACKGROUNDS, COLOURS, FILLS, KINDS, PLACES, SHAPES, SIZES

_MASK = 2**64 - 1

SHAPE_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
    "star": ("star",),
    "crescent": ("crescent", "moon"),
    "hexagon": ("hexagon",),
}
COLOUR_WORDS = {
    "red": ("red",),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "orange": ("orange",),
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise"),
    "white": ("white",),
}
FILL_WORDS = {
    "solid": ("solid", "filled"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "outlined": ("outlined", "hollow"),
}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
PLACE_WORDS = {
    "top left": ("in the top left", "at the upper left"),
    "top right": ("in the top right", "at the upper right"),
    "bottom left": ("in the bottom left", "at the lower left"),
    "bottom right": ("in the bottom right", "at the lower right"),
    "centre": ("in the centre", "in the middle"),
}
BACKGROUND_WORDS = {
    "plain": ("on a plain background", "on grey"),
    "dark": ("on a dark background", "on black"),
    "sky": ("in the sky", "on a sky background"),
    "sand": ("on sand", "on a beach"),
    "grass": ("on grass", "on a lawn"),
    "brick": ("on a brick wall", "on bricks"),
}
OPENINGS = ("a photo of", "a picture of", "there is", "")
GENERIC = ("thing", "object", "shape")
NOUN_SHARE = 0.5


class Draws:
    """Counter-based random numbers in plain Python (splitmix64), cheap to start: one object per caption."""

    def __init__(self, key: int) -> None:
        self._state = key & _MASK

    def _next(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._next() < probability * 18446744073709551616.0

    def pick(self, words: tuple[str, ...]) -> str:
        """One of the words, uniformly."""
        return words[self._next() % len(words)]

    def shuffled(self, items: list[str]) -> list[str]:
        """The items in random order (Fisher-Yates)."""
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self._next() % (last + 1)
            items[last], items[other] = items[other], items[last]
        return items


def captions(scenes: Scenes, variant: int = 0, *, full: bool = False) -> list[str]:
    """One caption a scene: a random part of it, or with ``full`` every object and attribute.

    Full captions name no kinds.
    """
    kinds = kind_members(scenes)
    names = tuple(KINDS)
    return [
        _caption(
            Draws(int(scenes.keys[i]) ^ ((variant + 1) * 0xD1342543DE82EF95)),
            scenes.objects[i],
            [names[k] if k >= 0 else "" for k in kinds[i]],
            BACKGROUNDS[scenes.backgrounds[i]],
            full,
        )
        for i in range(len(scenes))
    ]


def _caption(draws: Draws, objects: np.ndarray, nouns: list[str], background: str, full: bool) -> str:
    present = [o for o in range(len(objects)) if objects[o, SHAPE] >= 0]
    told = [o for o in present if full or draws.chance(0.75)] or present[:1]
    phrases = draws.shuffled([_phrase(draws, objects[o], nouns[o], full) for o in told])
    sentence = " and ".join(phrases)
    setting = draws.pick(BACKGROUND_WORDS[background])
    if full or draws.chance(0.6):
        sentence = f"{setting} {sentence}" if draws.chance(0.2) else f"{sentence} {setting}"
    opening = draws.pick(OPENINGS)
    return f"{opening} {sentence}" if opening else sentence


def _phrase(draws: Draws, factors: np.ndarray, noun: str, full: bool) -> str:
    if noun and not full and draws.chance(NOUN_SHARE):
        words = [noun]
        if draws.chance(0.3):
            words.insert(0, draws.pick(SIZE_WORDS[SIZES[factors[SIZE]]]))
    else:
        words = _adjectives(draws, factors, full)
        shape = draws.pick(SHAPE_WORDS[SHAPES[factors[SHAPE]]])
        words.append(shape if full or draws.chance(0.88) else draws.pick(GENERIC))
    if full or draws.chance(0.4):
        words.append(draws.pick(PLACE_WORDS[PLACES[factors[PLACE]]]))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def _adjectives(draws: Draws, factors: np.ndarray, full: bool) -> list[str]:
    words = []
    if full or draws.chance(0.45):
        words.append(draws.pick(SIZE_WORDS[SIZES[factors[SIZE]]]))
    if full or draws.chance(0.7):
        words.append(draws.pick(FILL_WORDS[FILLS[factors[FILL]]]))
    if full or draws.chance(0.85):
        words.append(draws.pick(COLOUR_WORDS[COLOURS[factors[COLOUR]]]))
    return words


def vocabulary_sentences() -> Iterator[str]:
    """Sentences that contain every word of the grammar: the corpus of a tokenizer."""
    tables = (SHAPE_WORDS, COLOUR_WORDS, FILL_WORDS, SIZE_WORDS, PLACE_WORDS, BACKGROUND_WORDS)
    for table in tables:
        for words in table.values():
            yield from words
    yield from OPENINGS[:-1]
    yield from GENERIC
    yield from KINDS
    yield "a an and"
