"""Plans: amounts that follow from the configuration, measured rates, jobs in order, disks that are too small."""

import json
import math
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.cli import main
from conceptbench.config import Config, load_config
from conceptbench.config.backbones import Named, OpenClip, Trained
from conceptbench.config.datasets import Eurosat, Flora, Folder, Scenes
from conceptbench.errors import ConceptBenchError
from conceptbench.measures import stability
from conceptbench.planning import Machine, Rates, all_jobs, load_rates, make_plan, require_disk
from conceptbench.planning.images import images_of
from conceptbench.planning.jobs import Job, Learnt, Study
from conceptbench.planning.learnt import FinishedRun, learn_rates
from conceptbench.planning.measuring import LARGEST_ASSIGNMENT, NEAREST_ROWS
from conceptbench.planning.page import scale_page
from conceptbench.planning.pipeline import ROW_MEMORY
from conceptbench.planning.rates import RuleRate
from conceptbench.planning.schedule import schedule
from conceptbench.planning.text import hours, number, plan_text, size
from conceptbench.planning.towers import tower_of

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "config.yaml"
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))


def config(*overlays: dict[str, Any]) -> Config:
    return load_config(BASE, *overlays)


def job(config: Config, label: str) -> Job:
    return next(job for job in all_jobs(config) if job.label == label)


def rates(**rules: RuleRate) -> Rates:
    return Rates(rules, {}, {"tables": 1.0, "figures": 1.0}, penalised_l0=20.0, gap=0.0)


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_operations_of_a_pass_are_those_of_the_published_model() -> None:
    """ViT-B/16 at 224 pixels: 17.6 GMAC, two operations each (Touvron et al. 2021, arXiv 2012.12877)."""
    tower = tower_of("b", Named(kind="named", model="clip-vit-b16-openai"))
    assert tower.image.tokens == 197
    assert tower.image_gflop() == pytest.approx(2 * 17.6, rel=0.02)
    assert tower.image_gflop(5) == pytest.approx(tower.image_gflop() / 2, rel=0.02)
    by_name = tower_of("b", OpenClip(kind="open_clip", model="ViT-B-16-quickgelu", pretrained="openai"))
    assert by_name.image == tower.image
    assert by_name.weights == pytest.approx(tower.weights, rel=0.02)


def test_operations_of_the_small_backbone_are_those_that_torch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from conceptbench.backbones import load_backbone
    from conceptbench.backbones.shipped import SHIPPED

    backbone = load_backbone(SHIPPED / "clip-tiny")
    torch.backends.mha.set_fastpath_enabled(False)  # whose operations are not counted
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            backbone.tokens(torch.zeros(4, 3, 64, 64), [2])
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    tower = tower_of("clip-tiny", Trained(kind="trained", recipe="clip"))
    assert tower.image_gflop(2) == pytest.approx(counter.get_total_flops() / 4e9, rel=0.15)
    stored = (SHIPPED / "clip-tiny" / "open_clip_model.safetensors").stat().st_size
    assert tower.weights * tower.weight_bytes == pytest.approx(stored, rel=0.25)


def test_images_of_every_kind_of_data_set(tmp_path: Path) -> None:
    section = {"kind": "scenes", "sizes": {"train": 10, "val": 4, "test": 6}, "pairs": 3}
    scenes = images_of("s", Scenes.model_validate(section))
    assert (scenes.all, scenes.measured) == (26, 16)
    flora = images_of("f", Flora(kind="flora", images_per_class=120))
    assert flora.splits == {"train": 1440, "val": 576, "test": 864} and flora.trained_classes("base-to-novel") == 12
    assert images_of("e", Eurosat(kind="eurosat", limit_per_class=7)).splits == {"train": 70, "val": 70, "test": 70}
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for at in range(5):
            (tmp_path / name / f"{at}.jpg").touch()
    own = images_of("own", Folder(kind="folder", path=str(tmp_path)))
    assert (own.all, own.classes, own.files) == (10, 2, True)
    with pytest.raises(ConceptBenchError, match="there is no folder"):
        images_of("own", Folder(kind="folder", path=str(tmp_path / "absent")))


def test_a_model_of_unknown_size_is_refused() -> None:
    with pytest.raises(ConceptBenchError, match=r"cannot be planned.*hf-hub:someone/model"):
        tower_of("x", OpenClip(kind="open_clip", model="hf-hub:someone/model"))


