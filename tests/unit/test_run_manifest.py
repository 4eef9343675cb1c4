import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import write_job_record
from conceptbench.run_manifest import (
    DOUBTS,
    FACTS,
    main,
    merge_records,
    names_of,
    read_job_records,
    require_clean,
    write_run_manifest,
)
from conceptbench.tables import read_json, sha256_file


def record(rule: str = "adapt", ended: str = "2026-01-01T00:00:00.000+00:00", **facts: Any) -> dict[str, Any]:
    code = {"revision": "a" * 40, "dirty": False, "lock": "b" * 64}
    known = {"code": code, "machine": {"cpu": "x"}, "versions": {"numpy": "2"}, "flags": {}}
    return {"rule": rule, "ended": ended, "seconds": 1.0, "gpus_granted": 0, **known, **facts}


def of(revision: str | None, **facts: Any) -> dict[str, Any]:
    """A record of a revision; None stands for code that cannot be known."""
    code = {"revision": revision, "dirty": None if revision is None else False, "lock": None}
    return record(code=code, **facts)


def dirty(code_of: dict[str, Any]) -> dict[str, Any]:
    return {**code_of, "code": {**code_of["code"], "dirty": True}}


def put(folder: Path, **records: dict[str, Any]) -> Path:
    for name, content in records.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4, st.integers(0, 5)), min_size=1, max_size=8))
def test_every_job_finds_its_own_facts_again(drawn: list[tuple[int, ...]]) -> None:
    records = {
        str(at): record(
            ended=f"2026-01-01T00:00:0{ended}.000+00:00",
            code={"revision": str(a), "dirty": False, "lock": None},
            machine={"cpu": b},
            versions={"numpy": c},
            flags={"x": d},
        )
        for at, (a, b, c, d, ended) in enumerate(drawn)
    }
    merged = merge_records(records)
    for name, own in records.items():
        for fact in FACTS:
            assert merged[fact][merged["jobs"][name][fact]] == own[fact]
    for fact in FACTS:
        texts = [json.dumps(variant) for variant in merged[fact]]
        assert len(set(texts)) == len(texts)
        assert set(texts) == {json.dumps(own[fact]) for own in records.values()}


def test_clean_is_known_dirty_or_unknown() -> None:
    unknown = record(code={"revision": None, "dirty": None, "lock": None})
    assert merge_records({"a": record(), "b": record()})["clean"] is True
    assert merge_records({"a": record(), "b": dirty(record())})["clean"] is False
    assert merge_records({"a": record(), "b": unknown})["clean"] is None
    assert merge_records({"a": unknown, "b": dirty(record())})["clean"] is False
    moved = {**record(), "code_at_end": {}}
    assert merge_records({"a": record(), "b": moved})["clean"] is None
    assert merge_records({"a": record(), "b": dirty(moved)})["clean"] is False


def test_records_of_jobs_that_are_no_longer_named_are_passed_over(tmp_path: Path) -> None:
    folder = put(tmp_path, **{"adapt__flora.maple": record(), "adapt__flora.coop": record(), "measure_truth": record()})
    assert set(read_job_records(folder, ["adapt.flora.maple", "measure_truth", "draw_truth"])) == {
        "adapt.flora.maple",
        "measure_truth",
    }


def test_names_of_the_jobs_of_a_rule() -> None:
    records = {"prepare_dataset.scenes": record("prepare_dataset"), "adapt.flora.maple": record()}
    assert names_of(records, "prepare_dataset") == ["scenes"]
    assert names_of(records, "adapt") == ["flora.maple"]
    assert names_of(records, "measure_truth") == []


def test_incomplete_record_and_no_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match="No job has left a record"):
        read_job_records(tmp_path, ["adapt"])
    put(tmp_path, adapt={"rule": "adapt"})
    with pytest.raises(ConceptBenchError, match=r"adapt\.json is not complete; delete it and run its rule again"):
        read_job_records(tmp_path, ["adapt"])


