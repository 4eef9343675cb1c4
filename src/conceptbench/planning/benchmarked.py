"""Work at real sizes that was timed by benchmarks: what the small backbones of finished runs cannot tell.

A rate of 128 features and 1,024 latents says little about 768 and 49,152. Benchmarks that run our own code on such
shapes stand beside the jobs of finished runs when rates are made.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conceptbench.config.backbones import OpenClip
from conceptbench.errors import ConceptBenchError
from conceptbench.planning.jobs import Unit
from conceptbench.planning.towers import tower_of
from conceptbench.tables import read_json

SECONDS: Final = 30.0
"""Every sample is as much work as takes this long, so that none outweighs the jobs."""
_BASE: Final = tower_of("ViT-B/16", OpenClip(kind="open_clip", model="ViT-B-16-quickgelu", pretrained="openai"))


@dataclass(frozen=True)
class Sample:
    """Work of one rule and what it took."""

    rule: str
    amounts: Mapping[Unit, float]
    seconds: float


def read_samples(folder: Path) -> list[Sample]:
    """Return the samples of the benchmarks of a folder.

    Raises:
        ConceptBenchError: when one of them was not run. Without it the rates would still look complete, and be wrong by
            a multiple for models of published size.
    """
    missing = [f"{name}.json" for name in READERS if not (folder / f"{name}.json").is_file()]
    if missing:
        raise ConceptBenchError(
            f"{folder} lacks {', '.join(missing)}, which tell what work costs at published sizes; name the folder of "
            "their results (--benchmarks), or measure them: make bench."
        )
    return [
        sample
        for name, read in READERS.items()
        for row in read_json(folder / f"{name}.json")["rows"]
        for sample in read(row)
    ]


def _sample(rule: str, amounts: Mapping[Unit, float], rate: float) -> Sample:
    """`amounts` are those of one thing, of which `rate` were done a second."""
    count = SECONDS * rate
    return Sample(rule, {unit: amount * count for unit, amount in amounts.items()}, SECONDS)


def _learning(row: Mapping[str, Any]) -> Iterator[Sample]:
    if row["toolkit"] == "conceptbench" and row["setting"] == "as shipped" and row.get("tokens_per_s"):
        gflop = 2 * row["d"] * row["width"] / 1e9
        yield _sample("learn_dictionaries", {"token": 1, "learning_gflop": gflop}, row["tokens_per_s"])


def _adapting(row: Mapping[str, Any]) -> Iterator[Sample]:
    if row["setting"] == "ours" and row["model"].startswith("ViT-B/16"):
        gflop = 3 * (row["batch"] * _BASE.image_gflop() + row["classes"] * _BASE.text_gflop())
        yield _sample("adapt", {"step": 1, "training_gflop": gflop}, row["steps_per_s"])


def _recording(row: Mapping[str, Any]) -> Iterator[Sample]:
    if row["method"] == "record" and row["model"] == "ViT-B/16":
        yield _sample("record_activations", {"pass": 1, "forward_gflop": row["gflop"]}, row["images_per_s"])
    if row["method"] == "verify":
        yield _sample("gather_activations", {"stored_gib": 1}, row["gib_per_s"])
    if row["method"] == "decode":
        yield _sample("photographs", {"file": 1}, row["images_per_s"])


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[Sample]]]] = {
    "sae_training": _learning,
    "maple_step": _adapting,
    "recording": _recording,
}
"""Benchmarks, by the name of their results, and what a row of them says."""
