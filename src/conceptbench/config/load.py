"""Read a configuration, or say in one sentence what is wrong with it."""

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from conceptbench.config.dictionaries import SECTIONS
from conceptbench.config.dictionary_methods import Own
from conceptbench.config.grid import expand
from conceptbench.config.model import Config
from conceptbench.config.names import nearest
from conceptbench.errors import ConceptBenchError

_NAMED = (
    *(("datasets",), ("backbones",), ("hooks",)),
    *(("dictionaries", "methods"), ("adaptations", "methods"), ("synthetic", "worlds")),
    ("kinds", "methods"),
)


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader of YAML, which refuses a key written twice instead of keeping the last."""


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise yaml.YAMLError(f"line {key_node.start_mark.line + 1} repeats the key '{key}'")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file with a mapping at its top.

    Raises:
        ConceptBenchError: when the file is missing, is not YAML, repeats a key, or is not a mapping.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise ConceptBenchError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConceptBenchError(f"{path}: not valid YAML ({reason}); correct it.") from error
    if not isinstance(content, dict):
        raise ConceptBenchError(f"{path}: a configuration is a mapping of sections; see docs/configuration.md.")
    return content


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another as Snakemake does: mappings are merged, anything else is replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_nulls(content: Mapping[str, Any]) -> dict[str, Any]:
    """Drop entries of the named mappings that are null: the way an overlay takes something out."""
    cleaned = dict(content)
    for first, *rest in _NAMED:
        section = cleaned.get(first)
        if not isinstance(section, Mapping):
            continue
        if not rest:
            cleaned[first] = {key: value for key, value in section.items() if value is not None}
        elif isinstance(section.get(rest[0]), Mapping):
            kept = {key: value for key, value in section[rest[0]].items() if value is not None}
            cleaned[first] = {**section, rest[0]: kept}
    return cleaned


def load_config(source: Mapping[str, Any] | Path | str, *overlays: Mapping[str, Any] | Path | str) -> Config:
    """Return the typed configuration of a mapping or YAML file, with overlays laid over it in turn.

    Raises:
        ConceptBenchError: one sentence with the full path of the key that is wrong, and the nearest valid name.
    """
    content: dict[str, Any] = {}
    for layer in (source, *overlays):
        content = merge(content, layer if isinstance(layer, Mapping) else read_yaml(layer))
    files = [str(layer) for layer in (source, *overlays) if not isinstance(layer, Mapping)]
    where = " + ".join(files) or "Configuration"
    try:
        content = _with_grids(_without_nulls(content))
    except ConceptBenchError as error:
        raise ConceptBenchError(f"{where}: {error}") from None
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConceptBenchError(f"{where}: {_sentence(error, content)}") from None


def _with_grids(content: dict[str, Any]) -> dict[str, Any]:
    """Replace every dictionary with lists of options by one for each combination of them."""
    section = content.get("dictionaries")
    if not isinstance(section, Mapping) or not isinstance(section.get("methods"), Mapping):
        return content
    return {**content, "dictionaries": {**section, "methods": expand(section["methods"], SECTIONS)}}


def _sentence(error: ValidationError, content: Mapping[str, Any]) -> str:
    """Describe the first problem, unknown keys first, and count the others."""
    problems = error.errors(include_url=False, include_context=True)
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    text = _describe(dict(first), content)
    return f"{text}{others}" if text.endswith("?") else f"{text}{others}."


def _describe(problem: dict[str, Any], content: Mapping[str, Any]) -> str:
    keys = _keys(problem["loc"], content, absent=problem["type"] == "missing")
    path = ".".join(keys)
    context = problem.get("ctx", {})
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key '{path}'{nearest(keys[-1], _valid_keys(keys[:-1], content))}"
        case "missing":
            return f"the key '{path}' is missing; add it"
        case "union_tag_not_found":
            return f"the key '{path}.{str(context.get('discriminator')).strip(chr(39))}' is missing; add it"
        case "union_tag_invalid":
            tag, key = str(context["tag"]), str(context["discriminator"]).strip("'")
            valid = [name.strip(" '") for name in str(context["expected_tags"]).split(",")]
            return f"'{path}.{key}' is '{tag}', which is not known{nearest(tag, valid)}"
        case "string_pattern_mismatch" if problem["loc"][-1] == "[key]":
            return f"the name '{path}' may only have lower-case letters, digits and hyphens; rename it"
        case "value_error":
            reason = str(context.get("error", problem["msg"]))
            return f"'{path}': {reason}" if path else reason
    value = problem.get("input")
    return f"'{path}' is {value!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _keys(location: tuple[int | str, ...], content: Any, absent: bool) -> list[str]:
    """Turn pydantic's location into the keys as written: without the tags of unions and its marks.

    The last part of the location of an absent key is kept, although the content does not have it.
    """
    keys: list[str] = []
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if part == "[key]":
            continue
        known = isinstance(content, Mapping) and part in content
        listed = isinstance(content, list | tuple) and isinstance(part, int)
        if known or listed:
            content = content[part]
        elif not (last and absent):
            continue
        keys.append(str(part))
    return keys


def _valid_keys(keys: list[str], content: Any) -> list[str]:
    """Return the field names of the section at `keys`."""
    annotation: Any = Config
    for key in keys:
        content = content[key] if isinstance(content, Mapping) else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = next(field.annotation for name, field in _fields(annotation) if name == key)
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        annotation = _chosen(annotation, content)
    found = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [name for name, _ in _fields(annotation)] if found else []


def _fields(section: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the fields of a section under the names by which they are written."""
    return [(field.alias or name, field) for name, field in section.model_fields.items()]


def _chosen(annotation: Any, content: Any) -> Any:
    """Unwrap an annotation; of a union of sections, take the one whose tag the content carries."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    options = _sections(annotation)
    if get_origin(annotation) is dict or not options or not isinstance(content, Mapping):
        return annotation
    if len(options) == 1:
        return options[0]
    for option in options:
        for tag in ("kind", "method"):
            field = option.model_fields.get(tag)
            if field is not None and content.get(tag) in get_args(field.annotation):
                return option
    return Own if Own in options and ":" in str(content.get("method")) else annotation


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections of a union, also of one inside another."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [section for part in get_args(annotation) for section in _sections(part)]
    return []
