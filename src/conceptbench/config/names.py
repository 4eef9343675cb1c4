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
