"""Tokenizers of the Hugging Face hub: their files travel with the weights, and only texts need the library.

SigLIP's vocabularies are such tokenizers. Their files are copied from folder to folder without `transformers`, so that
a backbone of which only the image tower is used can be fetched and opened where that library is not installed.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import open_clip

from conceptbench import tables
from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.backbones.backbone import Tokenizer

PATTERNS: Final = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "spiece.model")
"""Names of a tokenizer's files on the hub."""


def hub_tokenizer_name(text_config: Mapping[str, Any]) -> str:
    """The hub's name of the tokenizer that a text tower was trained with; empty when it is one of open_clip's own."""
    return str(text_config.get("hf_tokenizer_name") or "")


def files_of(folder: Path) -> list[Path]:
    """The files of a tokenizer in a folder, sorted; none when it has none."""
    found = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    return sorted(found)


def copy_files(source: Path, target: Path) -> None:
    """Copy the tokenizer's files of one folder into another, byte by byte."""
    for path in files_of(source):
        content = path.read_bytes()
        with tables.atomic_write(target / path.name) as partial:
            partial.write_bytes(content)


def make_tokenizer(folder: Path, text_config: Mapping[str, Any], context_length: int) -> "Tokenizer":
    """The tokenizer of the files in `folder`, with the options that the text tower was trained with."""
    options = {"tokenizer_mode": text_config.get("tokenizer_mode"), **text_config.get("tokenizer_kwargs", {})}
    tokenizer: Tokenizer = open_clip.tokenizer.HFTokenizer(str(folder), context_length, **options)
    return tokenizer


def require_library(source: str) -> None:
    """Raise ConceptBenchError unless `transformers`, which makes tokenizers of the hub, is installed."""
    if importlib.util.find_spec("transformers") is None:
        raise ConceptBenchError(
            f"{source}: its texts need the library transformers, which is not installed; install the extra: "
            "pip install 'conceptbench[siglip]'."
        )
