"""The base of every section of the configuration and the kinds of value they share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]*$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=60)]
"""A name that is safe in a path and as a wildcard: lower-case letters, digits and hyphens."""

Count = Annotated[int, Field(ge=1)]
"""A whole number from 1."""

Index = Annotated[int, Field(ge=0, lt=2**32)]
"""A whole number from 0, as block numbers and seeds are."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number from 0."""


class Section(BaseModel):
    """A part of the configuration: frozen, without unknown keys, each field described by the text below it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=False)


def _unique(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(values)) != len(values):
        raise ValueError("lists a value twice")
    return tuple(sorted(values))


Indices = Annotated[tuple[Index, ...], Field(min_length=1), AfterValidator(_unique)]
"""One or more different block numbers or seeds, kept in ascending order."""

Counts = Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_unique)]
"""One or more different counts, kept in ascending order."""


def _one_place(template: str | None) -> str | None:
    if template is not None and template.count("{}") != 1:
        raise ValueError("needs exactly one {} where the class name goes")
    return template


Template = Annotated[str | None, AfterValidator(_one_place)]
"""A prompt with one `{}` for the class name."""