# --- jobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_can_be_planned_and_every_need_is_a_job(example: str) -> None:
    jobs = all_jobs(load_config(BASE, ROOT / "examples" / example, {"data_root": "data"}))
    assert len({job.label for job in jobs}) == len(jobs)
    spans = schedule(jobs, {job.label: 1.0 for job in jobs}, Machine(2))
    ended = {span.job.label: span.ended for span in spans}
    for span in spans:
        for need in span.job.needs:
            before = [ended[label] for label in ended if label == need or label.split("/")[0] == need]
            assert before and max(before) <= span.began


def test_bytes_of_activations_and_codes_are_exact() -> None:
    chosen = config()
    recording = job(chosen, "record_activations/clip-tiny.scenes")
    assert recording.leaves["activations"] == (4096 + 1024 + 2048 + 512 + 2048) * 65 * 128 * 2 * 2
    tokens = (1024 + 2048 + 2048) * 65
    topk, pca = Learnt("topk", "topk", 1024, 8, 3, 512, 1, True), Learnt("pca", "pca", 256, 32, 1, 0, 1, False)
    assert Study(chosen).token_bytes(topk) == 8 + 8 * 8
    assert Study(chosen).token_bytes(pca) == 8 + 8 * 32
    encoding = job(chosen, "encode_codes/image-tiny.scenes")
    each = 3 * (8 + 64) + 3 * (8 + 64) + 2 * (8 + 256) + 3 * (8 + 8 * 32.0)  # topk, random; raw, pca; relu-l1
    assert encoding.leaves["codes"] == tokens * each


def test_work_grows_as_its_cause() -> None:
    chosen, label = config(), "learn_dictionaries/image-tiny"
    wider = config({"dictionaries": {"methods": {"topk": {"width": 2048}, "relu-l1": {"width": 2048}}}})
    halved = config({"dictionaries": {"images": 2048}})
    amounts = job(chosen, label).amounts
    assert job(wider, label).amounts["learning_gflop"] == pytest.approx(2 * amounts["learning_gflop"])
    assert job(halved, label).amounts["token"] == amounts["token"] / 2
    assert amounts["token"] == 2 * 3 * 4096 * 65
    three, one = (job(each, "adapt/flora.maple").amounts["step"] for each in (chosen, config({"seeds": [0]})))
    assert (three, one) == (1440, 480)


def test_stability_is_planned_as_it_is_computed() -> None:
    assert (LARGEST_ASSIGNMENT, NEAREST_ROWS) == (stability.LARGEST_ASSIGNMENT, stability.BLOCK)
    only = {name: None for name in config().dictionaries.methods if name not in ("topk", "relu-l1")}
    hooks = {"clip-tiny": [4], "image-tiny": None, "random-tiny": None}

    def planned(width: int) -> Job:
        methods = {**only, "topk": {"width": width}, "relu-l1": {"width": width}}
        return job(config({"hooks": hooks, "kinds": None, "dictionaries": {"methods": methods}}), "measure_stability")

    narrow, wide, wider = planned(8192), planned(16384), planned(32768)
    assert narrow.amounts == {"assignment": 2 * 3 * 8192**3 / 1e9, "encoding_gflop": 0}  # three pairs of three seeds
    assert wide.amounts["assignment"] == 0
    # two matchings of each pair and two of chance, of 16,384 x 16,384 atoms with 128 features
    assert wide.amounts["encoding_gflop"] == pytest.approx(2 * (2 * 3 + 2) * 2 * 128 * 16384**2 / 1e9)
    assert wider.amounts["encoding_gflop"] == pytest.approx(4 * wide.amounts["encoding_gflop"])
    assert wider.arrays < 2.1 * wide.arrays


def test_memory_of_encoding_does_not_grow_with_images_but_for_their_list() -> None:
    few = job(config({"datasets": {"scenes": {"sizes": {"test": 2048}}}}), "encode_codes/clip-tiny.scenes")
    many = job(config({"datasets": {"scenes": {"sizes": {"test": 1_002_048}}}}), "encode_codes/clip-tiny.scenes")
    assert many.arrays - few.arrays == 1_000_000 * ROW_MEMORY


def test_the_laptop_needs_less_than_an_hour_on_four_cores() -> None:
    laptop = load_config(BASE, ROOT / "examples" / "laptop.yaml")
    plan = make_plan(laptop, load_rates(ROOT / "reference" / "rates.json"), Machine(4))
    assert 600 < plan.wall_seconds < 0.9 * 3600  # what has no rate (decoding) is not counted
    assert {unit for stage in plan.stages for unit in stage.missing} <= {"file"}


