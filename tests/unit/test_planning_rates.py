"""Rates: what work costs, from the records of finished runs and from benchmarks; never those of a GPU."""

import json
from pathlib import Path

import pytest
from planning_tools import BASE, ROOT, config, rates

from conceptbench.config import Config
from conceptbench.errors import ConceptBenchError
from conceptbench.planning import Rates, all_jobs, load_rates
from conceptbench.planning.benchmarked import READERS, read_samples
from conceptbench.planning.jobs import Job
from conceptbench.planning.learnt import FinishedRun, learn_rates
from conceptbench.planning.rates import RuleRate


def test_a_cost_is_the_sum_over_units_and_unknown_units_are_named() -> None:
    known = rates(adapt=RuleRate(2.0, 100.0, {"step": 0.5, "job": 1.0}, 3))
    cost = known.cost(Job("adapt", "a", amounts={"job": 1, "step": 10, "training_gflop": 7}, arrays=3 * 2**20))
    assert (cost.seconds, cost.mib, cost.missing) == (2 + 1 + 5, 103.0, ("training_gflop",))


def test_a_gpu_does_operations_at_its_own_speed() -> None:
    known = rates(adapt=RuleRate(1.0, 100.0, {"step": 0.5, "training_gflop": 1.0}, 3))
    work = Job("adapt", "a", amounts={"step": 2, "training_gflop": 5000}, gpu=True)
    assert known.cost(work).seconds == 1 + 1 + 5000
    assert known.cost(work, gpu_tflops=10).seconds == pytest.approx(1 + 1 + 0.5)


