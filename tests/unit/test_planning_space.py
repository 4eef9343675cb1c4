"""Every disk is looked at: that of the results, that of the downloads, that of the hub's cache."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from planning_tools import ROOT, config

from conceptbench.data.catalogue import SOURCES
from conceptbench.errors import ConceptBenchError
from conceptbench.planning import Machine, Plan, load_rates, make_plan, require_disk, space

USAGE = namedtuple("USAGE", "total used free")


def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Plan:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    overlay = {
        "data_root": str(tmp_path / "data"),
        "datasets": {"food": {"kind": "food101"}},
        "backbones": {"dino": {"kind": "named", "model": "dinov2-vit-b14"}},
        "hooks": {"dino": [5]},
        "measures": {"latents_on": ["food"]},
        **changes,
    }
    return make_plan(config(overlay), load_rates(ROOT / "reference" / "rates.json"), Machine(2))


def test_downloads_and_weights_are_counted_where_they_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, monkeypatch, downloads="missing")
    archive = SOURCES["food101"].parts[0]
    assert archive.bytes is not None
    needs = {demand.what: (demand.folder, demand.bytes) for demand in plan.elsewhere}
    assert needs["the download of food101"] == (tmp_path / "data", 2 * archive.bytes)
    assert needs["the hub's cache"] == (tmp_path / "cache", plan.cached)
    assert plan.cached == pytest.approx(4 * 86e6, rel=0.05)
    folder = tmp_path / "data" / "downloads" / "food101"
    folder.mkdir(parents=True)
    (folder / f"{archive.name}.partial").write_bytes(b"x" * 1000)
    (tmp_path / "cache" / "models--timm--vit_base_patch14_dinov2.lvd142m" / "snapshots").mkdir(parents=True)
    again = planned(tmp_path, monkeypatch, downloads="missing")
    assert [demand.bytes for demand in again.elsewhere] == [2 * archive.bytes - 1000]
    assert again.bytes == plan.bytes
    assert planned(tmp_path, monkeypatch).elsewhere == ()
    (tmp_path / "data" / archive.found_at[0]).mkdir(parents=True)
    assert planned(tmp_path, monkeypatch, downloads="missing").elsewhere == ()


def test_shards_that_are_unpacked_need_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"downloads": "missing", "datasets": {"food": {"kind": "imagenet"}}}
    before = planned(tmp_path, monkeypatch, **options).elsewhere[0].bytes
    assert before == sum(part.bytes or 0 for part in SOURCES["imagenet"].parts)
    note = tmp_path / "data" / "imagenet" / "images" / ".train.partial" / "shards.json"
    note.parent.mkdir(parents=True)
    note.write_text('{"files": {"data/train-00000-of-00294.parquet": {"bytes": 500, "images": 3}}}')
    assert planned(tmp_path, monkeypatch, **options).elsewhere[0].bytes == before - 500


@pytest.mark.parametrize("together", [False, True])
def test_the_disk_that_is_too_small_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    plan = planned(tmp_path, monkeypatch, downloads="missing")
    data, results = tmp_path / "data", tmp_path / "results" / "testbed"
    data.mkdir()
    results.mkdir(parents=True)
    monkeypatch.setattr(space, "file_system", lambda folder: 0 if together or folder == data else 1)
    needed = sum(demand.bytes for demand in plan.elsewhere if demand.folder == data)
    rest = plan.bytes + plan.passing  # of which the hub's cache is a part
    room = {data: needed + (rest if together else 0), results: rest + (needed if together else 0)}
    monkeypatch.setattr("shutil.disk_usage", lambda place: USAGE(0, 0, room[place]))
    require_disk(plan, results)
    room[results if together else data] -= 2e9
    where = f"{results} and {data} and .*" if together else str(data)
    what = "codes .* or record fewer" if together else r"the download of food101 \(10\.0 GB\), or set data_root to"
    with pytest.raises(ConceptBenchError, match=rf"on the disk of {where}, .*; free 2\.0 GB, most of it is for {what}"):
        require_disk(plan, results)


def test_the_parts_of_the_largest_code_need_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, monkeypatch)
    assert 0 < plan.passing < plan.folders["codes"]
    monkeypatch.setattr("shutil.disk_usage", lambda _: USAGE(0, 0, plan.bytes))
    with pytest.raises(ConceptBenchError, match="most of it is for codes"):
        require_disk(plan, tmp_path / "results")
