"""Where the source of a user's own method is, found without importing it."""

import hashlib
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final

from conceptbench.errors import ConceptBenchError

OWN_PATTERN: Final = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""`package.module:Class`."""


def source_of(path: str) -> Path:
    """Return the file of the module of `package.module:Class`.

    Looked for as an import would, and in the working folder; neither the module nor its packages are imported.

    Raises:
        ConceptBenchError: when there is no such module, or it has no source file.
    """
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    module = path.partition(":")[0]
    spec: ModuleSpec | None = None
    name = ""
    for part in module.split("."):
        if spec is not None and spec.submodule_search_locations is None:
            raise ConceptBenchError(f"'{path}': '{name}' is a module, not a package; correct the path.")
        search = None if spec is None else list(spec.submodule_search_locations or ())
        name = f"{name}.{part}" if name else part
        spec = _find(name, search)
        if spec is None:
            raise ConceptBenchError(f"'{path}': there is no module '{name}'; install it, or put it into {here}.")
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConceptBenchError(f"'{path}': the module '{module}' has no source file; name a module written in Python.")
    return Path(spec.origin)


def source_digest(path: str) -> str:
    """Return the SHA-256 of that file: what a rule depends on besides the configuration."""
    return hashlib.sha256(source_of(path).read_bytes()).hexdigest()


def found(path: str) -> str:
    """Return the path as it is when its module exists.

    Raises:
        ValueError: when it does not, for the checks of the configuration.
    """
    try:
        source_of(path)
    except ConceptBenchError as error:
        raise ValueError(str(error).removesuffix(".")) from None
    return path


def _find(name: str, search: list[str] | None) -> ModuleSpec | None:
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    specs = (find(name, search) for find in finders if find is not None)
    return next((spec for spec in specs if spec is not None), None)
