"""Encoding, one file of codes after another: a job that is killed encodes no file twice."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

from _learning import digest_of_files

from conceptbench.dictionaries import CodesWriter, Dictionary
from conceptbench.tables import read_json, sha256_file, write_json

IMAGES = 512
"""Whose tokens are encoded at once."""


class Encoding:
    """The files of codes of one job; notes say which are done, under a key of everything that the job depends on."""

    def __init__(self, notes: Path, inputs: Iterable[str], device: str) -> None:
        """Encode on a torch device; `notes` is a folder that holds nothing else."""
        self._all, self._notes, self._device = notes, notes / digest_of_files(inputs)[:16], device

    def write(self, name: str, path: Path, dictionary: Dictionary, tokens: Iterator[tuple[Any, Any]]) -> None:
        """Write the codes of batches of tokens to a file, unless it is there from an attempt before."""
        note = self._notes / f"{name}.json"
        if note.is_file() and path.is_file() and read_json(note) == sha256_file(path):
            print(f"{path} is there already")
            return
        with CodesWriter(path) as codes:
            for _, batch in tokens:
                codes.append(dictionary.encode(batch, self._device))
        write_json(sha256_file(path), note)

    def close(self) -> None:
        """Forget the notes: the job has ended, and its manifest says what there is."""
        rmtree(self._all, ignore_errors=True)
