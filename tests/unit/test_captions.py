"""Captions and prompts: deterministic, truthful, and made of words that the small vocabulary holds whole."""

from pathlib import Path

import numpy as np
import pytest

from conceptbench.backbones.pretrain import write_recipe_vocabulary
from conceptbench.backbones.pretrain_batches import token_ids
from conceptbench.backbones.tokenizer import load_tokenizer
from conceptbench.data.captions import (
    BACKGROUND_WORDS,
    COLOUR_WORDS,
    FILL_WORDS,
    NOUN_SHARE,
    PLACE_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    captions,
)
from conceptbench.data.prompts import PROMPTED, factor_prompts
from conceptbench.data.scenes import SHAPE, Scenes, kind_members, sample_scenes
from conceptbench.data.vocabulary import BACKGROUNDS, KINDS, OBJECT_FACTORS
from conceptbench.data.web import web_pictures

WORDS = {
    "shape": SHAPE_WORDS,
    "colour": COLOUR_WORDS,
    "fill": FILL_WORDS,
    "size": SIZE_WORDS,
    "place": PLACE_WORDS,
    "background": BACKGROUND_WORDS,
}


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return sample_scenes(0, "captions", np.arange(600))


def tells(text: str, factor: str, value: str) -> bool:
    """Whether a text has a word for the value of a factor."""
    return any(f" {word} " in f" {text} " for word in WORDS[factor][value])


def test_captions_are_pure_functions_of_scene_and_variant(scenes: Scenes) -> None:
    first = captions(scenes)
    assert first == captions(scenes)
    assert captions(scenes[100:140]) == first[100:140]
    assert sum(a != b for a, b in zip(first, captions(scenes, 1), strict=True)) > 500


def test_full_captions_tell_everything(scenes: Scenes) -> None:
    for i, text in enumerate(captions(scenes, full=True)):
        assert tells(text, "background", BACKGROUNDS[scenes.backgrounds[i]])
        phrases = text.split(" and ")
        present = scenes.objects[i][scenes.objects[i, :, SHAPE] >= 0]
        assert len(phrases) == len(present)
        for factors in present:
            named = {
                factor: values[number] for (factor, values), number in zip(OBJECT_FACTORS.items(), factors, strict=True)
            }
            assert any(all(tells(phrase, *pair) for pair in named.items()) for phrase in phrases)


def test_captions_tell_nothing_that_is_not_there(scenes: Scenes) -> None:
    for i, text in enumerate(captions(scenes)):
        shown = {"background": {BACKGROUNDS[scenes.backgrounds[i]]}}
        present = scenes.objects[i][scenes.objects[i, :, SHAPE] >= 0]
        for column, (factor, values) in enumerate(OBJECT_FACTORS.items()):
            shown[factor] = {values[number] for number in present[:, column]}
        for factor, table in WORDS.items():
            assert {value for value in table if tells(text, factor, value)} <= shown[factor]


def test_captions_are_a_partial_view(scenes: Scenes) -> None:
    texts = captions(scenes)
    told = np.mean([tells(t, "background", BACKGROUNDS[b]) for t, b in zip(texts, scenes.backgrounds, strict=True)])
    assert told == pytest.approx(0.6, abs=0.06)
    assert len(set(texts)) > 550


def test_nouns_name_half_of_the_members_of_a_kind() -> None:
    single = sample_scenes(0, "nouns", np.arange(6000), n_objects=(1.0, 0.0, 0.0))
    kind = kind_members(single)[:, 0]
    used = np.array([[f" {noun} " in f" {text} " for noun in KINDS] for text in captions(single)])
    members = kind >= 0
    assert members.sum() > 1000
    assert used[members, kind[members]].mean() == pytest.approx(NOUN_SHARE, abs=0.04)
    used[members, kind[members]] = False
    assert not used.any()
    assert not any(noun in text.split() for text in captions(single[:500], full=True) for noun in KINDS)


def test_every_word_is_one_token_and_ids_are_the_tokenizers(scenes: Scenes, tmp_path: Path) -> None:
    write_recipe_vocabulary(tmp_path / "merges.txt.gz")
    tokenize = load_tokenizer(tmp_path / "merges.txt.gz", 48)
    texts = [*captions(scenes[:100]), *captions(scenes[:200], full=True), *web_pictures(0, "w", np.arange(60))[1]]
    texts += [text for factor in PROMPTED for prompts in factor_prompts(factor).values() for text in prompts[:8]]
    ids = tokenize(texts).numpy()
    assert [int((row != 0).sum()) for row in ids] == [len(text.split()) + 2 for text in texts]
    assert (ids != 0).sum(axis=1).max() < 48
    assert np.array_equal(np.stack([token_ids(tokenize, text) for text in texts]), ids)


def test_ids_of_a_long_text_end_with_the_end_token(tmp_path: Path) -> None:
    write_recipe_vocabulary(tmp_path / "merges.txt.gz")
    tokenize = load_tokenizer(tmp_path / "merges.txt.gz", 8)
    text = "a small solid red circle in the top left on sand"
    assert np.array_equal(token_ids(tokenize, text), tokenize([text])[0].numpy())


@pytest.mark.parametrize("factor", PROMPTED)
def test_prompts_ask_for_every_value_and_for_no_other(factor: str) -> None:
    prompts = factor_prompts(factor)
    assert tuple(prompts) == PROMPTED[factor]
    for value, texts in prompts.items():
        assert len(set(texts)) == len(texts) >= 4
        for text in texts:
            if factor == "kind":
                assert [noun for noun in KINDS if noun in text.split()] == [value]
            else:
                assert [name for name in WORDS[factor] if tells(text, factor, name)] == [value]
