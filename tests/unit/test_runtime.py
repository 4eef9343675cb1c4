"""The breakdown of a run's time from the records of its jobs."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.runtime import measure_runtime, read_timings


def jobs(*rows):
    return pd.DataFrame(rows, columns=["rule", "began", "work_began", "ended"])


def summary(timings):
    (row,) = measure_runtime(timings)["runtime_summary"].to_dict("records")
    return row


def test_rules_sum_their_jobs_in_the_order_of_first_start():
    table = measure_runtime(jobs(("b", 10.0, 12.0, 20.0), ("a", 0.0, 1.0, 5.0), ("b", 5.0, 6.0, 9.0)))["runtime"]
    assert table.to_dict("list") == {
        "rule": ["a", "b"],
        "jobs": [1, 2],
        "seconds": [5.0, 14.0],
        "startup_seconds": [1.0, 3.0],
    }


def test_wall_time_is_split_into_work_and_the_rest():
    found = summary(jobs(("a", 0.0, 2.0, 10.0), ("b", 1.0, 4.0, 8.0), ("c", 12.0, 15.0, 20.0)))
    assert found["wall_seconds"] == 20.0
    assert found["work_seconds"] == 13.0  # 2 to 10, with b inside, and 15 to 20
    assert found["outside_seconds"] == 7.0
    assert found["outside_share"] == 0.35


def test_the_night_between_two_runs_is_not_counted():
    assert summary(jobs(("a", 0.0, 1.0, 10.0), ("b", 50_000.0, 50_001.0, 50_010.0)))["wall_seconds"] == 20.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(0, 20)), min_size=1, max_size=8))
def test_work_never_exceeds_wall_nor_wall_the_span(triples):
    rows = [("a", float(t), float(t + up), float(t + up + work)) for t, up, work in triples]
    found = summary(jobs(*rows))
    span = max(row[3] for row in rows) - min(row[1] for row in rows)
    assert 0 <= found["work_seconds"] <= found["wall_seconds"] <= span
    assert found["work_seconds"] <= sum(row[3] - row[2] for row in rows)
    assert 0 <= found["outside_share"] <= 1


def test_records_become_moments(tmp_path):
    record = {"rule": "adapt", "work_seconds": 8.0, "start_up_seconds": 2.0, "ended": 110.0}
    (tmp_path / "x.timing.json").write_text(json.dumps(record))
    (row,) = read_timings(tmp_path.glob("*.json")).to_dict("records")
    assert row == {"rule": "adapt", "began": 100.0, "work_began": 102.0, "ended": 110.0}


def test_a_record_of_another_form_and_no_record_are_errors(tmp_path):
    (tmp_path / "old.timing.json").write_text('{"rule": "adapt"}')
    with pytest.raises(ConceptBenchError, match=r"old\.timing\.json"):
        read_timings(tmp_path.glob("*.json"))
    with pytest.raises(ConceptBenchError, match="No job has recorded"):
        measure_runtime(read_timings([]))
