"""Unpack an archive into a folder, and refuse every member that would reach outside of it.

All members are looked at before the first is unpacked. They go into a folder of their own beside the place, and are
moved into place at the end: an interruption leaves nothing half-unpacked under a final name, and files that are there
are never overwritten.
"""

import copy
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from conceptbench.data.places import leads_outside, require_room
from conceptbench.errors import ConceptBenchError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""File names that are archives."""


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked, rather than put in place as it is."""
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, place: Path) -> None:
    """Unpack `archive` (zip, or tar with any compression) into the folder `place`.

    Raises:
        ConceptBenchError: when it is damaged, names a file outside of `place`, holds a link that leads outside, a
            device or a pipe, or needs more room than the disk has; nothing is unpacked then.
    """
    place.mkdir(parents=True, exist_ok=True)
    work = place / f".{archive.name}.unpacking"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir()
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, work, place)
        else:
            _untar(archive, work, place)
        _move_into(work, place)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ConceptBenchError(f"{archive} cannot be unpacked ({reason}); remove it and run again.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unzip(archive: Path, work: Path, place: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            _require_inside(member.filename, archive)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ConceptBenchError(f"{archive} holds the link {member.filename}; it is not unpacked.")
        require_room(place, sum(member.file_size for member in members), f"{archive} unpacks to")
        file.extractall(work)


def _untar(archive: Path, work: Path, place: Path) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for member in members:
            _require_inside(member.name, archive)
            if member.issym() or member.islnk():
                base = PurePosixPath(member.name).parent if member.issym() else PurePosixPath()
                _require_link_inside(member, base, archive)
            elif not (member.isfile() or member.isdir()):
                raise ConceptBenchError(f"{archive} holds {member.name}, no plain file; it is not unpacked.")
        _require_no_way_through_links(members, archive)
        require_room(place, sum(member.size for member in members), f"{archive} unpacks to")
        file.extractall(work, [_plain(member) for member in members], **FILTER)


FILTER: Final[dict[str, Any]] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python's own guard, which 3.11 has from 3.11.4 on; the checks here do not need it."""


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member as a file of whoever unpacks it, with no special permissions."""
    mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    owner = {"uid": os.getuid(), "gid": os.getgid(), "uname": "", "gname": ""} if hasattr(os, "getuid") else {}
    plain = copy.copy(member)
    for name, value in {"mode": mode, **owner}.items():
        setattr(plain, name, value)
    return plain


def _require_no_way_through_links(members: Sequence[tarfile.TarInfo], archive: Path) -> None:
    """Raise ConceptBenchError when a name does not say where it goes, because a link of the archive stands in its way.

    A member may lie below no link and take the place of none, and a link may go through none. What a link says is then
    where it leads, and `_require_link_inside` can go by its text.
    """
    links = {PurePosixPath(member.name) for member in members if member.issym()}
    folders: dict[PurePosixPath, bool] = {}
    for member in members:
        name = PurePosixPath(member.name)
        if links.intersection(name.parents):
            raise _refused(archive, f"names {member.name}, which lies below a link")
        if name in folders and not (member.isdir() and folders[name]):  # only a folder may be named again
            raise _refused(archive, f"names {member.name} more than once")
        folders[name] = member.isdir()
        if (member.issym() or member.islnk()) and links.intersection(_way(member)):
            raise _refused(archive, f"holds the link {member.name} to {member.linkname}, which goes through a link")


def _way(link: tarfile.TarInfo) -> Iterator[PurePosixPath]:
    """Everything that the target of a link passes; the end of it too for a hard link.

    The system would look behind a symbolic link at the end of a hard link, or give it another folder to start from.
    """
    base = PurePosixPath(link.name).parent if link.issym() else PurePosixPath()
    here: list[str] = []
    steps = (base / link.linkname).parts
    for number, step in enumerate(steps, 1):
        here = here[:-1] if step == ".." else [*here, step]
        if number < len(steps) or link.islnk():
            yield PurePosixPath(*here)


def _refused(archive: Path, why: str) -> ConceptBenchError:
    return ConceptBenchError(f"{archive} {why}; it is not unpacked. Get the archive from its source.")


def _require_inside(name: str, archive: Path) -> None:
    """Raise ConceptBenchError unless a member's name stays below the folder it is unpacked into."""
    if leads_outside(name):
        raise _refused(archive, f"names {name}, which is outside of the folder it is unpacked into")


def _require_link_inside(member: tarfile.TarInfo, base: PurePosixPath, archive: Path) -> None:
    """Raise ConceptBenchError when a link leads outside; `base` is the folder that its target is relative to."""
    target = os.path.normpath(base / member.linkname)
    if PurePosixPath(member.linkname).is_absolute() or target.split("/")[0] == "..":
        where = "outside of the folder it is unpacked into"
        raise _refused(archive, f"holds the link {member.name} to {member.linkname}, {where}")


def _move_into(source: Path, place: Path) -> None:
    """Move everything below `source` to `place`; folders that exist are entered, files that exist stay as they are."""
    for entry in sorted(source.iterdir()):
        target = place / entry.name
        if not target.exists():
            entry.replace(target)
        elif entry.is_dir() and target.is_dir():
            _move_into(entry, target)