def test_job_record_has_every_fact(tmp_path: Path) -> None:
    write_job_record(tmp_path / "adapt.json", rule="adapt", gpus=1, seconds=2.5)
    (found,) = read_job_records(tmp_path, ["adapt"]).values()
    assert found["gpus_granted"] == 1 and found["seconds"] == 2.5
    assert found["versions"]["numpy"] and found["machine"]["cores"] >= 1
    assert set(found["code"]) == {"revision", "dirty", "lock"}
    assert {"threads", "gpus"} <= set(found["flags"]) and not {"threads", "gpus"} & set(found["machine"])


def write(folder: Path, **records: dict[str, Any]) -> Path:
    card, weights, stamp, metrics = (folder / name for name in ("card.json", "w.safetensors", "s.json", "metrics.json"))
    card.write_text('{"digest": "d1"}')
    weights.write_bytes(b"weights")
    stamp.write_text('{"k": 8}')
    metrics.write_text("{}")
    path = folder / "manifest.json"
    write_run_manifest(
        path,
        records=records,
        stamps={"adapt": stamp},
        data={"scenes": card},
        weights={"tiny": weights},
        results={"metrics.json": metrics},
    )
    return path


def test_manifest_of_a_run_names_data_weights_and_parameters(tmp_path: Path) -> None:
    found = read_json(write(tmp_path, adapt=record()))
    assert found["data"] == {"scenes": "d1"}
    assert found["weights"] == {"tiny": sha256_file(tmp_path / "w.safetensors")}
    assert found["results"] == {"metrics.json": sha256_file(tmp_path / "metrics.json")}
    before = found["parameters_digest"]
    (tmp_path / "s.json").write_text('{"k": 9}')
    stamps = {"adapt": tmp_path / "s.json"}
    options: dict[str, Any] = {"records": {"adapt": record()}, "data": {}, "weights": {}, "results": {}}
    assert write_run_manifest(tmp_path / "other.json", stamps=stamps, **options)["parameters_digest"] != before
    with pytest.raises(ConceptBenchError, match="has no digest"):
        write_run_manifest(tmp_path / "x.json", stamps={}, **{**options, "data": {"scenes": tmp_path / "s.json"}})
    with pytest.raises(ConceptBenchError, match="does not exist; run the rule"):
        write_run_manifest(tmp_path / "x.json", stamps={}, **{**options, "results": {"m": tmp_path / "none"}})


def test_run_of_uncommitted_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_clean(write(tmp_path, adapt=record()))
    assert main([str(tmp_path / "manifest.json")]) == 0
    path = write(tmp_path, adapt=record(), truth=dirty(record("measure_truth")), again=dirty(record("measure_truth")))
    assert main([str(path)]) == 1
    said = capsys.readouterr().err
    assert "2 job(s) ran with uncommitted changes; commit" in said
    assert said.strip().endswith("--forcerun measure_truth.")


LATER = "2026-01-02T00:00:00.000+00:00"


@pytest.mark.parametrize(
    ("doubt", "records", "said"),
    [
        ("unknown", {"a": of("a"), "b": of(None)}, r"1 job\(s\) do not know which code they ran, as outside"),
        ("changed", {"a": of("a"), "b": of("a") | {"code_at_end": {"revision": "b"}}}, "saw the code change while"),
        ("revisions", {"a": of("b", ended=LATER), "b": of("a", rule="adapt")}, "another revision of the code than"),
    ],
)
def test_run_of_no_known_or_of_several_revisions_is_refused_unless_that_is_allowed(
    tmp_path: Path, doubt: str, records: dict[str, Any], said: str
) -> None:
    path = write(tmp_path, **records)
    with pytest.raises(ConceptBenchError, match=rf"{said}.*--forcerun adapt, or allow it: make record ALLOW={doubt}$"):
        require_clean(path)
    require_clean(path, [doubt])
    others = [name for name in DOUBTS if name != doubt]
    assert main([str(path), "--allow", *others]) == 1
    assert main([str(path), "--allow", *DOUBTS]) == 0
    changes = write(tmp_path, **records, c=dirty(record()))
    assert main([str(changes), "--allow", *DOUBTS]) == 1