def test_adapting_counts_the_towers_that_take_part() -> None:
    methods = {
        **{"vpt-deep": {"method": "vpt-deep", "depth": 6}, "tip-adapter-f": {"method": "tip-adapter-f", "views": 3}},
        **{"lora": {"method": "clip-lora", "towers": "image"}, "lora-both": {"method": "clip-lora"}},
        "cocoop": {"method": "cocoop", "batch_size": 2},
    }
    chosen = config({"adaptations": {"methods": methods}})
    tower = Study(chosen).towers["clip-tiny"]
    image, text = tower.image_gflop(), tower.text_gflop()
    work = {name: job(chosen, f"adapt/flora.{name}").amounts for name in (*methods, "zero-shot", "linear-probe")}
    classes, seeds, test, shots = 12, 3, 864, 16
    assert work["zero-shot"]["forward_gflop"] == pytest.approx(test * image)
    assert work["linear-probe"]["forward_gflop"] == pytest.approx((test + seeds * (shots + 4) * classes) * image)
    once = (test + seeds * (3 * shots + 4) * classes) * image + seeds * classes * text
    assert work["tip-adapter-f"]["forward_gflop"] == pytest.approx(once)
    assert work["tip-adapter-f"]["training_gflop"] == 0 and work["tip-adapter-f"]["step"] > 0
    assert work["vpt-deep"]["training_gflop"] == pytest.approx(3 * seeds * 5 * shots * classes * image)
    steps = work["lora"]["step"]
    assert work["lora-both"]["training_gflop"] - work["lora"]["training_gflop"] == pytest.approx(
        3 * steps * classes * text
    )
    assert work["cocoop"]["training_gflop"] == pytest.approx(3 * work["cocoop"]["step"] * 2 * classes * text)


def test_parts_of_a_recording_share_its_work() -> None:
    shared, whole = config({"record": {"jobs": 4}}), job(config(), "record_activations/clip-tiny.flora")
    parts = [job for job in all_jobs(shared) if job.rule == "record_part" and job.name.startswith("clip-tiny.flora.")]
    assert [part.name.rsplit(".", 1)[1] for part in parts] == ["1of4", "2of4", "3of4", "4of4"]
    assert sum(part.amounts["forward_gflop"] for part in parts) == pytest.approx(whole.amounts["forward_gflop"])
    gather = job(shared, "gather_activations/clip-tiny.flora")
    assert gather.leaves == whole.leaves and set(gather.needs) == {part.label for part in parts}


# --- rates -----------------------------------------------------------------------------------------------------------


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
    (tmp_path / "sae_training.json").write_text(json.dumps({"rows": [row]}))
    found = learn_rates([run], 2, tmp_path).rules["learn_dictionaries"].seconds
    assert found["learning_gflop"] == pytest.approx(0.002, rel=0.01)
    assert found["token"] == pytest.approx(1e-5, rel=0.01)


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


# --- order -----------------------------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=12),
    cores=st.integers(1, 4),
    data=st.data(),
)
def test_jobs_wait_for_what_they_need_and_never_take_more_cores_than_there_are(
    lengths: list[tuple[int, int]], cores: int, data: st.DataObject
) -> None:
    jobs = []
    for at, (_, threads) in enumerate(lengths):
        needs = sorted(data.draw(st.sets(st.integers(0, at - 1)))) if at else []
        jobs.append(Job(f"r{at}", needs=tuple(f"r{number}" for number in needs), threads=threads))
    seconds = {f"r{at}": float(length) for at, (length, _) in enumerate(lengths)}
    spans = {span.job.label: span for span in schedule(jobs, seconds, Machine(cores))}
    for one in jobs:
        lasts = seconds[one.label] * one.threads / min(one.threads, cores)
        assert spans[one.label].ended - spans[one.label].began == pytest.approx(lasts)
        assert all(spans[need].ended <= spans[one.label].began for need in one.needs)
    for moment in {span.began for span in spans.values()}:
        assert sum(min(s.job.threads, cores) for s in spans.values() if s.began <= moment < s.ended) <= cores
    work = sum(seconds[one.label] * one.threads for one in jobs)
    assert work / cores - 1e-9 <= max(span.ended for span in spans.values()) <= work + 1e-9


def test_one_gpu_serialises_jobs_that_want_it() -> None:
    jobs = [Job("a", gpu=True), Job("b", gpu=True), Job("c")]
    spans = schedule(jobs, {"a": 2.0, "b": 2.0, "c": 2.0}, Machine(4, gpus=1))
    assert [span.began for span in spans] == [0.0, 2.0, 0.0]


