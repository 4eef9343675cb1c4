"""The default configuration, its refusals, and the part of it that each rule depends on."""

import copy
import json
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from conceptbench.config import STAGES, Config, load_config, merge, read_yaml, stage_spec
from conceptbench.config.describe import json_schema, update_page
from conceptbench.config.sections import Section
from conceptbench.errors import ConceptBenchError

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = read_yaml(ROOT / "config.yaml")


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the default configuration with one key set."""
    content = copy.deepcopy(DEFAULT)
    *parents, last = path.split("/")
    section = content
    for key in parents:
        section = section.setdefault(key, {})
    section[last] = value
    return content


def test_default_is_valid_and_frozen() -> None:
    config = load_config(ROOT / "config.yaml")
    assert config == load_config(DEFAULT)
    assert config.experiment == "testbed" and config.hooks["clip-tiny"] == (2, 4)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("overlay", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid(overlay: Path) -> None:
    load_config(ROOT / "config.yaml", overlay, {"data_root": "data"})


def test_import_is_light_and_fast() -> None:
    code = (
        "import sys, time; start = time.process_time(); import conceptbench.config; "
        "heavy = {'torch', 'numpy', 'pandas', 'numba', 'open_clip', 'snakemake'} & set(sys.modules); "
        "assert not heavy, heavy; print(time.process_time() - start)"
    )
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(times) < 0.5


def test_schema_and_page_are_in_step() -> None:
    """When this fails, run `python -m conceptbench.config schema` and commit what it writes."""
    assert json.loads((ROOT / "schemas/config.schema.json").read_text(encoding="utf-8")) == json_schema()
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == update_page(page)


def test_every_field_is_described() -> None:
    def walk(section: type[Section]) -> None:
        for name, field in section.model_fields.items():
            assert field.description or name in {"kind", "method"}, f"{section.__name__}.{name}"

    pending = [Config]
    seen: set[type[Section]] = set()
    while pending:
        section = pending.pop()
        seen.add(section)
        walk(section)
        pending += [part for part in section.__subclasses__() if part not in seen]
    for part in Section.__subclasses__():
        walk(part)
    rows = (ROOT / "docs/configuration.md").read_text(encoding="utf-8").splitlines()
    assert any(row.startswith("| `dictionaries.methods.<name>.aux_alpha` | number | `0.03125` |") for row in rows)
    assert any(row.startswith("| `hooks` | mapping of names: list: whole number |") for row in rows)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sead", 1, r"unknown key 'sead'; did you mean 'sea?e?d'\?"),
        (
            "dictionaries/methods/topk/widht",
            9,
            r"unknown key 'dictionaries\.methods\.topk\.widht'; did you mean 'width'\?",
        ),
        ("datasets/scenes/sizes/held_out", 9, r"\.held_out'; did you mean 'held-out'\?"),
        ("datasets/scenes/sizes/tset", 9, r"unknown key 'datasets\.scenes\.sizes\.tset'; did you mean 'test'\?"),
        ("datasets/flora/colour", 9, r"unknown key 'datasets\.flora\.colour'; valid names are images_per_class, kind"),
        ("adaptations/methods/maple/nctx", 2, r"'adaptations\.methods\.maple\.nctx'; did you mean 'n_ctx'\?"),
        ("datasets/scenes/kind", "scene", r"'datasets\.scenes\.kind' is 'scene', .*did you mean 'scenes'\?"),
        ("datasets/more", {"images_per_class": 3}, r"the key 'datasets\.more\.kind' is missing"),
        (
            "dictionaries/methods/more",
            {"method": "topk", "width": 9},
            r"the key 'dictionaries\.methods\.more\.k' is missing",
        ),
        ("datasets/My Set", {"kind": "flora"}, r"the name 'datasets\.My Set' may only have"),
        ("experiment", "a/b", r"'experiment' is 'a/b'"),
        ("device", "tpu", r"'device' is 'tpu'"),
        ("seeds", [1, 1], r"'seeds': lists a value twice"),
        ("seeds", [], r"'seeds' is \[\]"),
        ("dictionaries/methods/topk/k", 2000, r"'dictionaries\.methods\.topk': width 1024 is smaller than k 2000"),
        ("datasets/flora/template", "a flower", r"'datasets\.flora\.template': needs exactly one \{\}"),
        ("hooks/clip-tny", [1], r"'hooks' names the backbone 'clip-tny', .*did you mean 'clip-tiny'\?"),
        ("hooks/clip-tiny", [2, 6], r"'hooks\.clip-tiny' asks for block 6, but its blocks are 0 to 5"),
        ("dictionaries/train_on", "scene", r"'dictionaries\.train_on' names the data set 'scene', .*'scenes'\?"),
        ("dictionaries/images", 9000, r"'dictionaries\.images' is 9000, but 'datasets\.scenes\.sizes\.train' is 4096"),
        ("measures/dictionary", "topp", r"'measures\.dictionary' names the dictionary 'topp', .*'topk'\?"),
        ("measures/block", 3, r"'measures\.block' is 3, but 'hooks\.clip-tiny' records \[2, 4\]"),
        ("measures/truth_on", "flora", r"'measures\.truth_on' names 'flora', which is no rendered scenes"),
        ("adaptations/tasks", ["flora", "tera"], r"'adaptations\.tasks' names the data set 'tera', .*'terra'\?"),
        ("adaptations/tasks", ["scenes"], r"'scenes', a data set without classes"),
        ("adaptations/shots", 61, r"'adaptations\.shots' is 61, but 'flora' has 60 training images in a class"),
        ("adaptations/backbone", "image-tiny", r"needs a text tower, but the backbone 'image-tiny' has none"),
        ("adaptations/methods/maple/depth", 4, r"maple\.depth' is 4, but 'clip-tiny' has 3 blocks in its smaller"),
        ("adaptations/methods", {}, r"'adaptations\.methods' is empty"),
        ("datasets/eurosat", {"kind": "eurosat"}, r"'eurosat' is looked for under 'data_root', which is not set"),
        ("backbones/b", {"kind": "open_clip", "model": "ViT-B-16"}, r"'backbones\.b': .* needs `pretrained`"),
        (
            "backbones/b",
            {"kind": "open_clip", "model": "ViT-B-16", "pretrained": "openai"},
            r"'backbones\.b': .* activation of ViT-B-16-quickgelu",
        ),
    ],
)
def test_mistakes_are_one_sentence_with_the_full_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConceptBenchError, match=message) as caught:
        load_config(changed(path, value))
    text = str(caught.value)
    assert text.startswith("Configuration: ") and text.endswith((".", "?", "more)")) and "\n" not in text


def test_a_missing_section_and_many_mistakes() -> None:
    content = copy.deepcopy(DEFAULT)
    del content["measures"]
    with pytest.raises(ConceptBenchError, match="the key 'measures' is missing; add it"):
        load_config(content)
    content["figurs"] = {}
    with pytest.raises(ConceptBenchError, match=r"unknown key 'figurs'; did you mean 'figures'\? \(and 1 more\)"):
        load_config(content)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    with pytest.raises(ConceptBenchError, match=r"x\.yaml: cannot be read"):
        load_config(file)
    for text, message in (
        ("a: [", "not valid YAML"),
        ("a: 1\na: 2\n", "line 2 repeats the key 'a'"),
        ("- 1", "mapping"),
    ):
        file.write_text(text)
        with pytest.raises(ConceptBenchError, match=message):
            load_config(file)


def test_overlays_merge_replace_and_take_out() -> None:
    overlay = {
        "datasets": {"terra": None, "scenes": {"pairs": 8}},
        "adaptations": {"tasks": ["flora"], "methods": {"maple": {"lr": "1e-3"}, "linear-probe": None}},
        "measures": {"latents_on": []},
    }
    config = load_config(DEFAULT, overlay)
    assert set(config.datasets) == {"scenes", "kinds", "flora"} and config.datasets["scenes"].pairs == 8
    assert set(config.adaptations.methods) == {"zero-shot", "maple"}
    assert config.adaptations.methods["maple"].lr == 1e-3 and config.adaptations.methods["maple"].depth == 3
    assert merge({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}}


def test_known_depths(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": {"layers": 3}}}))
    for spec, block in (
        ({"kind": "local", "path": str(tmp_path)}, 3),
        ({"kind": "open_clip", "model": "ViT-B-16-quickgelu", "pretrained": "openai"}, 12),
        ({"kind": "open_clip", "model": "ViT-L-16-SigLIP-256", "pretrained": "webli"}, 24),
    ):
        overlay = {"backbones": {"x": spec}, "hooks": {"x": [block]}}
        with pytest.raises(ConceptBenchError, match=f"its blocks are 0 to {block - 1}"):
            load_config(DEFAULT, overlay)
    load_config(DEFAULT, {"backbones": {"x": {"kind": "local", "path": "nowhere"}}, "hooks": {"x": [99]}})


def test_a_folder_may_be_named_as_open_clip_names_it() -> None:
    named = {"kind": "local", "path": "local-dir:/models/mine"}
    found = load_config(DEFAULT, {"backbones": {"x": named}, "hooks": {"x": [9]}})
    assert found.backbones["x"].path == "/models/mine"
    with pytest.raises(ConceptBenchError, match="a folder is another kind; write kind: local and path: /models/mine"):
        load_config(DEFAULT, {"backbones": {"x": {"kind": "open_clip", "model": "local-dir:/models/mine"}}})


def test_what_is_recorded_and_prepared() -> None:
    config = load_config(DEFAULT, {"datasets": {"spare": {"kind": "flora"}}})
    assert config.recorded("clip-tiny") == ("scenes", "flora", "terra")
    assert config.recorded("image-tiny") == ("scenes",)
    assert config.used_datasets() == ("scenes", "kinds", "flora", "terra")


def all_stamps(config: Config) -> dict[str, Any]:
    """Return the stamp of every job of the workflow."""
    names: dict[str, list[dict[str, str]]] = {
        "prepare_dataset": [{"dataset": name} for name in config.used_datasets()],
        "train_backbone": [{"backbone": name} for name in config.hooks],
        "fetch_backbone": [],
        "learn_dictionaries": [{"backbone": name} for name in config.hooks],
        "record_activations": [{"backbone": b, "dataset": d} for b in config.hooks for d in config.recorded(b)],
        "adapt": [{"task": t, "method": m} for t in config.adaptations.tasks for m in config.adaptations.methods],
        "learn_synthetic": [{"world": name} for name in config.synthetic.worlds],
        "fetch_dataset": [],
    }
    names["record_outputs"] = [{"backbone": name} for name in config.kinds.backbones] if config.kinds else []
    names["learn_output_dictionaries"] = names["record_outputs"]
    names["encode_codes"] = names["record_activations"]
    names["record_adapted"] = names["encode_adapted"] = names["learn_adapted"] = names["adapt"]
    return {
        "/".join((stage, *wildcards.values())): stage_spec(config, stage, **wildcards)
        for stage in STAGES
        for wildcards in names.get(stage, [{}])
    }


def affected(path: str, value: Any) -> set[str]:
    """Return the stages whose stamp changes when one key of the default does."""
    before, after = all_stamps(load_config(DEFAULT)), all_stamps(load_config(changed(path, value)))
    return {job for job in before if json.dumps(before[job]) != json.dumps(after[job])}


ADAPT_MAPLE = {"adapt/flora/maple", "adapt/terra/maple"}


@pytest.mark.parametrize(
    ("path", "value", "jobs"),
    [
        ("figures/dpi", 300, {"draw", "draw_exemplars"}),
        ("figures/latents", 3, {"draw_exemplars"}),
        ("data_root", "elsewhere", set()),
        ("device", "cpu", set()),
        ("dictionaries/gpus", 4, set()),
        ("datasets/flora/images_per_class", 100, {"prepare_dataset/flora"}),
        ("backbones/clip-tiny/images", 100, {"train_backbone/clip-tiny"}),
        ("dictionaries/methods/topk/k", 9, {f"learn_dictionaries/{name}" for name in DEFAULT["hooks"]}),
        ("adaptations/methods/maple/lr", 0.1, ADAPT_MAPLE),
        ("measures/overlap_k", [5], {"measure_overlap"}),
        ("measures/exemplars", 7, {"measure_latents"}),
        ("measures/permutations", 99, {"measure_truth", "measure_kinds"}),
        ("datasets/flora/template", "a {} flower.", {"adapt/flora/zero-shot"}),
        (
            "hooks/image-tiny",
            [3],
            {f"{stage}/image-tiny/scenes" for stage in ("record_activations", "encode_codes")}
            | {"learn_dictionaries/image-tiny", "measure_truth", "measure_stability"},
        ),
    ],
)
def test_a_change_reaches_exactly_the_jobs_it_affects(path: str, value: Any, jobs: set[str]) -> None:
    assert affected(path, value) == jobs


def test_stamps_are_plain_json() -> None:
    for stamp in all_stamps(load_config(DEFAULT)).values():
        assert json.loads(json.dumps(stamp, allow_nan=False)) == stamp


def test_wrong_stages_and_names() -> None:
    config = load_config(DEFAULT)
    assert stage_spec(config, "draw_accuracy") == stage_spec(config, "draw")
    with pytest.raises(ConceptBenchError, match=r"Unknown stage 'adopt'; did you mean 'adapt'\?"):
        stage_spec(config, "adopt")
    with pytest.raises(ConceptBenchError, match=r"has no dataset 'flor'; did you mean 'flora'\?"):
        stage_spec(config, "prepare_dataset", dataset="flor")
    with pytest.raises(ConceptBenchError, match="has no colour 'red'; valid names are backbone"):
        stage_spec(config, "prepare_dataset", colour="red")
    with pytest.raises(ConceptBenchError, match="wrong names"):
        stage_spec(config, "prepare_dataset", backbone="clip-tiny")


def test_fields_and_defaults_are_those_of_the_library() -> None:
    """A value of the configuration becomes a specification of the library by keyword."""
    from conceptbench.adaptation.specs import method_spec
    from conceptbench.backbones.recipes import RECIPES
    from conceptbench.config.backbones import TRAINED_BLOCKS, TRAINED_TEXT_BLOCKS
    from conceptbench.data import DatasetSpec
    from conceptbench.dictionaries.specs import METHODS, specify

    config = load_config(DEFAULT)
    assert {recipe.blocks for recipe in RECIPES.values()} == {TRAINED_BLOCKS}
    assert {recipe.text_blocks for recipe in RECIPES.values()} == {TRAINED_TEXT_BLOCKS}
    for name in config.datasets:
        options = stage_spec(config, "prepare_dataset", dataset=name)
        del options["seed"]
        DatasetSpec.of(options.pop("name"), options)
    for name, section in config.dictionaries.methods.items():
        specify(name=name, **section.model_dump())
        library = {field.name: field.default for field in fields(METHODS[section.method]) if field.name != "name"}
        assert_same_defaults(section, library)
    for name, method in config.adaptations.methods.items():
        spec = method_spec({"name": name, **method.model_dump()})
        assert_same_defaults(method, {field.name: field.default for field in fields(spec) if field.name != "name"})


def assert_same_defaults(section: Section, library: dict[str, Any]) -> None:
    ours = {name: field for name, field in type(section).model_fields.items() if not field.exclude and name != "method"}
    library = {name: default for name, default in library.items() if name != "method"}
    assert set(ours) == set(library)
    for name, default in library.items():
        assert ours[name].is_required() == (default is MISSING), name
        if default is not MISSING:
            assert ours[name].default == default, name


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from conceptbench.config.__main__ import main

    assert main(["check", str(ROOT / "config.yaml")]) == 0
    assert "testbed: 4 data sets" in capsys.readouterr().out
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("figures: {dqi: 3}\n")
    assert main(["check", str(ROOT / "config.yaml"), str(overlay)]) == 1
    assert "overlay.yaml: unknown key 'figures.dqi'; did you mean 'dpi'?" in capsys.readouterr().err
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/configuration.md").write_text((ROOT / "docs/configuration.md").read_text(encoding="utf-8"))
    assert main(["schema", "--root", str(tmp_path)]) == 0
    assert (tmp_path / "schemas/config.schema.json").read_bytes() == (ROOT / "schemas/config.schema.json").read_bytes()
