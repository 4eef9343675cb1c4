"""Whether the disks have the room: for results, for what is downloaded below `data_root`, and for the hub's cache."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conceptbench.config.backbones import Named, OpenClip
from conceptbench.config.datasets import is_published
from conceptbench.config.named_backbones import NAMED
from conceptbench.data.catalogue import SOURCES, Part
from conceptbench.errors import ConceptBenchError
from conceptbench.planning.jobs import Study
from conceptbench.planning.pipeline import FLOAT

if TYPE_CHECKING:
    from conceptbench.planning.plan import Plan

GIGA: Final = 1e9
HUB_PREFIX: Final = "hf-hub:"


@dataclass(frozen=True)
class Demand:
    """Room that a folder will need."""

    what: str
    folder: Path
    bytes: float
    remedy: str
    """What to do besides freeing room."""


def demands(study: Study) -> tuple[Demand, ...]:
    """Return what an experiment needs outside of its results; what is there already is not counted.

    Downloads are counted where their size is known (`data/catalogue.py`), archives with what is unpacked from them,
    which is about as large because pictures are compressed already.
    """
    found = [*_downloads(study), *_weights(study)]
    return tuple(demand for demand in found if demand.bytes > 0)


def cached_bytes(study: Study) -> float:
    """Return the bytes of weights that the plan counts with the backbones and the hub keeps in its cache."""
    return sum(_fetched(study).values())


def largest_code(study: Study) -> float:
    """Return the bytes of the largest file of codes, which for a moment lies on the disk twice: in parts and joined."""
    return max(
        (
            study.token_bytes(one) * study.images[dataset].measured * study.towers[name].image.tokens
            for name in study.config.hooks
            for dataset in study.config.recorded(name)
            for one in study.dictionaries(name)
        ),
        default=0.0,
    )


def require_disk(plan: "Plan", results: Path) -> None:
    """Refuse an experiment that cannot fit on one of its disks; what lies in the results already counts as done.

    Args:
        plan: the plan.
        results: `results/<experiment>`, which need not exist yet.

    Raises:
        ConceptBenchError: with the space needed and the space free.
    """
    own = Demand("results", results, plan.bytes - plan.cached + plan.passing, "record fewer images or blocks")
    disks: dict[int, list[Demand]] = {}
    for demand in (own, *plan.elsewhere):
        disks.setdefault(file_system(demand.folder), []).append(demand)
    for share in disks.values():
        free = shutil.disk_usage(_existing(share[0].folder)).free
        needed = sum(demand.bytes for demand in share)
        if needed <= free:
            continue
        mine = results.rglob("*") if own in share else ()
        there = sum(path.stat().st_size for path in mine if path.is_file())
        if needed - there > free:
            raise ConceptBenchError(_refusal(plan, share, own, needed, there, free))


def file_system(folder: Path) -> int:
    """Return which file system a folder lies on, or will lie on."""
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def _refusal(plan: "Plan", share: list[Demand], own: Demand, needed: float, there: float, free: float) -> str:
    parts = {demand.what: demand.bytes for demand in share if demand is not own}
    if own in share:
        parts |= {name: size - (plan.cached if name == "backbones" else 0) for name, size in plan.folders.items()}
    largest = max(parts, key=lambda name: parts[name])
    remedy = next((demand.remedy for demand in share if demand.what == largest), own.remedy)
    places, lacking = " and ".join(str(demand.folder) for demand in share), needed - there - free
    return (
        f"Experiment {plan.experiment} needs {needed / GIGA:.1f} GB on the disk of {places}, which has "
        f"{free / GIGA:.1f} GB free and {there / GIGA:.1f} GB of it; free {lacking / GIGA:.1f} GB, most of it is "
        f"for {largest} ({parts[largest] / GIGA:.1f} GB), or {remedy}."
    )


def _downloads(study: Study) -> Iterator[Demand]:
    config = study.config
    if config.downloads == "never" or config.data_root is None:
        return
    root, remedy = Path(config.data_root), "set data_root to a folder on a larger disk"
    used = {config.datasets[name].kind for name in config.used_datasets() if is_published(config.datasets[name])}
    for kind in sorted(used):
        missing = [part for part in SOURCES[kind].parts if not any((root / path).exists() for path in part.found_at)]
        needed = sum(_part_bytes(part, root, kind) for part in missing)
        yield Demand(f"the download of {kind}", root, needed, remedy)


def _part_bytes(part: Part, root: Path, kind: str) -> float:
    """Bytes that the download of a part will still add; 0 where its size is not known."""
    if part.bytes is None or not part.downloads:
        return 0.0
    if part.shards is not None:
        from conceptbench.data.hub import unpacked_bytes  # brings the hub's client, which most plans do not need

        return max(0.0, part.bytes - unpacked_bytes(root / part.found_at[0]))
    target = root / "downloads" / kind / part.name if part.archive else root / part.place / part.name
    come = max((path.stat().st_size for path in target.parent.glob(f"{part.name}*") if path.is_file()), default=0)
    return max(0.0, part.bytes - come) + (part.bytes if part.archive else 0.0)


def _weights(study: Study) -> Iterator[Demand]:
    fetched = _fetched(study)
    if not fetched:
        return
    from huggingface_hub.constants import HF_HUB_CACHE  # only where something is fetched

    cache = Path(HF_HUB_CACHE)
    needed = sum(size for name, size in fetched.items() if not _is_cached(study, name, cache))
    yield Demand("the hub's cache", cache, needed, "set HF_HOME to a folder on a larger disk")


def _fetched(study: Study) -> dict[str, float]:
    """Bytes of the weights of every backbone that comes from the hub."""
    specs = study.config.backbones
    return {
        name: float(tower.weights * FLOAT)
        for name, tower in study.towers.items()
        if isinstance(specs[name], Named | OpenClip)
    }


def _is_cached(study: Study, name: str, cache: Path) -> bool:
    """Whether the cache has the repository of a backbone; a tag of open_clip does not tell its repository."""
    spec = study.config.backbones[name]
    repository = NAMED[spec.model].repository if isinstance(spec, Named) else ""
    if isinstance(spec, OpenClip) and spec.model.startswith(HUB_PREFIX):
        repository = spec.model.removeprefix(HUB_PREFIX)
    return bool(repository) and (cache / f"models--{repository.replace('/', '--')}" / "snapshots").is_dir()