def test_jobs_that_need_each_other_are_a_bug_that_is_named() -> None:
    with pytest.raises(ConceptBenchError, match="cannot start a"):
        schedule([Job("a", needs=("b",)), Job("b", needs=("a",))], {"a": 1.0, "b": 1.0}, Machine(1))
    with pytest.raises(ConceptBenchError, match="a needs b, which is no job"):
        schedule([Job("a", needs=("b",))], {"a": 1.0}, Machine(1))


# --- the committed rates, the disk, the command -----------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_named_with_what_to_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(config(), load_rates(ROOT / "reference" / "rates.json"), Machine(2))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, math.ceil(plan.bytes)))
    require_disk(plan, tmp_path / "results" / "testbed")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, int(plan.bytes - 5e8)))
    with pytest.raises(ConceptBenchError, match=r"needs 3\.\d GB .* free 0\.5 GB, most of it is for codes"):
        require_disk(plan, tmp_path / "results" / "testbed")
    (tmp_path / "done").write_bytes(b"")
    np.zeros(int(7e8), np.uint8).tofile(tmp_path / "done")  # a finished part counts
    require_disk(plan, tmp_path)


def test_the_command_prints_what_will_be_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["plan", "--cores", "2", "--all"]) == 0
    text = capsys.readouterr().out
    for word in ("28,544 images", "record_activations", "core hours", "GiB for the largest job", "disk "):
        assert word in text, word
    assert main(["plan", "--gpus", "1"]) == 2
    assert "say with --gpu-tflops" in capsys.readouterr().err


def test_a_plan_with_a_gpu_counts_its_hours() -> None:
    known = load_rates(ROOT / "reference" / "rates.json")
    paper = load_config(BASE, ROOT / "examples" / "paper.yaml", {"data_root": "data"})
    plan = make_plan(paper, known, Machine(16, 1), 50.0)
    assert plan.images > 1_331_167 and plan.gpu_hours > 1
    assert "GPU hours" in plan_text(plan, known)
    assert make_plan(paper, known, Machine(16)).gpu_hours == 0


def test_every_stage_says_its_images_tokens_and_gpu_hours() -> None:
    known = load_rates(ROOT / "reference" / "rates.json")
    paper = load_config(BASE, ROOT / "examples" / "paper.yaml", {"data_root": "data"})
    plan = make_plan(paper, known, Machine(16, 1), 50.0)
    stages = {stage.rule: stage for stage in plan.stages}
    assert stages["prepare_dataset"].images == stages["record_activations"].images == plan.images
    assert stages["record_activations"].tokens == plan.tokens == 197 * plan.images
    learnt = 3 * 2 * 1_281_167 * 197  # seeds, passes, images, tokens of an image
    assert stages["learn_dictionaries"].tokens == learnt
    on_gpus = sum(stage.seconds for stage in plan.stages if stage.gpu) / 3600
    assert plan.gpu_hours == pytest.approx(on_gpus)
    row = next(line for line in plan_text(plan, known).splitlines() if line.startswith("learn_dictionaries"))
    assert "1.5 G" in row and f"GPU  {stages['learn_dictionaries'].seconds / 3600:.2f}" in re.sub(" +", "  ", row)
    assert "GPU hours" not in "".join(plan_text(make_plan(paper, known, Machine(16)), known).splitlines()[3:6])


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (9999, "9,999"), (28544, "28.5 k"), (308_855_024, "309 M"), (1.5e9, "1.5 G"), (2.5e12, "2,500 G")],
)
def test_counts_in_words(count: float, text: str) -> None:
    assert number(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (119, "119 s"), (600, "10 min"), (7300, "2.0 h"), (8.64e5, "10.0 days")]
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert hours(seconds) == text


def test_bytes_in_words() -> None:
    assert [size(count) for count in (0, 2e5, 3.5e9, 4.3e11, 2.5e13)] == ["", "0.2 MB", "3.5 GB", "430 GB", "25.0 TB"]


def test_planning_imports_no_models() -> None:
    code = (
        "import sys; import conceptbench.planning, conceptbench.planning.text; "
        "heavy = {'torch', 'numba', 'open_clip', 'zarr', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_is_in_step_with_the_rates() -> None:
    """When this fails, run `conceptbench scale` and commit what it writes."""
    page = scale_page(ROOT, load_rates(ROOT / "reference" / "rates.json"))
    assert (ROOT / "docs" / "scale.md").read_text(encoding="utf-8") == page
