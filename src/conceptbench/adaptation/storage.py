"""Adapters on disk: `adapter.safetensors` with the learned tensors and `card.json` with all that explains them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from conceptbench.adaptation.fitting import Stored
from conceptbench.adaptation.specs import method_spec
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import atomic_write, read_json, write_json

if TYPE_CHECKING:
    from conceptbench.adaptation.adapter import Adapter
    from conceptbench.backbones import Backbone

TENSORS_FILE = "adapter.safetensors"
"""Name of the file with the learned tensors."""

CARD_FILE = "card.json"
"""Name of the file that describes them; written last, so a folder with a card is complete."""


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write the adapter to `folder`, each file complete or absent."""
    (folder / CARD_FILE).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.tensors().items()}
    with atomic_write(folder / TENSORS_FILE) as path:
        save_file(tensors, path)
    write_json(adapter.card, folder / CARD_FILE)


def move_adapters(work: Path, place: Path, names: Sequence[str]) -> None:
    """Move the finished adapters `names` from the folder `work` to `place` and remove `work`.

    Adapters of other names, left by an earlier run, are removed from `place`. Each folder moves in one step; a reader
    of several of them relies on what the job writes last.

    Raises ConceptBenchError when the disk refuses.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        for old in [path for path in place.iterdir() if (path / CARD_FILE).is_file()]:
            shutil.rmtree(old)
        for name in names:
            (work / name).replace(place / name)
        shutil.rmtree(work)
    except OSError as error:
        raise ConceptBenchError(f"Cannot move adapters from {work} to {place}: {error}; repair the disk.") from error


def load_adapter(folder: Path, backbone: Backbone) -> Adapter:
    """The adapter stored in `folder`, for `backbone`.

    Raises ConceptBenchError when a file is missing or damaged, the backbone's weights are others than it was fitted
    to, or the tensors differ in name or shape from what the method at this depth has.
    """
    from conceptbench.adaptation.methods import restore

    folder = Path(folder)
    card = read_json(folder / CARD_FILE)
    if not isinstance(card, dict) or not {"backbone", "spec", "classes"} <= set(card):
        raise ConceptBenchError(f"{folder / CARD_FILE} is not the card of an adapter; run the adaptation again.")
    tensors = _read_tensors(folder / TENSORS_FILE)
    spec, source = method_spec(card["spec"]), str(folder / TENSORS_FILE)
    if card["backbone"]["digest"] != backbone.digest:
        raise ConceptBenchError(
            f"{folder}: the adapter was fitted to backbone {card['backbone']['name']!r} with weights "
            f"{card['backbone']['digest'][:12]}, not to {backbone.name!r} with weights {backbone.digest[:12]}; "
            "load that backbone or adapt this one."
        )
    return restore(spec, Stored(backbone, card, tensors, source))


def require_tensors(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise ConceptBenchError unless `found` has exactly the names and shapes of `expected`."""
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    differing = [
        f"{name} is {tuple(found[name].shape)} instead of {expected[name]}"
        for name in sorted(set(found) & set(expected))
        if tuple(found[name].shape) != tuple(expected[name])
    ]
    problems = [f"missing {', '.join(missing)}"] * bool(missing)
    problems += [f"unexpected {', '.join(unexpected)}"] * bool(unexpected)
    if problems or differing:
        raise ConceptBenchError(
            f"{source} does not hold the tensors its card describes ({'; '.join(problems + differing)}); "
            "run the adaptation again or restore both files of one run."
        )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConceptBenchError(f"{path} is missing or damaged ({error}); run the adaptation again.") from error
