"""What kind of value an option takes: refused in one sentence before anything is computed with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def kind_fault(kind: type, options: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the kind of the first faulty option of a specification, None when nothing is."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.name in options and (wanted := _wanted(hints[field.name], options[field.name])):
            value = options[field.name]
            shown = f"'{value}'" if isinstance(value, str) else value
            return f"{field.name} is {shown}, it must be {wanted}"
    return None


def _wanted(hint: Any, value: Any) -> str | None:
    """Return what the value should be when it is not; None when it is."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        problems = [_wanted(choice, value) for choice in get_args(hint)]
        return None if None in problems else " or ".join(text for text in problems if text)
    if hint is NoneType:
        return None if value is None else "null"
    if hint is bool:
        return None if isinstance(value, bool) else "true or false"
    if hint is int:
        return None if isinstance(value, Integral) and not isinstance(value, bool) else "a whole number"
    if hint is float:
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        return None if number else "a finite number"
    if hint is str or origin is Literal:
        return None if isinstance(value, str) else "text"
    if origin is tuple:
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        return None if listed and not any(_wanted(get_args(hint)[0], one) for one in value) else "a list of numbers"
    return None if isinstance(value, Mapping) else "a mapping"
