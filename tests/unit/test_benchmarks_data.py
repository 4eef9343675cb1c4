"""What the benchmarks compute on, and the page that is written from their results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ksvd, page
from benchmarks.common import Row
from benchmarks.tokens import CHUNK, Planted, World, token_file

SPEC = Planted(d=24, directions=64, mean_firing=4.0, noise=0.1)


def test_planted_tokens_are_centred_and_of_unit_variance() -> None:
    world = World(SPEC)
    tokens = np.concatenate([world.chunk(index) for index in range(4)])
    assert np.abs(tokens.mean(0)).max() < 0.06
    assert np.square(tokens).mean() == pytest.approx(1.0, rel=0.02)


def test_a_chunk_does_not_depend_on_how_many_are_drawn(tmp_path: Path) -> None:
    path = token_file(tmp_path, SPEC, 3)
    stored = np.fromfile(path, np.float32).reshape(3, CHUNK, SPEC.d)
    np.testing.assert_array_equal(stored[2], World(SPEC).chunk(2))
    later = np.fromfile(token_file(tmp_path, SPEC, 1, first=2), np.float32).reshape(CHUNK, SPEC.d)
    np.testing.assert_array_equal(later, stored[2])


def test_the_noise_of_planted_tokens_is_its_share_of_the_variance() -> None:
    silent = World(Planted(d=24, directions=64, mean_firing=4.0, noise=1e-6))
    noisy = World(Planted(d=24, directions=64, mean_firing=4.0, noise=0.4))
    kept = noisy.chunk(0) - np.sqrt(0.6) * silent.chunk(0)
    assert np.square(kept).mean() == pytest.approx(0.4, rel=0.05)


def test_planted_signals_have_the_stated_noise_and_unit_atoms() -> None:
    problem = ksvd.Problem(task="code", signals=50, d=16, width=40, k=3, noise=0.3)
    signals, atoms = ksvd.planted(problem)
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1)
    silent, _ = ksvd.planted(ksvd.Problem(task="code", signals=50, d=16, width=40, k=3, noise=0.0))
    relative = np.linalg.norm(signals - silent, axis=1) / np.linalg.norm(silent, axis=1)
    np.testing.assert_allclose(relative, 0.3)


def test_an_iteration_costs_more_than_coding_and_cost_grows_with_signals() -> None:
    code = ksvd.Problem(task="code", signals=100)
    iterate = ksvd.Problem(task="iterate", signals=100)
    assert ksvd.operations(iterate) > ksvd.operations(code)
    gram = 2 * 2048 * 2048 * 512
    assert ksvd.operations(ksvd.Problem(task="code", signals=200)) - gram == 2 * (ksvd.operations(code) - gram)


def results_with(rows: list[Row]) -> dict[str, Any]:
    machine = {"cpu": "A processor", "cores": 2, "memory_mib": 2048, "python": "3.11"}
    return {
        "machine": machine, "code": {"revision": "abc", "dirty": False}, "versions": {"torch": "2", "numba": "1"},
        "time": "2026-01-01T00:00:00", "rows": [row.flat() for row in rows],
    }  # fmt: skip


def test_the_page_shows_rows_and_names_what_was_not_measured(tmp_path: Path) -> None:
    shapes = {"d": 512, "width": 2048, "k": 16, "signals": 2000}
    common: dict[str, Any] = {"method": "OMP", "shapes": shapes, "rate": "signals_per_s"}
    rows = [
        Row(
            toolkit="conceptbench",
            value=40_000.0,
            ratio_to_fastest_peer=8.0,
            more={"relative_error": 0.28, "operations": 3 * 10**9},
            **common,
        ),
        Row(toolkit="dictlearn", value=None, note="not installed", **common),
    ]
    text = page.page({"ksvd": results_with(rows)}, tmp_path)
    assert "| OMP | 2,000 | **conceptbench** | 40,000 | 8.00 | 0.2800 |" in text
    assert "not run: not installed" in text
    assert "OMP on 2,000 signals 3.0 G operations, 0.01 GB" in text
    assert "A processor, 2 cores, 2 GiB" in text
    assert "Not measured yet: `python -m benchmarks.sae_training`." in text


def test_every_benchmark_has_its_section(tmp_path: Path) -> None:
    row = Row(toolkit="conceptbench", method="step", shapes={"classes": 10}, rate="steps_per_s", value=3.5)
    text = page.page({"maple_step": results_with([row])}, tmp_path)
    assert "## A step of MaPLe" in text and "| 10 | as shipped | 3.5 |" in text
    assert "Not measured yet: `python -m benchmarks.recording`" in text


def test_shares_of_training_are_of_the_floor_that_the_breakdown_measured() -> None:
    """Whatever share was written, and by the precision of the row; a width without a breakdown keeps its own."""
    row = {"width": 8, "batch": 100, "tokens_per_s": 200.0, "share_of_floor": 1.5}
    rows = [row | {"precision": "fp32"}, row | {"precision": "bf16"}, row | {"precision": "fp32", "width": 16}]
    floors = [
        {"width": 8, "setting": "fp32", "floor_seconds": {"encoder": 0.3, "traffic": 0.1}},
        {"width": 8, "setting": "bf16", "floor_seconds": {"encoder": 0.1, "traffic": 0.1}},
    ]
    mended = page.with_measured_floors({"rows": rows}, {"rows": floors})["rows"]
    assert [row["share_of_floor"] for row in mended] == [pytest.approx(0.8), pytest.approx(0.4), 1.5]


def test_floor_of_k_svd_is_at_the_rate_of_the_faster_product() -> None:
    row = {"operations": 4e9, "signals_per_s": 100.0, "signals": 200, "share_of_floor": 1.3}
    rates = [{"setting": "fp32", "rates": {"fp32_operations_per_s": rate}} for rate in (2e9, 8e9)]
    (mended,) = page.with_measured_product({"rows": [row]}, {"rows": rates})["rows"]
    assert mended["share_of_floor"] == pytest.approx(4e9 / 8e9 * 100 / 200)


def test_lockstep_says_how_long_its_saving_lasts(tmp_path: Path) -> None:
    """8 learnings of t s in 0.8 of the time, start-up 5 s against 29: 0.6 (8 t + 29) = 6.4 t + 5 at t = 7.75."""
    row = {"dictionaries": 8, "cost": None, "process_cost": None, "tokens_per_s": 1.0, "peak_rss_mib": 1.0}
    rows = [
        {**row, "setting": "lockstep", "seconds": 8.0, "process_seconds": 13.0},
        {**row, "setting": "one by one", "seconds": 10.0, "process_seconds": 39.0},
    ]
    text = "\n".join(page.lockstep({"rows": rows}, tmp_path))
    assert "takes 80% of the time" in text and "for less than 8 s (here 1.2 s)" in text


@pytest.mark.parametrize("section", ["training", "breakdown"])
def test_pictures_are_drawn_beside_the_page(section: str, tmp_path: Path) -> None:
    shapes = {"d": 8, "width": 32, "k": 2, "batch": 16}
    parts = {"encoder": 0.1, "sparse": 0.1, "traffic": 0.1}
    phases = {"product": 0.1, "selection": 0.2, "reconstruction": 0.1, "update": 0.1, "rest": 0.05}
    more = {
        "floor_seconds": parts,
        "phase_seconds": phases,
        "step_seconds": [0.4, 0.5, 0.6] if section == "training" else 0.5,
    }
    rows = [
        Row(toolkit=name, method="TopK", shapes=shapes, rate="tokens_per_s", value=value, more=more)
        for name, value in (("conceptbench", 30.0), ("sparsify", 10.0))
    ]
    rates = {"tuned_at": {"width": 16}, "multiples": {"a": 1, "b": 1}, "fvu": {"a": {}}}
    settings = {"learning_rates": rates, "groups": [{"width": 32, "turn": 0}]}
    text = "\n".join(getattr(page, section)({**results_with(rows), "settings": settings}, tmp_path))
    if section == "training":
        assert "tuned at width 16" in text and "Of b the values" in text and "At width 32 the toolkits" in text
    pictures = list(tmp_path.glob("*.png"))
    assert len(pictures) == 1 and pictures[0].name in text
