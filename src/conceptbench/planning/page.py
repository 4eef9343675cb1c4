"""docs/scale.md: what experiments take, from the small default to the papers' full settings and beyond."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conceptbench.config import load_config
from conceptbench.config.backbones import Named
from conceptbench.config.named_backbones import NAMED
from conceptbench.planning.images import PUBLISHED
from conceptbench.planning.jobs import VALUE_BYTES
from conceptbench.planning.measuring import LARGEST_ASSIGNMENT
from conceptbench.planning.plan import make_plan
from conceptbench.planning.rates import Rates
from conceptbench.planning.schedule import Machine
from conceptbench.planning.text import hours, plan_text, size
from conceptbench.planning.towers import tower_of

GPU_TFLOPS: Final = 100.0
"""1e12 operations a second that a GPU is assumed to keep up; not measured."""
_SHOWN: Final = (
    *("clip-vit-b32-openai", "clip-vit-b16-openai", "clip-vit-l14-openai", "siglip2-vit-b16"),
    *("dinov2-vit-b14-reg", "dinov2-vit-l14-reg", "aimv2-vit-l14"),
)


@dataclass(frozen=True)
class Setting:
    """An experiment on a machine."""

    title: str
    text: str
    overlays: tuple[str, ...]
    machine: Machine
    changes: Mapping[str, Any] = field(default_factory=dict)


_BEYOND: Final[dict[str, Any]] = {
    "experiment": "beyond",
    "backbones": {"clip-b16": {"kind": "named", "model": "clip-vit-l14-openai"}},
    "hooks": {"clip-b16": [11, 16, 22]},
    "record": {"jobs": 64, "precision": "bfloat16"},
    "dictionaries": {"methods": {"patchsae": {"width": 65536}, "random": {"width": 65536}}},
    "measures": {"block": 22},
}

SETTINGS: Final = (
    Setting("The default experiment", "`config.yaml`, on the machine of the rates.", (), Machine(2)),
    Setting("A laptop", "`examples/laptop.yaml`.", ("laptop.yaml",), Machine(4)),
    Setting(
        "PatchSAE's full setting, no GPU",
        "`examples/paper.yaml`: CLIP ViT-B/16, ImageNet, 49,152 latents, three seeds, MaPLe on eleven tasks.",
        ("paper.yaml",),
        Machine(64),
    ),
    Setting(
        "PatchSAE's full setting, eight GPUs",
        "The same with GPUs for all jobs that can use one.",
        ("paper.yaml",),
        Machine(64, 8),
    ),
    Setting(
        "Beyond",
        "CLIP ViT-L/14 at three hook points, 65,536 latents, recorded by 64 jobs in bfloat16.",
        ("paper.yaml",),
        Machine(256, 16),
        _BEYOND,
    ),
)


def scale_page(root: Path, rates: Rates) -> str:
    """Return docs/scale.md.

    Args:
        root: the checkout, whose configuration and examples are planned. rates: what work costs.
    """
    parts = [_head(rates), *(_section(setting, root, rates) for setting in SETTINGS), _activations(rates)]
    return "\n".join(parts)


def _head(rates: Rates) -> str:
    cpu = f"{rates.machine.get('cores', '?')} cores of {rates.machine.get('cpu', 'an unknown CPU')}"
    return f"""# Scale

Written by `conceptbench scale` from `reference/rates.json`; do not edit. `conceptbench plan --configfile my.yaml` says
the same of any experiment before it runs, and the workflow refuses to start when its results do not fit on the disk.

A plan counts the work in every job (images, tokens, steps, operations: `conceptbench.planning.jobs`) and multiplies it
with rates: seconds a unit of work, by rule. They come from the records that the jobs of finished runs leave
(`conceptbench rates results/testbed`), and from benchmarks at real widths where the small backbones say nothing
(`benchmarks/results/`). Bytes follow from shapes; memory is what a rule's process took, and the arrays that grow. Wall
time is that of a schedule on the cores and GPUs given. Rates were measured on {cpu}
with {", ".join(rates.runs)}.

**No GPU was measured.** Where GPUs are planned, {GPU_TFLOPS:.0f} TFLOP/s are assumed of each for the operations of jobs
that can use one; what is not counted in operations (start-up, reading, statistics) stays at the CPU's measured rate.
Downloads are not counted. A star marks stages of which some work has no measured rate.

What such plans show: up to {LARGEST_ASSIGNMENT:,} latents `measure_stability` assigns those of two seeds one to one,
which costs the cube of the width; wider dictionaries, as in the papers, take mutual nearest neighbours, which costs its
square. A measure reads the codes of one dictionary as a whole, so at full size those need the most memory. Every rule
asks for the memory that the plan of its experiment says here, and for twice as much at a second attempt.
"""


def _section(setting: Setting, root: Path, rates: Rates) -> str:
    overlays = [root / "examples" / name for name in setting.overlays]
    config = load_config(root / "config.yaml", *overlays, {"data_root": "data"}, setting.changes)
    plan = make_plan(config, rates, setting.machine, GPU_TFLOPS if setting.machine.gpus else None)
    return f"## {setting.title}\n\n{setting.text}\n\n```text\n{plan_text(plan, rates)}\n```\n"


def _activations(rates: Rates) -> str:
    lines = [
        "## Activations of ImageNet",
        "",
        f"One hook point, the last but one block, {PUBLISHED['imagenet'].all:,} images, float16. The time is that of "
        "the forward pass on the measured CPU, one job after another; `record.jobs` divides it.",
        "",
        "| backbone | tokens | features | 1e9 operations an image | an image | stored | time |",
        "|---|---|---|---|---|---|---|",
        *_rows(rates),
        "",
    ]
    return "\n".join(lines)


def _rows(rates: Rates) -> Iterator[str]:
    seconds = rates.rules["record_activations"].seconds
    for name in _SHOWN:
        tower = tower_of(name, Named(kind="named", model=name))
        gflop = tower.image_gflop(NAMED[name].blocks - 2)
        each = tower.image.tokens * tower.image.width * VALUE_BYTES
        images = PUBLISHED["imagenet"].all
        took = images * (gflop * seconds.get("forward_gflop", 0.0) + seconds.get("pass", 0.0))
        yield (
            f"| {name} | {tower.image.tokens} | {tower.image.width} | {gflop:.1f} | {each / 1e3:,.0f} kB | "
            f"{size(each * images)} | {hours(took)} |"
        )
