"""Rows, floors, turns and pinned peers of the benchmarks; nothing here is timed."""

import json
import re
from typing import Any

import numpy as np
import pytest

from benchmarks import common, environments, sae_training
from benchmarks.common import FOLDER, OURS, RESULTS, Row, take_turns, write_results
from benchmarks.drivers.child import Tokens
from benchmarks.floor import Shape, floor
from conceptbench.errors import ConceptBenchError

SHAPES = {"d": 8, "width": 32, "k": 2, "batch": 16}
RATES = {"bf16_seconds": 0.1, "fp32_seconds": 0.4, "fp32_operations_per_s": 1e9, "bytes_per_s": 1e9}
GROUP = sae_training.Group(width=32, steps=20, turn=2, d=8, k=2, batch=16)


def row(**changes: Any) -> Row:
    plain: dict[str, Any] = {
        "toolkit": "peer", "method": "TopK", "shapes": SHAPES, "rate": "tokens_per_s", "value": 10.0,
    }  # fmt: skip
    return Row(**(plain | changes))


def test_a_row_is_flat_and_names_its_rate() -> None:
    flat = row(more={"lr": 0.1}).flat()
    assert flat["tokens_per_s"] == 10.0
    assert {name: flat[name] for name in SHAPES} == SHAPES
    assert flat["lr"] == 0.1
    assert flat["device"] == "cpu" and flat["ratio_to_fastest_peer"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": "furlongs_per_fortnight"}, "is no rate"),
        ({"value": None}, "say why"),
        ({"value": 0.0}, "measure again"),
    ],
)
def test_rows_that_nobody_could_use_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConceptBenchError, match=message):
        row(**changes)


def test_a_row_without_a_value_says_why() -> None:
    assert row(value=None, note="not installed").flat()["tokens_per_s"] is None


def test_a_name_cannot_stand_twice_in_a_row() -> None:
    with pytest.raises(ConceptBenchError, match="twice"):
        row(more={"fvu": 0.5}).flat()


