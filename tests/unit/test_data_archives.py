"""Archives are unpacked whole and inside their folder, or not at all."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from conceptbench.data import archives
from conceptbench.data.archives import FILTER, is_archive, unpack
from conceptbench.errors import ConceptBenchError

FILES = {"set/a/1.txt": b"one", "set/b/2.txt": b"two"}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return path


def make_tar(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for member in members:
            file.addfile(member)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def make(path: Path, files: dict[str, bytes]) -> Path:
    return make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files)


def refused(archive: Path, place: Path, message: str) -> None:
    outside = {path for path in place.parent.rglob("*") if place not in path.parents}
    with pytest.raises(ConceptBenchError, match=message) as caught:
        unpack(archive, place)
    assert str(archive) in str(caught.value)
    assert list(place.iterdir()) == []
    assert {path for path in place.parent.rglob("*") if place not in path.parents} - outside <= {place}


@pytest.mark.parametrize("name", ["set.zip", "set.tgz"])
def test_archive_is_unpacked_beside_what_is_there(tmp_path: Path, name: str) -> None:
    place = tmp_path / "place"
    (place / "set" / "a").mkdir(parents=True)
    (place / "set" / "a" / "1.txt").write_text("mine")
    unpack(make(tmp_path / name, FILES), place)
    assert (place / "set/a/1.txt").read_text() == "mine"
    assert (place / "set/b/2.txt").read_bytes() == b"two"
    assert [path.name for path in place.iterdir()] == ["set"]


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
@pytest.mark.parametrize("member", ["/etc/passwd", "../evil.txt", "set/../../evil.txt", "C:/evil.txt", "..\\evil.txt"])
def test_names_that_reach_outside_are_refused(tmp_path: Path, name: str, member: str) -> None:
    archive = make(tmp_path / name, {**FILES, member: b"evil"})
    refused(archive, tmp_path / "place", "outside of the folder")


@pytest.mark.parametrize(
    "member",
    [
        link("set/out", "/etc"),
        link("set/out", "../../.."),
        link("out", ".."),
        link("set/hard", "/etc/passwd", tarfile.LNKTYPE),
        link("set/hard", "../x", tarfile.LNKTYPE),
    ],
)
def test_links_that_lead_outside_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    refused(
        make_tar(tmp_path / "set.tgz", FILES, member), tmp_path / "place", "holds the link .* outside of the folder"
    )


def test_link_inside_is_kept(tmp_path: Path) -> None:
    unpack(make_tar(tmp_path / "set.tgz", FILES, link("set/b/same.txt", "../a/1.txt")), tmp_path / "place")
    assert (tmp_path / "place/set/b/same.txt").read_bytes() == b"one"


def test_name_below_a_link_is_refused(tmp_path: Path) -> None:
    """A link to its own folder makes `here/here/out`, which is two folders deep by name, lead outside by `../..`."""
    members = [link("here", "."), link("here/here/out", "../..")]
    with pytest.raises(ConceptBenchError, match="lies below a link"):
        unpack(make_tar(tmp_path / "set.tgz", FILES, *members), tmp_path / "place")
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize("guard", [{}, FILTER])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            [link("p/q/l1", "."), link("p/q/l2", "l1/l1/l1/l1/../../../../../escaped.txt")],
            "holds the link p/q/l2 .* goes through a link",
        ),
        ([link("p/q/l1", "."), link("p/l2", "q/l1/../../..")], "holds the link p/l2 .* goes through a link"),
        ([link("p/q/up", "../a"), link("hard", "p/q/up", tarfile.LNKTYPE)], "holds the link hard .* through a link"),
        ([link("p/l", "a"), link("p/./l", "b")], "names p/./l more than once"),
        ([link("set/a/1.txt", "2.txt")], "names set/a/1.txt more than once"),
        ([link("l", "set"), link("l/new", "a")], "lies below a link"),
    ],
)
def test_links_that_do_not_say_where_they_lead_are_refused(
    guard: dict[str, str],
    members: list[tarfile.TarInfo],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archives, "FILTER", guard)  # Python before 3.11.4 has none
    refused(make_tar(tmp_path / "set.tgz", FILES, *members), tmp_path / "place", message)


def test_file_that_takes_the_place_of_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link leads out by way of another one, and the file of its name would be written through both."""
    monkeypatch.setattr(archives, "FILTER", {})
    out = link("p/q/l2", "l1/l1/l1/l1/../../../../../escaped.txt")
    with tarfile.open(tmp_path / "set.tgz", "w:gz") as file:
        for member in (link("p/q/l1", "."), out):
            file.addfile(member)
        plain = tarfile.TarInfo("p/q/l2")
        plain.size = 4
        file.addfile(plain, io.BytesIO(b"evil"))
    refused(tmp_path / "set.tgz", tmp_path / "place", "goes through a link")
    assert not list(tmp_path.rglob("escaped.txt"))


def test_links_to_links_and_folders_that_are_named_again_are_kept(tmp_path: Path) -> None:
    again = tarfile.TarInfo("set/b")
    again.type, again.mode = tarfile.DIRTYPE, 0o755
    members = [again, again, link("set/b/1.txt", "../a/1.txt"), link("set/b/first.txt", "1.txt")]
    members.append(link("set/b/hard.txt", "set/a/1.txt", tarfile.LNKTYPE))
    unpack(make_tar(tmp_path / "set.tgz", FILES, *members), tmp_path / "place")
    assert (tmp_path / "place/set/b/first.txt").read_bytes() == b"one"
    assert (tmp_path / "place/set/b/hard.txt").read_bytes() == b"one"


@pytest.mark.parametrize("guard", [{}, FILTER])
def test_owner_and_special_permissions_are_not_taken_over(
    guard: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FILTER", guard)  # Python before 3.11.4 has none
    info = tarfile.TarInfo("set/run")
    info.size, info.mode, info.uid, info.gid = 3, 0o6777, 54321, 54321
    with tarfile.open(tmp_path / "set.tgz", "w:gz") as file:
        file.addfile(info, io.BytesIO(b"one"))
    unpack(tmp_path / "set.tgz", tmp_path / "place")
    made = (tmp_path / "place/set/run").stat()
    assert stat.S_IMODE(made.st_mode) & 0o7022 == 0 and made.st_uid == os.getuid()


def test_devices_and_links_in_zips_are_refused(tmp_path: Path) -> None:
    pipe = tarfile.TarInfo("set/pipe")
    pipe.type = tarfile.FIFOTYPE
    refused(make_tar(tmp_path / "set.tgz", FILES, pipe), tmp_path / "place", "no plain file")
    member = zipfile.ZipInfo("set/link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr(member, "/etc")
    refused(tmp_path / "set.zip", tmp_path / "place", "holds the link set/link")


@pytest.mark.parametrize("name", ["set.zip", "set.tgz"])
def test_damaged_archives_leave_nothing(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name, {"set/1.bin": bytes(range(256)) * 400})
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive"):
        archive.write_bytes(content)
        refused(archive, tmp_path / "place", "cannot be unpacked")


def test_full_disk_is_said_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(tmp_path / "set.zip", FILES)
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=3))
    refused(archive, tmp_path / "place", "free some room")


def test_names_of_archives() -> None:
    assert [is_archive(name) for name in ("a.ZIP", "b.tar.gz", "c.tgz", "d.json", "e.mat")] == [True] * 3 + [False] * 2
