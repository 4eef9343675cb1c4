"""Images from parquet shards of the hub that need the user's own login, as the folders their publisher has them in.

The login is the hub's: `HF_TOKEN` or the file that `hf auth login` writes. It is handed to `huggingface_hub` only, and
written nowhere. Shards come one after the other. The images of one are written below `.<folder>.partial`, it is noted
in `shards.json` there, and its parquet is removed; so a killed download loses one shard, and the disk holds one shard
beside the images. The folder gets its own name when all shards are in it.
"""

import re
import shutil
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pyarrow.parquet as pq
from huggingface_hub.errors import GatedRepoError, LocalTokenNotFoundError
from pyarrow import ArrowException
from tqdm import tqdm

from conceptbench import tables
from conceptbench.data.catalogue import Part, Shards
from conceptbench.data.places import require_room
from conceptbench.errors import ConceptBenchError

NOTE = "shards.json"
"""File beside the synsets' folders: repository, revision, and each unpacked shard's SHA-256, images and bytes."""

_NAME = re.compile(r"(?P<stem>(?:(?P<folder>n\d{8})_\d+)|(?:ILSVRC2012_val_\d{8}))_(?P<synset>n\d{8})\.JPEG", re.ASCII)
"""The hub's file names: those of ImageNet's archives with the synset appended."""
_ROWS = 64
"""Images that are in memory at a time."""


def require_login(shards: Shards, place: Path) -> None:
    """Raise ConceptBenchError when nobody is logged in to the hub; the sentence says how to."""
    if not huggingface_hub.get_token():
        _refuse(shards, place, "needs a login, and there is none")


def fetch_shards(part: Part, shards: Shards, folder: Path, place: Path) -> dict[str, Any]:
    """Bring all images of `shards` to `place`/<synset>/<name>.JPEG, going on after what is there.

    Args:
        part: what the images are to be called. folder: for the shard under way, on any disk.
        place: does not exist yet; its parent is made.

    Returns:
        `name`, `url`, `revision`, `images`, `shards`, and `sha256` of the list of the shards' own.

    Raises:
        ConceptBenchError: without a login or consent to the terms, when a shard cannot be had, is not the one that the
            hub describes or holds something else than images with names of the published form, or the disk is full.
    """
    require_login(shards, place)
    work = place.with_name(f".{place.name}.partial")
    note = tables.read_json(work / NOTE) if (work / NOTE).is_file() else {}
    require_pinned(note, shards.repository, shards.revision, work / NOTE)
    note = note or {"repository": shards.repository, "revision": shards.revision, "files": {}}
    files = _listed(shards, place)
    left = [size or 0 for name, (size, _) in files.items() if name not in note["files"]]
    work.mkdir(parents=True, exist_ok=True)
    require_room(work, sum(left) + max(left, default=0), f"What is left of {part.name} takes")
    for name in tqdm(sorted(files), desc=part.name, unit=" shards", mininterval=0.5):
        if name not in note["files"]:
            shard = _shard(shards, name, files[name][1], folder, place)
            note["files"][name] = {"sha256": tables.sha256_file(shard), **_unpack(shard, work)}
            tables.write_json(note, work / NOTE)
        (folder / name).unlink(missing_ok=True)
    images = _require_whole(note, work)
    work.replace(place)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # what huggingface_hub knows of the shards that were here
    digests = {name: file["sha256"] for name, file in note["files"].items()}
    facts = {"revision": shards.revision, "images": images, "shards": len(digests)}
    return {"name": part.name, "url": shards.url, "sha256": tables.digest(digests), **facts}


def require_pinned(lock: dict[str, Any], repository: str, revision: str | None, path: Path) -> None:
    """Raise ConceptBenchError when a lock, read from `path` or empty, pins another commit than is asked for."""
    if lock and revision and lock["revision"] != revision:
        raise ConceptBenchError(
            f"{path} pins {repository} at {lock['revision']}, but this run asks for {revision}; remove one."
        )


def unpacked_bytes(place: Path) -> int:
    """Bytes of the shards of `place` that an interrupted download has unpacked."""
    note = place.with_name(f".{place.name}.partial") / NOTE
    return sum(file["bytes"] for file in tables.read_json(note)["files"].values()) if note.is_file() else 0


