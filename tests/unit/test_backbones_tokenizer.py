"""The small vocabulary: learned from a corpus, read by open_clip's own tokenizer."""

import gzip
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptbench.backbones.tokenizer import learn_merges, load_tokenizer, vocabulary_size, write_vocabulary
from conceptbench.errors import ConceptBenchError

CORPUS = ["a red circle left of a blue square", "a Red circle!", "two green triangles", "a photo of a café"] * 3


def test_words_of_the_corpus_become_one_token(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt.gz"
    size = write_vocabulary(CORPUS, 2000, path)
    tokenizer = load_tokenizer(path, 16)
    assert len(tokenizer.encode("a red circle left of a blue square")) == 8
    assert len(tokenizer.encode("A photo of a café!")) == 6
    assert size == vocabulary_size(path) == tokenizer.eot_token_id + 1
    assert tokenizer.eot_token_id == max(tokenizer.encoder.values())


def test_tokens_have_start_end_and_zero_padding(tmp_path: Path) -> None:
    write_vocabulary(CORPUS, 100, tmp_path / "m.gz")
    tokenizer = load_tokenizer(tmp_path / "m.gz", 6)
    ids = tokenizer(["red circle", "a red circle left of a blue square"])
    assert ids.shape == (2, 6)
    assert ids[0, 0] == tokenizer.sot_token_id and ids[0, 3] == tokenizer.eot_token_id and ids[0, 4:].sum() == 0
    assert ids[1, -1] == tokenizer.eot_token_id
    assert tokenizer.decode(tokenizer.encode("red circle")).strip() == "red circle"


def test_unseen_words_still_have_tokens(tmp_path: Path) -> None:
    write_vocabulary(CORPUS, 20, tmp_path / "m.gz")
    tokenizer = load_tokenizer(tmp_path / "m.gz", 32)
    ids = tokenizer.encode("zygote Ωmega 7")
    assert ids and max(ids) < vocabulary_size(tmp_path / "m.gz")
    assert tokenizer.decode(ids).strip() == "zygote ωmega 7"


def test_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    write_vocabulary(CORPUS, 30, tmp_path / "one.gz")
    write_vocabulary(reversed(CORPUS), 30, tmp_path / "two.gz")
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


def test_most_frequent_pair_first_ties_lexicographic() -> None:
    assert learn_merges(Counter({"ab": 2, "cd": 3}), 5) == [("c", "d</w>"), ("a", "b</w>")]
    assert learn_merges(Counter({"cd": 2, "ab": 2}), 1) == [("a", "b</w>")]


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=6), st.integers(1, 5), min_size=1, max_size=6))
def test_merges_do_not_depend_on_order_and_stop_when_words_are_whole(words: dict[str, int]) -> None:
    forward = learn_merges(Counter(words), 1000)
    backward = learn_merges(Counter(dict(reversed(words.items()))), 1000)
    assert forward == backward
    assert len(forward) == len(set(forward)) <= sum(len(word) for word in words)
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary([" ".join([word] * times) for word, times in words.items()], 1000, Path(folder) / "m.gz")
        tokenizer = load_tokenizer(Path(folder) / "m.gz", 8)
        assert all(len(tokenizer.encode(word)) == 1 for word in words)


def test_bad_vocabularies_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match=r"gone\.gz.*missing"):
        load_tokenizer(tmp_path / "gone.gz", 8)
    (tmp_path / "text.gz").write_text("not gzip")
    with pytest.raises(ConceptBenchError, match=r"text\.gz.*not a readable vocabulary"):
        vocabulary_size(tmp_path / "text.gz")
    (tmp_path / "newline.gz").write_bytes(gzip.compress(b"#version\na b\n"))
    with pytest.raises(ConceptBenchError, match="line 3"):
        load_tokenizer(tmp_path / "newline.gz", 8)
    with pytest.raises(ConceptBenchError, match="no words"):
        write_vocabulary(["  "], 10, tmp_path / "m.gz")
    with pytest.raises(ConceptBenchError, match="n_merges"):
        write_vocabulary(CORPUS, 60_000, tmp_path / "m.gz")
    assert not (tmp_path / "m.gz").exists()
