"""What a job has learnt and saved already: a job that is killed learns no part of its work twice.

A part is one call of `learn_many`. While it learns, its checkpoints lie in a folder of its own; when its dictionaries
are saved, a record of them takes their place. All of it stands under a key of everything that the job depends on, so
a job with other parameters, data or code finds nothing. In a group of processes that learn together (`distributed`) the
first one looks and saves.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import rmtree
from typing import TypeAlias

from conceptbench.dictionaries.checkpoint import CheckpointPolicy
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.distributed import is_first, of_first
from conceptbench.dictionaries.storage import load_dictionary
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json, write_json

Learnt: TypeAlias = Mapping[tuple[str, int], Dictionary]
Folders: TypeAlias = dict[tuple[str, int], Path]
"""Where the dictionaries of a part lie, by (name, seed)."""


class Ledger:
    """The parts of a job that are done, and the checkpoints of the one that is not."""

    def __init__(self, folder: Path, key: str) -> None:
        """Read and write nothing yet; `folder` holds nothing else, and `key` names what the job depends on."""
        self._all, self._folder = folder, folder / key[:16]

    def part(
        self, name: str, learn: Callable[[CheckpointPolicy], Learnt], place: Callable[[str, int], Path]
    ) -> Folders:
        """Return where the dictionaries of a part lie, learnt and saved now unless they were before.

        Args:
            name: of the part, unique in the job.
            learn: learns the part, given where its checkpoints are kept.
            place: from the name and the seed of a dictionary to its folder.
        """
        record = self._folder / f"{name}.json"
        if (done := of_first(_still_there(record, place) if is_first() else None)) is not None:
            return done
        policy = CheckpointPolicy(self._folder / name)
        folders: Folders = {}
        digests = []
        for (dictionary, seed), learnt in learn(policy).items():
            folders[dictionary, seed] = place(dictionary, seed)
            if is_first():
                learnt.save(folders[dictionary, seed])
            digests.append([dictionary, seed, learnt.digest])
        if is_first():
            write_json(digests, record)
            policy.clear()
        return folders

    def close(self) -> None:
        """Forget everything: the job has ended, and its manifest says what there is."""
        rmtree(self._all, ignore_errors=True)


def _still_there(record: Path, place: Callable[[str, int], Path]) -> Folders | None:
    """Return the folders of a record when each holds the dictionary that was saved there, and is whole."""
    if not record.is_file():
        return None
    folders: Folders = {}
    for name, seed, digest in read_json(record):
        folders[name, seed] = place(name, seed)
        try:
            if load_dictionary(folders[name, seed]).digest != digest:
                return None
        except ConceptBenchError:
            return None
    return folders
