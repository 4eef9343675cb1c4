"""Image files: read them, check them, hash them."""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from conceptbench.errors import ConceptBenchError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
_AT_ONCE = 1024
"""Images whose check may be under way: what waits is bounded, however many there are."""


def read_image(path: Path, sha256: str | None = None) -> tuple[Image.Image, str]:
    """The decoded RGB image and the SHA-256 of its file.

    Raises:
        ConceptBenchError: when the file is missing, is not a whole image, or has another checksum than expected.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConceptBenchError(f"Image {path} cannot be read ({error.strerror}); restore the file.") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise ConceptBenchError(
            f"Image {path} is not the file of the manifest (checksum); restore it or prepare again."
        )
    try:
        return Image.open(io.BytesIO(content)).convert("RGB"), found
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "truncated" if "truncated" in str(error) else "not a readable image"
        raise ConceptBenchError(
            f"Image {path} is {reason}; restore the file or remove it from the data set."
        ) from error


def inspect_images(
    root: Path, paths: Sequence[str], name: str, workers: int = 4
) -> tuple[list[str], set[tuple[int, int]]]:
    """Decode every image once: SHA-256 of each file, and the set of sizes (height, width) that occur.

    At most `workers` decoded images are in memory at a time; Pillow decodes them side by side.
    """
    checksums: list[str] = []
    sizes: set[tuple[int, int]] = set()
    bar = tqdm(total=len(paths), desc=f"checking {name}", unit=" images", mininterval=0.5)
    with bar, ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(paths), _AT_ONCE):
            for sha256, size in pool.map(partial(_inspect, root), paths[first : first + _AT_ONCE]):
                checksums.append(sha256)
                sizes.add(size)
                bar.update()
    return checksums, sizes


def _inspect(root: Path, path: str) -> tuple[str, tuple[int, int]]:
    image, sha256 = read_image(root / path)
    return sha256, (image.height, image.width)


def image_folder(root: Path) -> dict[str, list[str]]:
    """Sub-folder name to the sorted image paths in it, relative to the root; hidden files are passed over.

    Raises:
        ConceptBenchError: when the root is missing, has no sub-folder with images, or a sub-folder is empty.
    """
    if not root.is_dir():
        raise ConceptBenchError(f"Folder {root} does not exist; unpack the images there or set data_root.")
    folders = {}
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        found = sorted(
            path.relative_to(root).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not found:
            raise ConceptBenchError(f"Class folder {folder} holds no image; add images or remove the folder.")
        folders[folder.name] = found
    if not folders:
        raise ConceptBenchError(f"Folder {root} has no sub-folder with images; give it one sub-folder a class.")
    return folders
