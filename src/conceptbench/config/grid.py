"""Grids of dictionaries: an option that is a list stands for one dictionary for each of its values."""

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from typing import Any, Final, get_origin

from pydantic import BaseModel

from conceptbench.config.names import slug
from conceptbench.errors import ConceptBenchError

EACH: Final = "one dictionary for each"
"""Title of the lists that `allow_lists` adds to the schema."""
SPARSITY: Final = ("k", "l1", "sparsity")
"""Options that set how many latents fire: the first of them that a method has and gives a value."""


def allow_lists(schema: dict[str, Any]) -> None:
    """Let every option of a method that is a single value be a list of values too, in its JSON schema."""
    for key, field in schema.get("properties", {}).items():
        if key == "method" or field.get("type") in ("array", "object"):
            continue
        notes = {note: field.pop(note) for note in ("default", "description", "title") if note in field}
        value = dict(field)
        options = value.get("anyOf", [value])
        field.clear()
        field.update(notes, anyOf=[*options, {"title": EACH, "type": "array", "minItems": 1, "items": value}])


def expand(methods: Mapping[str, Any], sections: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Return the methods with every grid replaced by its dictionaries, named `<name>-<option><value>...` by alphabet.

    Args:
        methods: `dictionaries.methods` as written.
        sections: the section of each method; options that are lists or mappings by nature are left alone.

    Raises:
        ConceptBenchError: for an empty list, or two dictionaries of one name.
    """
    expanded: dict[str, Any] = {}
    for name, written in methods.items():
        for full, values in _cells(name, written, sections):
            if full in expanded:
                raise ConceptBenchError(f"'dictionaries.methods.{name}' makes a second '{full}'; rename one of them.")
            expanded[full] = values
    return expanded


def _cells(name: str, written: Any, sections: Mapping[str, type[BaseModel]]) -> list[tuple[str, Any]]:
    """Return (name, section) of every dictionary that a section stands for."""
    method = str(written.get("method")) if isinstance(written, Mapping) else ""
    section = sections.get("own" if ":" in method else method)
    if section is None:
        return [(name, written)]
    single = {key for key, field in section.model_fields.items() if get_origin(field.annotation) not in (tuple, dict)}
    lists = {key: value for key, value in sorted(written.items()) if isinstance(value, list)}
    grid = {key: value for key, value in lists.items() if key in single - {"method"}}
    for key, values in grid.items():
        if not values:
            raise ConceptBenchError(f"'dictionaries.methods.{name}.{key}' is an empty list; give it a value.")
    cells = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [("-".join([name, *(slug(*item) for item in cell.items())]), {**written, **cell}) for cell in cells]


def configured_names(methods: Mapping[str, BaseModel]) -> dict[str, str]:
    """Return what each dictionary is called when its sparsity is left aside: `topk-lr0p1` for `topk-k8-lr0p1`.

    Dictionaries that share this name differ in nothing but the option of `SPARSITY`, so they are points of one curve of
    error against sparsity. One that shares it with none, or with others that differ in more, keeps its own name.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for name, section in methods.items():
        members[_stem(name, section)].append(name)
    found = {}
    for stem, names in members.items():
        kinds = [methods[name].model_dump(exclude={_sparsity(methods[name])}) for name in names]
        alike = len(names) > 1 and all(kind == kinds[0] for kind in kinds)
        found.update({name: stem if alike else name for name in names})
    return {name: found[name] for name in methods}


def _sparsity(section: BaseModel) -> str:
    """Return the option that sets how many latents fire; empty without one."""
    return next((option for option in SPARSITY if getattr(section, option, None) is not None), "")


def _stem(name: str, section: BaseModel) -> str:
    """Return the name without the part that says its sparsity, whichever way the number was written."""
    option = _sparsity(section)
    parts = re.finditer(rf"-{option}-?(\d[\dpe-]*?)(?=-[a-z]|$)", name) if option else ()
    for part in reversed(list(parts)):
        try:
            same = float(part[1].replace("p", ".")) == float(getattr(section, option))
        except ValueError:  # another word that begins like the option
            continue
        if same:
            return name[: part.start()] + name[part.end() :]
    return name
