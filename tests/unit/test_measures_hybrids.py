"""Hybrids on a small CLIP with random weights: undivided models keep their bits."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip import CLIP
from torch.nn import functional as F

from conceptbench.adaptation.prompts.hooks import image_prompts
from conceptbench.backbones.backbone import Backbone
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.decomposition import decompose
from conceptbench.measures.hybrids import (
    hybrid_features,
    hybrid_predictions,
    mean_prompt_states,
    unmoved_predictions,
)

BLOCK, N_PROMPTS = 1, 2
CLASSES = ("a", "b", "c", "d")
HALVES = {"base": [0, 1], "novel": [2, 3]}


class StandIn:
    """An adapter: image prompts (one tensor a depth, none for a plain image side) and its own class vectors."""

    def __init__(self, texts: torch.Tensor, prompts: list[torch.Tensor] | None = None) -> None:
        self.texts, self.prompts = F.normalize(texts, dim=-1), prompts

    def image_context(self, backbone: Backbone):
        return nullcontext() if self.prompts is None else image_prompts(backbone, self.prompts)

    def classify(self, backbone: Backbone, features: torch.Tensor, class_names: list[str]) -> torch.Tensor:
        rows = [CLASSES.index(name) for name in class_names]
        return backbone.logit_scale * F.normalize(features, dim=-1) @ self.texts[rows].T

    def missing_note(self, class_names: list[str]) -> str:
        return ""

    def require_classes(self, dataset: str, trained: list[str]) -> None:
        assert trained == ["a", "b"], dataset


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    vision = {"image_size": 16, "layers": 4, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
    model = CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text)
    preprocess = {"size": (16, 16), "mode": "RGB", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    preprocess |= {"interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0}
    return Backbone(
        model,
        name="small",
        digest="0" * 64,
        model_config={"embed_dim": 24},
        preprocess_config=preprocess,
        make_tokenizer=lambda: lambda texts: torch.zeros(len(texts), 8, dtype=torch.long),
    )


@pytest.fixture(params=[1, 2])
def models(request: pytest.FixtureRequest) -> tuple[StandIn, StandIn, StandIn]:
    generator = torch.Generator().manual_seed(1)
    texts, other = torch.randn(4, 24, generator=generator), torch.randn(4, 24, generator=generator)
    prompts = [torch.randn(N_PROMPTS, 32, generator=generator) for _ in range(request.param)]
    return StandIn(texts), StandIn(other), StandIn(other, prompts)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def dataset() -> SimpleNamespace:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 255, (48, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(48) % 4
    return SimpleNamespace(
        name="toy",
        classes=CLASSES,
        rows=lambda split: np.arange(8) if split == "val" else np.arange(8, 48),
        labels=lambda rows: labels[np.asarray(rows)],
        pictures=lambda rows: images[np.asarray(rows)],
    )


@torch.no_grad()
def test_undivided_models_keep_their_bits(backbone: Backbone, models, pixels: torch.Tensor) -> None:
    adapter = models[2]
    prompts = mean_prompt_states(backbone, adapter, iter([pixels]), BLOCK)
    features = hybrid_features(backbone, adapter, pixels, BLOCK, prompts)
    assert torch.equal(features["zero-shot", "zero-shot", "averaged"], backbone.encode_image(pixels))
    with adapter.image_context(backbone):
        assert torch.equal(features["adapted", "adapted", "averaged"], backbone.encode_image(pixels))


@torch.no_grad()
def test_prompt_states_belong_to_the_readout(backbone: Backbone, models, pixels: torch.Tensor) -> None:
    adapter = models[2]
    prompts = mean_prompt_states(backbone, adapter, iter([pixels[:2], pixels[2:]]), BLOCK)
    with adapter.image_context(backbone):
        whole = backbone.lower(pixels, BLOCK)
    torch.testing.assert_close(prompts, whole[:, backbone.n_tokens :].mean(dim=0))
    features = hybrid_features(backbone, adapter, pixels, BLOCK, prompts)
    lost = backbone.upper(whole[:, : backbone.n_tokens], BLOCK)
    assert torch.equal(features["adapted", "zero-shot", "averaged"], lost)
    averaged, own = features["zero-shot", "adapted", "averaged"], features["zero-shot", "adapted", "own"]
    assert not torch.equal(averaged, own)
    assert not torch.equal(averaged, features["zero-shot", "zero-shot", "averaged"])


def test_all_hybrids_of_every_image_are_predicted(backbone: Backbone, models) -> None:
    table = hybrid_predictions(
        backbone, models[0], models[2], dataset(), HALVES, block=BLOCK, batch_size=7, progress=False
    )
    assert len(table) == 40 * 8 * 2
    assert not table.duplicated(["image", "variant", "source", "blocks", "text"]).any()
    assert (table.groupby("image")["label"].nunique() == 1).all()
    assert (table["log_likelihood"] <= 0).all()
    assert set(table[table["half"] == "novel"]["label"]) == {2, 3}


def test_relabelling_leaves_perception_at_exactly_zero(backbone: Backbone, models) -> None:
    table = hybrid_predictions(backbone, models[0], models[1], dataset(), HALVES, block=BLOCK, progress=False)
    assert set(table["variant"]) == {"averaged"}
    parts = decompose(table.assign(task="toy", method="relabel", seed=0), np.random.default_rng(0), 50)
    perception = parts[parts["part"].isin(["perception", "blocks"])]
    assert (perception["estimate"] == 0).all()
    likelihood = parts[(parts["outcome"] == "log_likelihood") & (parts["players"] == 2) & (parts["seed"] == "all")]
    values = likelihood.set_index(["half", "part"])["estimate"]
    assert values["base", "mapping"] == values["base", "gain"] != 0


class Counted:
    """Plain features of rows, and a record of the rows that were asked for."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.rows = backbone, []

    @torch.no_grad()
    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        self.rows += rows.tolist()
        return self.backbone.encode_image(self.backbone.preprocess(dataset().pictures(rows)))


