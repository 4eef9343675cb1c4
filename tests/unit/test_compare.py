"""Comparison of metrics with the reference: what is reported, and what is let pass."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.compare import Tolerance, compare, main, read_tolerances
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json

EVERY = (Tolerance("*", absolute=0.01),)
REPOSITORY = Path(__file__).parents[2]


def test_equal_metrics_have_no_difference():
    metrics = {"a": 1.0, "b": 0.0}
    assert compare(metrics, dict(metrics), (Tolerance("*"),)) == []


def test_missing_and_extra_keys_are_named():
    found = compare({"a": 1.0, "gone": 2.0}, {"a": 1.0, "new": 3.0}, EVERY)
    assert [(one.key, one.expected, one.found) for one in found] == [("gone", 2.0, None), ("new", None, 3.0)]
    assert str(found[0]) == "gone: missing, the reference has 2"
    assert str(found[1]) == "new: 3 is not in the reference"


def test_value_outside_its_tolerance_is_reported_with_all_three_numbers():
    (found,) = compare({"a": 1.0}, {"a": 1.02}, EVERY)
    assert str(found) == "a: 1.02, the reference has 1; the difference 0.02 is above 0.01"


def test_first_matching_pattern_counts_and_relative_adds_to_absolute():
    tolerances = (Tolerance("a.*", absolute=1.0, relative=0.1), Tolerance("*"))
    assert compare({"a.x": 10.0, "b": 1.0}, {"a.x": 11.99, "b": 1.0}, tolerances) == []
    assert [one.key for one in compare({"a.x": 10.0}, {"a.x": 12.01}, tolerances)] == ["a.x"]


def test_optional_key_may_be_missing_on_either_side_but_not_wrong():
    optional = (Tolerance("*.share", absolute=0.1, optional=True),)
    assert compare({"a.share": 0.5}, {}, optional) == compare({}, {"a.share": 0.5}, optional) == []
    assert len(compare({"a.share": 0.5}, {"a.share": 0.7}, optional)) == 1


def test_a_key_without_tolerance_is_an_error():
    with pytest.raises(ConceptBenchError, match=r"No tolerance is stated for the metric 'b'"):
        compare({"b": 1.0}, {"b": 1.0}, (Tolerance("a"),))


def test_nan_is_never_within_a_tolerance():
    assert len(compare({"a": 1.0}, {"a": float("nan")}, (Tolerance("*", absolute=1e9),))) == 1


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.floats(-1e6, 1e6), min_size=1),
    st.floats(0, 10),
    st.floats(-1, 1),
)
def test_shift_is_reported_exactly_when_it_exceeds_the_tolerance(reference, absolute, share):
    shift = share * 2 * absolute
    shifted = {key: value + shift for key, value in reference.items()}
    found = {one.key for one in compare(reference, shifted, (Tolerance("*", absolute=absolute),))}
    assert found == {key for key, value in reference.items() if abs(value + shift - value) > absolute}


@pytest.mark.parametrize(
    "text",
    ["keys: a", "- absolute: 1", "- {keys: a, near: 1}", "- {keys: a, absolute: -1}", "- {keys: a, relative: x}", "["],
)
def test_malformed_tolerances_name_the_file(tmp_path, text):
    path = tmp_path / "tolerances.yaml"
    path.write_text(text)
    with pytest.raises(ConceptBenchError, match=r"tolerances\.yaml"):
        read_tolerances(path)


def test_command_reports_by_exit_status(tmp_path, capsys):
    for name, value in (("reference", 1.0), ("close", 1.005), ("far", 1.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"a": value}))
    (tmp_path / "tolerances.yaml").write_text("- {keys: '*', absolute: 0.01}\n")

    def run(name: str) -> int:
        files = [str(tmp_path / "reference.json"), str(tmp_path / f"{name}.json")]
        return main([*files, "--tolerances", str(tmp_path / "tolerances.yaml")])

    assert run("close") == 0
    assert "1 metrics agree" in capsys.readouterr().out
    assert run("far") == 1
    assert capsys.readouterr().out.startswith("a: 1.5, the reference has 1;")
    assert run("absent") == 1
    assert "absent.json does not exist" in capsys.readouterr().err


def test_stated_tolerances_cover_the_reference_key_by_key():
    tolerances = read_tolerances(REPOSITORY / "reference" / "tolerances.yaml")
    reference = read_json(REPOSITORY / "reference" / "metrics.json")
    assert reference
    assert compare(reference, reference, tolerances) == []
    assert all(tolerance.absolute > 0 or tolerance.relative > 0 for tolerance in tolerances)
    assert not any(tolerance.keys == "*" for tolerance in tolerances)
