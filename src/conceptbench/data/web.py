"""Flowers and aerial pictures as pretraining meets them: few, with loose captions that are sometimes wrong.

Web-scale data contain a few pictures of every field, mostly without their expert name. So it is here: a class name is
told in a few captions of a hundred and is then wrong in four of ten. Zero-shot accuracy on ``flora`` and ``terra`` is
therefore above chance and well below what adaptation reaches. The pictures come from a stream of their own and are in
no task's data set.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from conceptbench.data.captions import Draws
from conceptbench.data.flora import FLORA_CLASSES, render_flora_batch
from conceptbench.data.scenes import stream_key
from conceptbench.data.terra import TERRA_CLASSES, render_terra_batch

FLORA_NAME_SHARE = 0.06
TERRA_NAME_SHARE = 0.03
WRONG_NAME_SHARE = 0.4
FLORA_SHARE = 0.6
_COUNTS = {3: "three", 5: "five", 8: "eight"}
_OPENINGS = ("a photo of", "a picture of", "a close photo of")
_ABOVE = ("a satellite photo of", "an aerial photo of", "a picture from above of", "a photo of")
_LOOSE = ("land", "the ground", "a region", "a landscape")
_FLORA_NAMES = tuple(FLORA_CLASSES)
_TERRA_NAMES = tuple(TERRA_CLASSES)


def web_pictures(seed: int, stream: str, indices: np.ndarray) -> tuple[UInt8[np.ndarray, "n 64 64 3"], list[str]]:
    """Pictures number ``indices`` of the web stream with one caption each."""
    key = int(stream_key(seed, f"web-{stream}"))
    draws = [Draws(key ^ (int(i) * 0x9E3779B97F4A7C15)) for i in indices]
    is_flora = np.array([d.chance(FLORA_SHARE) for d in draws])
    names = [d.pick(_FLORA_NAMES if f else _TERRA_NAMES) for d, f in zip(draws, is_flora, strict=True)]
    texts = [
        _flora_text(d, name) if f else _terra_text(d, name) for d, f, name in zip(draws, is_flora, names, strict=True)
    ]
    labels = np.array([(_FLORA_NAMES if f else _TERRA_NAMES).index(n) for f, n in zip(is_flora, names, strict=True)])
    world = int(key % 2**31)
    images = np.empty((len(labels), 64, 64, 3), dtype=np.uint8)
    images[is_flora] = render_flora_batch(labels[is_flora], np.asarray(indices)[is_flora], world)
    images[~is_flora] = render_terra_batch(labels[~is_flora], np.asarray(indices)[~is_flora], world)
    return images, texts


def _told_name(draws: Draws, name: str, names: tuple[str, ...]) -> str:
    return draws.pick(names) if draws.chance(WRONG_NAME_SHARE) else name


def _flora_text(draws: Draws, name: str) -> str:
    opening = draws.pick(_OPENINGS)
    if draws.chance(FLORA_NAME_SHARE):
        return f"{opening} a {_told_name(draws, name, _FLORA_NAMES)}"
    factors = FLORA_CLASSES[name]
    words = [str(factors["petal_colour"])] if draws.chance(0.6) else []
    words.append("flower")
    detail = f" with {_COUNTS[int(factors['petal_count'])]} petals" if draws.chance(0.4) else ""
    article = "an" if words[0][0] in "aeiou" else "a"
    return f"{opening} {article} {' '.join(words)}{detail}"


def _terra_text(draws: Draws, name: str) -> str:
    opening = draws.pick(_ABOVE)
    if draws.chance(TERRA_NAME_SHARE):
        return f"{opening} {_told_name(draws, name, _TERRA_NAMES)}"
    return f"{opening} {draws.pick(_LOOSE)}"


def web_vocabulary() -> Iterator[str]:
    """Sentences that contain every word of these captions and of the usual prompt templates."""
    yield from _OPENINGS
    yield from _ABOVE
    yield from _LOOSE
    yield from _FLORA_NAMES
    yield from _TERRA_NAMES
    yield from _COUNTS.values()
    yield "flower with petals pink brown black , a type of flower . a centered satellite photo of an image"
