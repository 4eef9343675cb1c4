"""The nearest valid name, for messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of the valid names, or the list of them when none is near."""
    names = sorted(valid)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; valid names are {', '.join(names)}" if names else "; there is none"


def slug(option: str, value: object) -> str:
    """Return a part of a name for an option's value: `k8`, `l1-0p002`, `aux-k16`, `penalty-tanh`."""
    text = "null" if value is None else str(value).lower()
    text = "".join(letter if letter.isalnum() or letter == "-" else "p" if letter == "." else "-" for letter in text)
    word = option.replace("_", "-")
    close = text[:1].isdigit() and not word[-1].isdigit()
    return f"{word}{text}" if close else f"{word}-{text}"
