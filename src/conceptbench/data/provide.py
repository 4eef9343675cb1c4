"""Make sure that a published data set lies below `data_root`: found there, or downloaded, verified and unpacked."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, assert_never

from conceptbench.data.archives import unpack
from conceptbench.data.catalogue import Part, Source
from conceptbench.data.download import download
from conceptbench.data.hub import fetch_shards, require_login
from conceptbench.errors import ConceptBenchError

Policy = Literal["never", "missing"]
"""Whether files that are not there may be downloaded."""

DOWNLOADS = "downloads"
"""Folder below `data_root` for archives; they may be deleted once they are unpacked."""


def provide_dataset(source: Source, data_root: Path, policy: Policy) -> dict[str, Any]:
    """Bring what is missing of `source`, by `policy`, and describe where everything came from.

    Returns:
        title, licence, homepage, and for each part its name and where it was `found` (null for an optional part that is
        not there), or the `url` and the SHA-256 of what was downloaded now.

    Raises:
        ConceptBenchError: when a part is missing and may not or cannot be downloaded (all missing ones are named with
            the places to get them, and a login that is missing, before anything is downloaded), or a download or an
            archive is refused.
    """
    if not data_root.is_dir() and policy == "never":
        raise ConceptBenchError(f"The folder data_root = {data_root} does not exist; set data_root to your images.")
    print(f"{source.title}; licence: {source.licence}; source: {source.homepage}")
    missing = [part for part in source.parts if _found(part, data_root) is None]
    wanted = [part for part in missing if not part.downloads or (policy == "never" and not part.optional)]
    if wanted:
        raise ConceptBenchError(_ask_for(source, wanted, data_root, policy))
    fetched = {}
    if missing and policy == "missing":
        for part in missing:
            if part.shards is not None:
                require_login(part.shards, data_root / part.found_at[0])
        with _alone(data_root / DOWNLOADS / source.kind):
            fetched = {
                part.name: _fetch(part, data_root, data_root / DOWNLOADS / source.kind)
                for part in missing
                if _found(part, data_root) is None
            }
    parts = [fetched.get(part.name, {"name": part.name, "found": _found(part, data_root)}) for part in source.parts]
    return {
        "kind": source.kind,
        "title": source.title,
        "licence": source.licence,
        "homepage": source.homepage,
        "parts": parts,
    }


def _found(part: Part, data_root: Path) -> str | None:
    """The first of a part's paths that exists."""
    return next((path for path in part.found_at if (data_root / path).exists()), None)


def _fetch(part: Part, data_root: Path, folder: Path) -> dict[str, Any]:
    """Download a part, archives and shards into `folder`, and put it in place."""
    if part.shards is not None:
        return fetch_shards(part, part.shards, folder, data_root / part.found_at[0])
    place = data_root / part.place
    target = folder / part.name if part.archive else place / part.name
    sha256 = download(str(part.url), target, part.checksum)
    if part.archive:
        unpack(target, place)
        for inner in part.inner:
            unpack(place / inner, (place / inner).parent)
    if _found(part, data_root) is None:
        raise ConceptBenchError(f"{target} from {part.url} does not hold {part.found_at[0]}; get it from its source.")
    return {"name": part.name, "url": part.url, "sha256": sha256}


def _ask_for(source: Source, wanted: list[Part], data_root: Path, policy: Policy) -> str:
    """One sentence that names every part to bring, where it belongs and where to get it."""
    parts = "; ".join(
        f"{part.name} (as {data_root / part.found_at[0]}) from {part.by_hand or part.url}" for part in wanted
    )
    match policy:
        case "never":
            remedy = (
                "put it there, or set 'downloads: missing'"
                if any(part.downloads for part in wanted)
                else "put it there"
            )
        case "missing":
            remedy = "put it there, it cannot be downloaded unasked"
        case _:
            assert_never(policy)
    return f"{source.title} lacks {parts}; {remedy}."


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second job from downloading into the same folder at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