def _listed(shards: Shards, place: Path) -> dict[str, tuple[int | None, str | None]]:
    """Size and SHA-256 of every shard, each None where the hub does not tell."""
    try:
        info = huggingface_hub.HfApi().dataset_info(
            shards.repository, revision=shards.revision, files_metadata=True, token=True
        )
    except Exception as error:
        _explain(error, shards, place)
    numbered = re.compile(rf"data/{re.escape(shards.split)}-(\d{{5}})-of-(\d{{5}})\.parquet", re.ASCII)
    found = {match[0]: file for file in info.siblings or () if (match := numbered.fullmatch(file.rfilename))}
    counts = {int(name[-13:-8]) for name in found}
    if counts != {len(found)}:
        raise ConceptBenchError(
            f"{shards.repository} has {len(found)} shards of {shards.split}, which are not as many as their names say; "
            f"put the images into {place} yourself."
        )
    return {name: (file.size, file.lfs.sha256 if file.lfs else None) for name, file in found.items()}


def _shard(shards: Shards, name: str, sha256: str | None, folder: Path, place: Path) -> Path:
    """Download a shard; an interrupted download goes on."""
    try:
        shard = Path(
            huggingface_hub.hf_hub_download(
                shards.repository, name, repo_type="dataset", revision=shards.revision, local_dir=folder, token=True
            )
        )
    except Exception as error:
        _explain(error, shards, place)
    found = tables.sha256_file(shard)
    if sha256 and found != sha256:
        shard.unlink()
        raise ConceptBenchError(
            f"{name} of {shards.repository} has the sha256 {found} instead of {sha256}; it was removed, run again."
        )
    return shard


def _unpack(shard: Path, work: Path) -> dict[str, int]:
    """Write the images of a shard to their synsets' folders, and count them and their bytes."""
    images, size = 0, 0
    try:
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(_ROWS, columns=["image"]):
                for image in batch.column("image").to_pylist():
                    target = work / _target(image, shard)
                    target.parent.mkdir(exist_ok=True)
                    size += target.write_bytes(image["bytes"])
                    images += 1
    except (ArrowException, KeyError, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ConceptBenchError(f"{shard} cannot be unpacked ({reason}); remove it and run again.") from error
    return {"images": images, "bytes": size}


def _target(image: Any, shard: Path) -> str:
    """`<synset>/<name>.JPEG` of a row, named as in ImageNet's own archives.

    Raises:
        ConceptBenchError: unless the row has bytes and a name of the published form, with one synset.
    """
    name = image.get("path") if isinstance(image, dict) else None
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None or not image.get("bytes") or found["folder"] not in (None, found["synset"]):
        raise ConceptBenchError(f"{shard} has the image '{str(name)[:80]}', whose name or content is not ImageNet's.")
    return f"{found['synset']}/{found['stem']}.JPEG"


def _require_whole(note: dict[str, Any], work: Path) -> int:
    """The number of images; ConceptBenchError unless as many lie in `work` as were unpacked."""
    noted = sum(file["images"] for file in note["files"].values())
    there = sum(1 for _ in work.glob("n*/*.JPEG"))
    if there != noted:
        raise ConceptBenchError(
            f"{work} has {there} images of the {noted} that were unpacked; remove it and run again."
        )
    return there


def _explain(error: Exception, shards: Shards, place: Path) -> NoReturn:
    """Raise what the hub's refusal means for the user."""
    if isinstance(error, LocalTokenNotFoundError):
        _refuse(shards, place, "needs a login, and there is none", error)
    if isinstance(error, GatedRepoError):
        _refuse(shards, place, "is not open to the account that is logged in", error)
    reason = " ".join(str(error).split())[:200]
    raise ConceptBenchError(
        f"{shards.repository} cannot be fetched from the hub ({reason}); run again to go on, or put the images into "
        f"{place} yourself."
    ) from error


def _refuse(shards: Shards, place: Path, why: str, error: Exception | None = None) -> NoReturn:
    raise ConceptBenchError(
        f"{shards.repository} {why}: agree to its terms at {shards.url}, run `hf auth login` or set HF_TOKEN, and run "
        f"again, or put the images into {place} yourself."
    ) from error
