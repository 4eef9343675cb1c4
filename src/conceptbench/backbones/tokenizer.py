"""A small byte-pair vocabulary that a backbone brings along, read by open_clip's own tokenizer.

A reduced backbone would spend most of its weights on the token table of the 49,408-entry CLIP vocabulary. The file
written here, `merges.txt.gz`, has the format of open_clip's `bpe_simple_vocab_16e6.txt.gz` (a header line, then one
merge per line) but holds only the merges that a given corpus needs. There is no newline after the last merge:
open_clip would count the empty line as one more entry of the vocabulary.
"""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import atomic_write

HEADER = "#version: 0.2"
"""First line of a vocabulary file; open_clip skips it."""

MERGES_FILE = "merges.txt.gz"
"""Name of the vocabulary file inside a backbone's folder."""

MAX_MERGES = 49152 - 256 - 2
"""open_clip reads no more merges than this."""

_BYTE_ENTRIES = 512
_SPECIAL_ENTRIES = 2

Pair = tuple[str, str]
Word = tuple[str, ...]


def write_vocabulary(corpus: Iterable[str], n_merges: int, path: Path | str) -> int:
    """Learn at most `n_merges` byte-pair merges from `corpus` and write them to `path`.

    The most frequent neighbouring pair is merged first, ties are broken by the pair itself, and the compressed file
    carries no time stamp, so the same corpus gives the same bytes. Learning stops early when every word of the
    corpus is one token. Text is cleaned and split exactly as open_clip's tokenizer does it.

    Returns the number of entries of the vocabulary (see `vocabulary_size`), the token table's number of rows.
    Raises ConceptBenchError when the corpus has no words or `n_merges` is out of range.
    """
    if not 0 <= n_merges <= MAX_MERGES:
        raise ConceptBenchError(f"{path}: n_merges must lie between 0 and {MAX_MERGES}, not {n_merges}.")
    words = count_words(corpus)
    if not words:
        raise ConceptBenchError(f"{path}: the corpus of the vocabulary has no words; give it the captions to cover.")
    merges = learn_merges(words, n_merges)
    text = "\n".join([HEADER, *(" ".join(pair) for pair in merges)])
    with atomic_write(path) as partial:
        partial.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    return _BYTE_ENTRIES + len(merges) + _SPECIAL_ENTRIES


def vocabulary_size(path: Path | str) -> int:
    """Number of token ids of the vocabulary at `path`: 256 bytes twice (inside and at the end of a word), one per
    merge, start and end of text. The end of text has the largest id, as CLIP's text pooling needs."""
    return _BYTE_ENTRIES + len(_read_merges(path)) + _SPECIAL_ENTRIES


def load_tokenizer(path: Path | str, context_length: int) -> SimpleTokenizer:
    """open_clip's tokenizer over the vocabulary at `path`: list of texts -> long tensor [text, context_length].

    Raises ConceptBenchError when the file is missing or is not such a vocabulary.
    """
    _read_merges(path)
    return SimpleTokenizer(bpe_path=str(path), context_length=context_length)


def count_words(corpus: Iterable[str]) -> Counter[str]:
    """How often each word of `corpus` occurs, words as open_clip's tokenizer cuts them, in its byte alphabet."""
    reference = SimpleTokenizer()
    counts: Counter[str] = Counter()
    for text, times in Counter(corpus).items():
        for word in reference.pat.findall(reference.clean_fn(text)):
            counts["".join(reference.byte_encoder[byte] for byte in word.encode("utf-8"))] += times
    return counts


def learn_merges(words: Counter[str], n_merges: int) -> list[Pair]:
    """The first `n_merges` byte-pair merges over `words` (Sennrich et al. 2016), ties broken lexicographically."""
    pieces: dict[str, Word] = {word: (*word[:-1], word[-1] + "</w>") for word in words}
    pair_counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[str]] = defaultdict(set)
    for word, parts in pieces.items():
        for pair in pairwise(parts):
            pair_counts[pair] += words[word]
            where[pair].add(word)
    ranks: dict[Pair, int] = {}
    while len(ranks) < n_merges and pair_counts:
        best = min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))
        ranks[best] = len(ranks)
        for word in where.pop(best):
            before = pieces[word]
            after = _settle(before, ranks)
            pieces[word] = after
            for pair in pairwise(before):
                pair_counts[pair] -= words[word]
                if pair_counts[pair] <= 0:
                    del pair_counts[pair]
            for pair in pairwise(after):
                pair_counts[pair] += words[word]
                where[pair].add(word)
    return list(ranks)


def _settle(parts: Word, ranks: dict[Pair, int]) -> Word:
    """`parts` after every known merge, earliest first: a new part can complete a pair that was learned before."""
    while known := [pair for pair in pairwise(parts) if pair in ranks]:
        parts = _merge(parts, min(known, key=ranks.__getitem__))
    return parts


def _merge(parts: Word, pair: Pair) -> Word:
    """`parts` with every occurrence of `pair`, from the left, joined into one part."""
    merged: list[str] = []
    i = 0
    while i < len(parts):
        if parts[i : i + 2] == pair:
            merged.append(parts[i] + parts[i + 1])
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return tuple(merged)


def _read_merges(path: Path | str) -> list[Pair]:
    """The merges of the file at `path`, in order; refuses what open_clip would silently misread."""
    if not Path(path).is_file():
        raise ConceptBenchError(f"{path}: the vocabulary file is missing; write it or restore the backbone's folder.")
    try:
        lines = gzip.decompress(Path(path).read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConceptBenchError(f"{path}: not a readable vocabulary ({error}); write or restore it again.") from error
    merges: list[Pair] = []
    for number, line in enumerate(lines[1 : 1 + MAX_MERGES], start=2):
        parts = line.split()
        if len(parts) != 2:
            raise ConceptBenchError(
                f"{path}: line {number} is {line!r}, but each line after the header is one merge of two parts and the "
                "file ends without a newline; write the vocabulary again."
            )
        merges.append((parts[0], parts[1]))
    return merges
