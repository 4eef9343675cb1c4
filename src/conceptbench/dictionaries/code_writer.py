"""Codes of many images into one file, batch by batch: memory does not grow with the data set."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from conceptbench.dictionaries.codes import DTYPES, FORMAT, Codes
from conceptbench.errors import ConceptBenchError
from conceptbench.tensor_files import join_tensors


class CodesWriter:
    """A file of codes to which consecutive images are appended; its bytes are those of `Codes.save` for all of them.

    Used as a context: the file appears when the body ends, and not when it fails. Until then the values lie in a
    hidden folder beside it, which the next attempt replaces after a kill.
    """

    def __init__(self, path: Path | str) -> None:
        """Prepare to write the codes `path`."""
        self._path = Path(path)
        self._parts = self._path.with_name(f".{self._path.stem}.parts")
        self._files: dict[str, BinaryIO] = {}
        self._open = ExitStack()
        self._images, self._firings = 0, 0
        self._like: tuple[int, int, str] | None = None

    def __enter__(self) -> Self:
        """Begin without any image."""
        shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir(parents=True)
        self._files = {name: self._open.enter_context((self._parts / name).open("wb")) for name in DTYPES}
        self._write("indptr", np.zeros(1, np.int64))
        return self

    def append(self, part: Codes) -> None:
        """Write the codes of the next images.

        Raises:
            ConceptBenchError: when they come from another dictionary or have other tokens than those before, or the
                disk refuses.
        """
        like = (part.shape[1], part.shape[2], part.dictionary)
        if self._like not in (None, like):
            raise ConceptBenchError(
                "Codes of different dictionaries or token counts cannot be joined; encode them alike."
            )
        self._write("indptr", part.indptr[1:] + self._firings)
        self._write("indices", part.indices)
        self._write("values", part.values)
        self._like = like
        self._images += part.shape[0]
        self._firings += int(part.indptr[-1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the file in place, unless the body failed.

        Raises:
            ConceptBenchError: when no image was appended, or the disk refuses.
        """
        try:
            with self._named():
                self._open.close()
            if kind is None:
                self._join()
        finally:
            shutil.rmtree(self._parts, ignore_errors=True)

    def _write(self, name: str, values: np.ndarray) -> None:
        with self._named():
            self._files[name].write(np.ascontiguousarray(values, np.dtype(DTYPES[name]).newbyteorder("<")).data)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say in one sentence which file the disk refused."""
        try:
            yield
        except OSError as error:
            raise ConceptBenchError(
                f"Cannot write {self._path}: {error.strerror}; free or repair the disk and run again."
            ) from error

    def _join(self) -> None:
        if self._like is None:
            raise ConceptBenchError("No codes to write; encode at least one batch of images.")
        tokens, latents, dictionary = self._like
        meta = {"format": FORMAT, "shape": json.dumps((self._images, tokens, latents)), "dictionary": dictionary}
        join_tensors({name: (np.dtype(kind), self._parts / name) for name, kind in DTYPES.items()}, self._path, meta)