def test_an_adapter_that_leaves_images_alone_needs_no_forward_of_its_own(backbone: Backbone, models) -> None:
    zero_shot, relabelled = models[0], models[1]
    calls = []

    def refuse(_backbone: Backbone) -> None:
        raise AssertionError("the image side was asked for")

    def classify(backbone: Backbone, features: torch.Tensor, class_names: list[str]) -> torch.Tensor:
        calls.append(len(features))
        return StandIn.classify(relabelled, backbone, features, class_names)

    expected = hybrid_predictions(backbone, zero_shot, relabelled, dataset(), HALVES, block=BLOCK, progress=False)
    plain = Counted(backbone)
    relabelled.image_context, relabelled.classify = refuse, classify
    table = unmoved_predictions(backbone, zero_shot, relabelled, dataset(), HALVES, plain, batch_size=7)
    assert sorted(plain.rows) == list(range(8, 48)) and sum(calls) == 40
    keys = ["half", "image", "source", "blocks", "text"]
    table, expected = (frame.sort_values(keys, ignore_index=True) for frame in (table, expected))
    pd.testing.assert_frame_equal(table, expected, rtol=1e-4)


def test_the_whole_gain_of_a_linear_head_is_mapping_and_unknown_classes_have_no_rows(
    backbone: Backbone, models
) -> None:
    head = StandIn(torch.randn(4, 24, generator=torch.Generator().manual_seed(9)))
    head.missing_note = lambda names: "no weights" if "c" in names else ""
    table = unmoved_predictions(backbone, models[0], head, dataset(), HALVES, Counted(backbone))
    assert set(table["half"]) == {"base"} and len(table) == 20 * 8
    parts = decompose(table.assign(task="toy", method="head", seed=0), np.random.default_rng(0), 50)
    values = parts[parts["seed"] == "all"].set_index(["outcome", "players", "part"])["estimate"]
    for outcome in ("accuracy", "log_likelihood"):
        assert values[outcome, 2, "perception"] == values[outcome, 3, "blocks"] == 0
        assert values[outcome, 2, "mapping"] == values[outcome, 2, "gain"]
    assert values["log_likelihood", 2, "gain"] != 0
    head.missing_note = lambda names: "no weights"
    with pytest.raises(ConceptBenchError, match="no half of data set 'toy'"):
        unmoved_predictions(backbone, models[0], head, dataset(), HALVES, Counted(backbone))


def test_a_split_or_a_class_without_images_is_refused(backbone: Backbone, models) -> None:
    empty = dataset()
    empty.rows = lambda split: np.arange(0)
    with pytest.raises(
        ConceptBenchError, match="Class 'a' of data set 'toy' has no images in its val split; give it some or"
    ):
        hybrid_predictions(backbone, models[0], models[2], empty, HALVES, block=BLOCK, progress=False)
    lacking = dataset()
    lacking.rows = lambda split: np.arange(8) if split == "val" else np.arange(8, 48)[np.arange(40) % 4 != 3]
    with pytest.raises(ConceptBenchError, match="Class 'd' of data set 'toy' has no images in its test split"):
        hybrid_predictions(backbone, models[0], models[2], lacking, HALVES, block=BLOCK, progress=False)
    with pytest.raises(ConceptBenchError, match="at least one"):
        mean_prompt_states(backbone, models[2], iter([]), BLOCK)
