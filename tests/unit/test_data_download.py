"""Downloads go on where they stopped, and no other file than the published one is ever kept."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_tools import Site, serving

from conceptbench.data import download as module
from conceptbench.data import places
from conceptbench.data.download import ATTEMPTS, download
from conceptbench.errors import ConceptBenchError

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)
    with serving() as server:
        server.files["file.bin"] = CONTENT
        yield server


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def test_interrupted_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.cut_after = [300_000, 200_000]
    sha256 = download(site.url("file.bin"), tmp_path / "a" / "file.bin", md5(CONTENT))
    assert (tmp_path / "a" / "file.bin").read_bytes() == CONTENT
    assert sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert [wanted for _, wanted in site.asked] == [None, "bytes=300000-", "bytes=500000-"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["file.bin", "file.bin.sha256"]


def test_download_of_a_killed_process_goes_on(site: Site, tmp_path: Path) -> None:
    site.cut_after = [300_000] + [0] * ATTEMPTS
    with pytest.raises(ConceptBenchError, match=r"300000 bytes are kept.*run again to go on"):
        download(site.url("file.bin"), tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()
    site.asked.clear()
    download(site.url("file.bin"), tmp_path / "file.bin", md5(CONTENT))
    assert [wanted for _, wanted in site.asked] == ["bytes=300000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_two_versions_of_a_file_are_never_joined(site: Site, tmp_path: Path) -> None:
    site.cut_after = [300_000] + [0] * ATTEMPTS
    with pytest.raises(ConceptBenchError):
        download(site.url("file.bin"), tmp_path / "file.bin")
    site.files["file.bin"] = CONTENT[::-1]
    download(site.url("file.bin"), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1]


def test_server_without_ranges(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cut_after = False, [300_000]
    download(site.url("file.bin"), tmp_path / "file.bin", md5(CONTENT))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong",
    [
        {"Content-Range": f"bytes 900000-{len(CONTENT) - 1}/{len(CONTENT)}"},
        {"Content-Range": None},
        {"Content-Range": f"bytes */{len(CONTENT)}"},
        {"Content-Range": "bytes three-four/five"},
        {"Content-Range": "bytes 300000-1023999/700000"},
    ],
)
def test_part_that_was_not_asked_for_is_never_joined(site: Site, tmp_path: Path, wrong: dict[str, str | None]) -> None:
    site.cut_after, site.parts = [300_000], [wrong]
    download(site.url("file.bin"), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == [None, "bytes=300000-", None]


@pytest.mark.parametrize("headers", [{"Content-Length": "abc"}, {"Content-Range": "bytes 300000-1023999/*"}])
def test_sizes_that_are_no_numbers(site: Site, tmp_path: Path, headers: dict[str, str | None]) -> None:
    site.cut_after, site.parts = [300_000, 800_000], [headers]
    download(site.url("file.bin"), tmp_path / "file.bin", md5(CONTENT))
    assert [wanted for _, wanted in site.asked] == [None, "bytes=300000-"]


def test_busy_servers_are_asked_again(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    site.refusals = [(429, {"Retry-After": "7"}), (408, {}), (429, {"Retry-After": "86400"}), (503, {})]
    download(site.url("file.bin"), tmp_path / "file.bin", md5(CONTENT))
    assert len(site.asked) == 5 and pauses == [7.0, 0.0, 60.0, 0.0]
    site.refusals = [(403, {})]
    with pytest.raises(ConceptBenchError, match="answers 403"):
        download(site.url("file.bin"), tmp_path / "other.bin")


def test_full_disk_is_said_before_the_first_byte(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = places.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT) - 1))
    with pytest.raises(ConceptBenchError, match=r"What is left of http.*file\.bin takes 0\.0 GB.*; free some room"):
        download(site.url("file.bin"), tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)
    site.cut_after = [300_000] + [0] * ATTEMPTS
    with pytest.raises(ConceptBenchError, match="300000 bytes are kept"):
        download(site.url("file.bin"), tmp_path / "file.bin")
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT) - 300_000))
    download(site.url("file.bin"), tmp_path / "file.bin", md5(CONTENT))


def test_wrong_checksum_is_refused_and_removed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match=r"has the md5 [0-9a-f]{32} instead of [0-9a-f]{32}; remove it"):
        download(site.url("file.bin"), tmp_path / "file.bin", md5(b"another file"))
    assert list(tmp_path.iterdir()) == []
    damaged = bytearray(CONTENT)
    damaged[500_000] ^= 1
    site.files["file.bin"] = bytes(damaged)
    with pytest.raises(ConceptBenchError, match="sha256"):
        download(site.url("file.bin"), tmp_path / "file.bin", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_there_is_verified_and_not_asked_for(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    assert download(site.url("file.bin"), path, md5(CONTENT)) == hashlib.sha256(CONTENT).hexdigest()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ConceptBenchError, match="instead of"):
        download(site.url("file.bin"), path, md5(CONTENT))
    assert path.exists() and site.asked == []


def test_file_without_a_published_checksum_is_noted_and_compared(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    download(site.url("file.bin"), path)
    path.unlink()
    site.files["file.bin"] = CONTENT[::-1]
    with pytest.raises(ConceptBenchError, match="instead of " + hashlib.sha256(CONTENT).hexdigest()):
        download(site.url("file.bin"), path)
    assert not path.exists()
    with pytest.raises(ConceptBenchError, match=r"delete .*file\.bin\.sha256 too"):
        download(site.url("file.bin"), path)
    (tmp_path / "file.bin.sha256").unlink()
    download(site.url("file.bin"), path)
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("named", "begins"), [(True, b"Sign in"), (False, b"\n <!DOCTYPE html><p>Sign in"), (False, b"<html>")]
)
def test_web_page_in_place_of_a_file_is_refused(site: Site, tmp_path: Path, named: bool, begins: bytes) -> None:
    site.files |= {"split.json": begins, "page.html": begins}
    site.types = {"split.json": "text/html; charset=utf-8"} if named else {}
    with pytest.raises(
        ConceptBenchError, match=r"gives a web page instead of split\.json; .*put the file into .*split"
    ):
        download(site.url("split.json"), tmp_path / "split.json")
    assert len(site.asked) == 1 and list(tmp_path.iterdir()) == []
    download(site.url("page.html"), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == begins


def test_addresses_that_give_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match=r"answers 404.*put the file into .*gone.bin yourself"):
        download(site.url("gone.bin"), tmp_path / "gone.bin")
    assert len(site.asked) == 1
    with pytest.raises(ConceptBenchError, match="is no http address"):
        download("file:///etc/hostname", tmp_path / "name")
    with pytest.raises(ConceptBenchError, match="cannot be downloaded"):
        download("http://127.0.0.1:9/file.bin", tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


@given(cuts=st.lists(st.integers(1, 4096), max_size=6))
def test_any_interruptions_give_the_same_file(cuts: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    content = CONTENT[:9000]
    with serving() as server:
        server.files["file.bin"] = content
        server.cut_after = list(cuts)
        path = tmp_path_factory.mktemp("any") / "file.bin"
        assert download(server.url("file.bin"), path) == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content