def finished_run(folder: Path, chosen: Config, seconds_per: dict[str, float], cores: int) -> FinishedRun:
    """A run whose jobs took exactly what `seconds_per` unit says, one after another."""
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "a.csv").write_bytes(b"0" * 1000)
    now = 1000.0
    for one in all_jobs(chosen, 32.0):
        place = Path(one.rule, one.name) if one.name else Path(one.rule)
        took = sum(seconds_per.get(unit, 0.0) * amount for unit, amount in one.amounts.items())
        took *= one.threads / min(one.threads, cores)
        now += 0.5 + 1.5 + took
        timing = {"rule": one.rule, "work_seconds": took, "start_up_seconds": 1.5, "ended": now}
        for path, text in (
            (Path(f"{folder / 'logs' / place}.timing.json"), json.dumps(timing)),
            (
                Path(f"{folder / 'benchmarks' / place}.tsv"),
                f"s\tmax_rss\tcpu_time\n{took}\t{300 + one.arrays / 2**20}\t{took / 2}\n",
            ),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return FinishedRun(folder, chosen)


@pytest.mark.parametrize("cores", [1, 2])
def test_rates_of_a_run_give_back_its_costs_and_predict_another(tmp_path: Path, cores: int) -> None:
    true = {"forward_gflop": 0.02, "image": 1e-3, "learning_gflop": 0.05, "encoding_gflop": 0.01}
    run = finished_run(tmp_path / "run", config(), true, cores)
    learnt = learn_rates([run], cores)
    assert learnt.gap == pytest.approx(0.5, abs=0.01)
    larger = {"scenes": {"sizes": {"test": 8000}}, "flora": {"images_per_class": 200}}
    other = config({"datasets": larger, "seeds": [0]})
    for one in all_jobs(other, 32.0):
        if {"firing", "latent_image", "assignment"} & set(one.amounts):
            continue
        expected = 1.5 + sum(true.get(unit, 0.0) * amount for unit, amount in one.amounts.items())
        cost = learnt.cost(one)
        assert cost.seconds == pytest.approx(expected, rel=0.02), one.label
        assert cost.mib == pytest.approx(300 + one.arrays / 2**20, rel=0.02), one.label
    again = Rates(**{**learnt.__dict__})
    (tmp_path / "rates.json").write_text(json.dumps(again.to_json()))
    assert load_rates(tmp_path / "rates.json").to_json() == learnt.to_json()


def test_benchmarks_at_real_sizes_count_beside_the_jobs(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", config(), {"token": 1e-5, "learning_gflop": 0.002}, 2)
    row = {"toolkit": "conceptbench", "setting": "as shipped", "d": 768, "width": 49152}
    row["tokens_per_s"] = 1 / (1e-5 + 0.002 * 2 * 768 * 49152 / 1e9)
    for name in READERS:
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": [row] if name == "sae_training" else []}))
    learnt = learn_rates([run], 2, tmp_path)
    found = learnt.rules["learn_dictionaries"].seconds
    assert found["learning_gflop"] == pytest.approx(0.002, rel=0.01)
    assert found["token"] == pytest.approx(1e-5, rel=0.01)
    assert set(learnt.benchmarks) == set(READERS)


def test_rates_are_not_made_without_the_benchmarks(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", config(), {"token": 1e-5}, 2)
    (tmp_path / "sae_training.json").write_text('{"rows": []}')
    with pytest.raises(ConceptBenchError, match=r"lacks maple_step\.json, recording\.json, .*--benchmarks"):
        learn_rates([run], 2, tmp_path)


def test_the_committed_rates_say_what_the_committed_benchmarks_measured() -> None:
    known = load_rates(ROOT / "reference" / "rates.json")
    samples = read_samples(ROOT / "benchmarks" / "results")
    assert {sample.rule for sample in samples} >= {"learn_dictionaries", "adapt", "record_activations", "photographs"}
    for sample in samples:
        idle, busy = (known.cost(Job(sample.rule, "a", amounts=work)).seconds for work in ({}, dict(sample.amounts)))
        assert busy - idle == pytest.approx(sample.seconds, rel=0.25), sample


def test_a_busy_machine_serves_for_what_was_not_measured_elsewhere(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", config(), {"forward_gflop": 0.02, "repetition": 4.0}, 2)
    lacking = config({"adaptations": {"tasks": []}, "measures": {"latents_on": ["scenes"]}})
    found = learn_rates([finished_run(tmp_path / "lacking", lacking, {"forward_gflop": 0.02}, 2)], 2, busy=[run])
    assert found.rules["measure_decomposition"].seconds["forward_gflop"] == pytest.approx(0.01)  # its CPU time
    assert found.rules["record_activations"].seconds["forward_gflop"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("granted", "seen", "device", "refused"),
    [
        *((1, ["NVIDIA H200"], "auto", True), (1, ["NVIDIA H200"], "cpu", False)),
        *((1, [], "auto", False), (0, ["NVIDIA H200"], "auto", False), (1, None, "auto", False)),
    ],
)
def test_rates_of_a_gpu_are_refused(
    tmp_path: Path, granted: int, seen: list[str] | None, device: str, refused: bool
) -> None:
    run = finished_run(tmp_path / "run", config({"device": device}), {"forward_gflop": 0.02}, 2)
    record = tmp_path / "run" / "jobs" / "adapt" / "flora.maple.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"rule": "adapt", "gpus_granted": granted, "flags": {"gpus": seen}}))
    if not refused:
        assert learn_rates([run], 2).rules["adapt"].jobs == 6
        return
    for measured, busy in (([run], []), ([finished_run(tmp_path / "other", config(), {}, 2)], [run])):
        with pytest.raises(
            ConceptBenchError, match=r"flora\.maple\.json says that adapt ran with a GPU \(NVIDIA H200\)"
        ):
            learn_rates(measured, 2, busy=busy)


def test_a_folder_that_was_never_run_and_a_file_that_is_no_rates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match="is no run: it has no folder benchmarks"):
        FinishedRun.parse(str(tmp_path), BASE)
    (tmp_path / "rates.json").write_text("{}")
    with pytest.raises(ConceptBenchError, match="is no file of rates; make it with: conceptbench rates"):
        load_rates(tmp_path / "rates.json")
