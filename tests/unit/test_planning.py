"""Plans: amounts that follow from the configuration, measured rates, jobs in order, disks that are too small."""

import math
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_tools import BASE, ROOT, config, job

from conceptbench.cli import main
from conceptbench.config import load_config
from conceptbench.config.backbones import Named, OpenClip, Trained
from conceptbench.config.datasets import Eurosat, Flora, Folder, Scenes
from conceptbench.errors import ConceptBenchError
from conceptbench.measures import stability
from conceptbench.planning import Machine, all_jobs, load_rates, make_plan, require_disk
from conceptbench.planning.images import images_of
from conceptbench.planning.jobs import Job, Learnt, Study
from conceptbench.planning.measuring import LARGEST_ASSIGNMENT, NEAREST_ROWS, SHUFFLED_PAIRS
from conceptbench.planning.page import scale_page
from conceptbench.planning.pipeline import ROW_MEMORY
from conceptbench.planning.schedule import schedule
from conceptbench.planning.text import hours, number, plan_text, size
from conceptbench.planning.towers import tower_of

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))


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
    assert SHUFFLED_PAIRS == stability.DRAWS
    only = {name: None for name in config().dictionaries.methods if name not in ("topk", "relu-l1")}
    hooks = {"clip-tiny": [4], "image-tiny": None, "random-tiny": None}

    def planned(width: int) -> Job:
        methods = {**only, "topk": {"width": width}, "relu-l1": {"width": width}}
        return job(config({"hooks": hooks, "kinds": None, "dictionaries": {"methods": methods}}), "measure_stability")

    narrow, wide, wider = planned(8192), planned(16384), planned(32768)
    # three pairs of three seeds, as they are and shuffled
    assert narrow.amounts == {"assignment": 2 * 6 * 8192**3 / 1e9, "encoding_gflop": 0}
    assert wide.amounts["assignment"] == 0
    # two matchings of each comparison and one of random atoms, of 16,384 x 16,384 atoms with 128 features
    assert wide.amounts["encoding_gflop"] == pytest.approx(2 * (2 * 6 + 1) * 2 * 128 * 16384**2 / 1e9)
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
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, math.ceil(plan.bytes + plan.passing)))
    require_disk(plan, tmp_path / "results" / "testbed")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, int(plan.bytes + plan.passing - 5e8)))
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


def test_several_gpus_divide_what_they_can_and_all_are_counted() -> None:
    known = load_rates(ROOT / "reference" / "rates.json")
    settings = BASE, ROOT / "examples" / "paper.yaml", {"data_root": "data"}
    four = {"dictionaries": {"gpus": 4}}
    plans = {
        (asked, there): make_plan(
            load_config(*settings, *([four] if asked == 4 else [])), known, Machine(16, there), 50.0
        )
        for asked, there in ((1, 1), (4, 4), (4, 1))
    }
    one, all_four, only_one = (
        next(stage for stage in plan.stages if stage.rule == "learn_dictionaries") for plan in plans.values()
    )
    assert one.gpu_seconds == one.seconds == only_one.gpu_seconds == only_one.seconds
    assert one.seconds / 4 < all_four.seconds < one.seconds and all_four.gpu_seconds == 4 * all_four.seconds
    asked = [job for job in all_jobs(load_config(*settings, four)) if job.rule == "learn_dictionaries"]
    alone = [job for job in all_jobs(load_config(*settings)) if job.rule == "learn_dictionaries"]
    assert [job.arrays for job in asked] == [4 * job.arrays for job in alone]
    assert {job.divided for job in asked} == {1.0}, "the papers' dictionaries are TopK and ReLU-L1"


def test_gpus_of_one_job_are_free_again_together() -> None:
    jobs = [Job("a", gpu=True, gpus=2), Job("b", gpu=True), Job("c", gpu=True)]
    spans = schedule(jobs, {"a": 2.0, "b": 2.0, "c": 2.0}, Machine(4, gpus=2))
    assert [(span.began, span.ended) for span in spans] == [(0.0, 2.0), (2.0, 4.0), (2.0, 4.0)]


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
