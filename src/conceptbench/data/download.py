"""Download a file so that an interruption costs nothing and a wrong file is never taken for the right one.

Bytes go into `<file>.partial`, which the next call continues with an HTTP range request. The file gets its own name
only after its checksum was compared: with the published one, or with the one that was noted when the file was first
downloaded here (`<file>.sha256`). A web page in place of a file, such as a server shows to ask or to excuse itself, is
never taken.
"""

import hashlib
import re
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from conceptbench.data.places import require_room
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import sha256_file

ATTEMPTS = 5
"""Times a connection is opened before the download is given up; one that brought bytes does not count."""

_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60
_TIMEOUT_SECONDS = 60
_PIECE = 2**20
_PAGES = (".html", ".htm")
_PAGE_BEGINS = (b"<!doctype html", b"<html")
_TRIED_AGAIN = frozenset({408, 429})
"""Answers below 500 that another try may change: too late, too many requests."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def download(url: str, path: Path, checksum: str | None = None) -> str:
    """Bring the file at `url` to `path`, unless it is there; return its SHA-256.

    `checksum` is `md5:<hex>` or `sha256:<hex>`; None compares with what was noted at the first download.

    Raises:
        ConceptBenchError: when the address cannot be read or gives a web page, the connection breaks again and again
            (what has come is kept), the disk has not the room for the rest (nothing is written then), or the checksum
            is another one (what has come is removed).
    """
    if path.is_file():
        return _verify(path, checksum, url, path)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConceptBenchError(f"{url} is no http address; put the file into {path} yourself.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    _fill(url, partial, path)
    try:
        _require_no_page(partial, url, path)
        sha256 = _verify(partial, checksum, url, path)
    except ConceptBenchError:
        partial.unlink()
        raise
    _note(path).write_text(f"{sha256}  {path.name}\n", encoding="utf-8")
    partial.replace(path)
    return sha256


def _verify(path: Path, checksum: str | None, origin: str, name: Path) -> str:
    """Return the SHA-256 of `path` after a comparison with `checksum`, or with what was noted beside `name`.

    Raises:
        ConceptBenchError: when it is another one; both are named.
    """
    sha256 = sha256_file(path)
    algorithm, _, expected = (checksum or _noted(name) or "").partition(":")
    if not algorithm:
        return sha256
    with path.open("rb") as handle:
        found = sha256 if algorithm == "sha256" else hashlib.file_digest(handle, algorithm).hexdigest()
    if found != expected:
        remedy = "remove it if it is still there and run again, or put the right file in its place"
        if checksum is None:
            remedy = f"{remedy}; when it was the first download that brought a wrong file, delete {_note(name)} too"
        raise ConceptBenchError(f"{path} from {origin} has the {algorithm} {found} instead of {expected}; {remedy}.")
    return sha256


def _require_no_page(partial: Path, url: str, path: Path) -> None:
    """Raise ConceptBenchError when what has come begins like a web page, whatever the server called it."""
    with partial.open("rb") as file:
        begins = file.read(256).lstrip().lower().startswith(_PAGE_BEGINS)
    if begins and path.suffix not in _PAGES:
        raise _page(url, path)


def _page(url: str, path: Path) -> ConceptBenchError:
    return ConceptBenchError(
        f"{url} gives a web page instead of {path.name}; open it in a browser and put the file into {path} yourself."
    )


def _note(path: Path) -> Path:
    """Where the checksum of a downloaded file is kept."""
    return path.with_name(f"{path.name}.sha256")


def _noted(path: Path) -> str | None:
    """The checksum that was noted at an earlier download, as `sha256:<hex>`."""
    note = _note(path)
    return f"sha256:{note.read_text(encoding='utf-8').split()[0]}" if note.is_file() else None


def _fill(url: str, partial: Path, path: Path) -> None:
    """Continue `partial` until the server says that it is whole."""
    failures, reason = 0, ""
    while failures < ATTEMPTS:
        before, pause = _size(partial), 0.0
        try:
            if _receive(url, partial, path):
                return
            reason = "the connection ended early, or a part came that was not asked for"
        except urllib.error.HTTPError as error:
            if error.code == 416:
                partial.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in _TRIED_AGAIN:
                raise ConceptBenchError(
                    f"{url} answers {error.code} {error.reason}; put the file into {path} yourself."
                ) from error
            reason, pause = f"{error.code} {error.reason}", _asked_pause(error)
        except (OSError, HTTPException) as error:
            reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        if _size(partial) <= before:
            failures += 1
            time.sleep(max(pause, _PAUSE_SECONDS * failures))
    raise ConceptBenchError(
        f"{url} cannot be downloaded ({reason}; {_size(partial)} bytes are kept); run again to go on from there, or "
        f"put the file into {path} yourself."
    )


def _receive(url: str, partial: Path, path: Path) -> bool:
    """Append what one connection brings; whether the file is whole then."""
    kept, tag = _size(partial), partial.with_name(f"{partial.name}.etag")
    known = tag.read_text(encoding="utf-8") if tag.is_file() else ""
    headers = {"User-Agent": "conceptbench", "Accept-Encoding": "identity"}
    if kept and known:
        headers |= {"Range": f"bytes={kept}-", "If-Range": known}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS) as response:
        if response.headers.get_content_type() == "text/html" and path.suffix not in _PAGES:
            raise _page(url, path)
        if response.status == 206 and _part(response)[0] != kept:
            _forget(partial, tag)
            return False
        start = kept if response.status == 206 else 0
        total = _total(response)
        require_room(partial.parent, (total or kept) - kept, f"What is left of {url} takes")
        _keep_tag(response, tag)
        with (
            partial.open("r+b" if start else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=partial.stem, mininterval=0.5) as bar,
        ):
            file.seek(start)
            file.truncate()
            while piece := response.read(_PIECE):
                file.write(piece)
                bar.update(len(piece))
            received = file.tell()
    if total is not None and received != total:
        if received > total:
            _forget(partial, tag)
        return False
    tag.unlink(missing_ok=True)
    return True


def _part(response: HTTPResponse) -> tuple[int | None, int | None]:
    """First byte and size of the whole file, from a partial answer's `Content-Range: bytes <first>-<last>/<size>`.

    The size is the end of this part where the server does not know it. Both are None where the header is missing or is
    of another form.
    """
    found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if found is None:
        return None, None
    first, last, size = found.groups()
    return int(first), int(last) + 1 if size == "*" else int(size)


def _total(response: HTTPResponse) -> int | None:
    """Size of the whole file, or None where the server does not say or says no number."""
    if response.status == 206:
        return _part(response)[1]
    length = response.headers.get("Content-Length", "").strip()
    return int(length) if length.isascii() and length.isdigit() else None


def _asked_pause(error: urllib.error.HTTPError) -> float:
    """Seconds that a busy server asks to wait, up to a minute; 0 where it asks for none."""
    asked = (error.headers.get("Retry-After") or "").strip()
    return min(float(asked), _LONGEST_PAUSE_SECONDS) if asked.isascii() and asked.isdigit() else 0.0


def _forget(partial: Path, tag: Path) -> None:
    """Start anew with the next connection."""
    partial.unlink(missing_ok=True)
    tag.unlink(missing_ok=True)


def _keep_tag(response: HTTPResponse, tag: Path) -> None:
    """Remember which version of the file this is, so that two versions are never joined."""
    version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    if version and not version.startswith("W/"):
        tag.write_text(version, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