def test_results_hold_the_machine_once_and_all_rows(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    written = json.loads(write_results("trial", [row(), row(setting="bf16")], {"threads": 2}).read_text())
    assert written["machine"]["cores"] >= 1 and written["settings"] == {"threads": 2}
    assert [one["setting"] for one in written["rows"]] == ["as shipped", "bf16"]
    assert "machine" not in written["rows"][0]


def test_committed_results_keep_the_schema() -> None:
    required = {"toolkit", "method", "device", "peak_rss_mib", "fvu", "ratio_to_fastest_peer", "share_of_floor"}
    for path in RESULTS.glob("*.json"):
        results = json.loads(path.read_text())
        assert {"benchmark", "machine", "code", "settings", "rows"} <= set(results), path.name
        for one in results["rows"]:
            assert required <= set(one), path.name
            rates = [one[name] for name in common.get_args(common.Rate) if name in one]
            assert len(rates) == 1, path.name
            assert rates[0] is not None or one["note"], path.name


@pytest.mark.parametrize("peer", environments.PEERS)
def test_peers_are_pinned_without_addresses(peer: str) -> None:
    lines = (FOLDER / "peers" / f"{peer}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in pins)
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    asked = {re.split(r"[<>=\[]", name)[0].lower() for name in environments.PEERS[peer]}
    assert asked <= names
    assert not names & {"torch", "numpy"}


def test_overcomplete_gets_a_matplotlib_it_can_import() -> None:
    assert "matplotlib==3.8" in (FOLDER / "peers" / "overcomplete.txt").read_text()


def test_an_environment_that_was_not_made_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    assert environments.missing("sparsify") == "not installed: make bench-environment"
    (tmp_path / "sparsify").mkdir()
    (tmp_path / "sparsify" / "reason").write_text("installation failed: no such version\n")
    assert environments.missing("sparsify") == "installation failed: no such version"


def test_floor_counts_one_product_sparse_work_and_adam() -> None:
    shape = Shape(d=768, width=49_152, k=32, batch=4096)
    assert shape.encoder_operations == 309_237_645_312
    assert shape.sparse_operations == 805_306_368
    assert shape.parameters == 75_547_392
    assert shape.bytes_moved == 24 * 75_547_392 + 2 * 4 * 4096 * 768


def test_floor_takes_the_faster_product_unless_told_otherwise() -> None:
    shape = Shape(**SHAPES)
    assert floor(shape, RATES, "bf16").encoder == 0.1
    assert floor(shape, RATES, "fp32").encoder == 0.4
    assert floor(shape, {**RATES, "bf16_seconds": 9.0}, "bf16").encoder == 0.4
    parts = floor(shape, RATES, "bf16")
    assert parts.seconds == pytest.approx(0.1 + shape.sparse_operations / 1e9 + shape.bytes_moved / 1e9)


def results_of(seconds: dict[str, float]) -> dict[str, Any]:
    results: dict[str, Any] = {"rates": RATES}
    for toolkit in sae_training.TOOLKITS:
        results[toolkit.label] = {
            "step_seconds": [seconds.get(toolkit.label, 8.0)] * 3, "peak_rss_mib": 100.0, "fvu": 0.5, "lr": 1e-3,
            "versions": {toolkit.package: "1.0", "torch": "2.0"},
        }  # fmt: skip
    return results


def test_peers_count_in_the_settings_they_offer() -> None:
    results = results_of({f"{OURS} (as shipped)": 1.0, "sparsify (as shipped)": 4.0, "sparsify (bf16)": 2.0})
    rows = {(one.toolkit, one.setting): one for one in sae_training.rows_of(GROUP, results)}
    assert rows[OURS, "as shipped"].ratio_to_fastest_peer == pytest.approx(4.0)
    assert rows[OURS, "as shipped"].more["ratio_to_fastest_changed_peer"] == pytest.approx(2.0)
    assert rows[OURS, "fp32"].ratio_to_fastest_peer == pytest.approx(0.5)
    assert rows["sparsify", "as shipped"].ratio_to_fastest_peer == pytest.approx(1.0)
    assert rows["sae_lens", "as shipped"].value == pytest.approx(2.0)


def test_a_peer_that_failed_keeps_a_row_with_its_reason() -> None:
    results = results_of({})
    results["sae_lens (as shipped)"] = {"failed": "AssertionError"}
    rows = {(one.toolkit, one.setting): one for one in sae_training.rows_of(GROUP, results)}
    failed = rows["sae_lens", "as shipped"]
    assert failed.value is None and failed.note == "AssertionError"


def test_every_toolkit_sees_the_same_tokens_when_the_fvu_is_compared() -> None:
    compared = {t.label: GROUP.request(t, 1e-3, 2)["steps"] for t in sae_training.TOOLKITS}
    assert set(compared.values()) == {GROUP.steps}
    assert all(group.steps > sae_training.HEAD_STEPS for group in sae_training.FULL)


@pytest.mark.parametrize("best", [-5, -2, 0, 1, 2, 3, 6])
def test_tuning_climbs_to_the_best_multiple(best: int) -> None:
    tried = sae_training.climb(lambda multiple: abs(2 * np.log(multiple) / np.log(3) - best), {})
    assert min(tried, key=lambda multiple: tried[multiple]) == sae_training.multiple_name(best)


def test_tuning_ends_where_nothing_stops_it_and_tries_nothing_twice() -> None:
    asked: list[float] = []

    def fvu(multiple: float) -> float:
        asked.append(multiple)
        return -multiple

    tried = sae_training.climb(fvu, {"9": -9.0})
    assert max(float(name) for name in tried) <= 3 ** ((sae_training.TUNING_REACH + 1) / 2) + 1
    assert 9.0 not in asked and len(asked) == len(set(asked))


class Stand:
    """A driver that notes when it has its turn."""

    def __init__(self, name: str, turns: int, told: list[str]) -> None:
        self.turns = self._left = turns
        self._name, self._told = name, told

    def wait(self) -> bool:
        return self._left > 0

    def go(self) -> None:
        self._told.append(self._name)
        self._left -= 1

    def result(self) -> dict[str, Any]:
        if self._name == "broken":
            raise ConceptBenchError("it broke")
        return {"name": self._name}


def test_turns_are_spread_over_the_whole_time() -> None:
    told: list[str] = []
    children = {"few": Stand("few", 2, told), "many": Stand("many", 6, told), "broken": Stand("broken", 0, told)}
    results = take_turns(children)  # type: ignore[arg-type]
    assert results == {"few": {"name": "few"}, "many": {"name": "many"}, "broken": "it broke"}
    assert told.count("few") == 2 and told.count("many") == 6
    assert told.index("few") < 2 and len(told) - told[::-1].index("few") > 4


def test_batches_come_in_order_and_the_warm_up_is_not_counted(tmp_path: Any) -> None:
    values = np.arange(6 * 4 * 3, dtype=np.float32)
    values.tofile(tmp_path / "tokens")
    request = {"tokens_file": str(tmp_path / "tokens"), "batch": 4, "d": 3, "steps": 5, "warm_up": 2, "turn": 0}
    tokens = Tokens(request)
    np.testing.assert_array_equal(np.concatenate(list(tokens)).ravel(), values[: 5 * 12])
    assert len(tokens.step_seconds) == 3
