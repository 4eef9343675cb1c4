"""What the rule that learns dictionaries does: in the job itself, or in several processes with a GPU each.

`python _learning_together.py <folder>` is one of these processes; the folder holds its request.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from _job import data_root, device, gpus_granted
from _learning import HELD_OUT_IMAGES, digest_of_files, learn_from, open_tokens, place

from conceptbench.data import open_dataset
from conceptbench.dictionaries import specify
from conceptbench.dictionaries.distributed import is_first
from conceptbench.dictionaries.ledger import Ledger
from conceptbench.dictionaries.processes import member, run_group
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import rng
from conceptbench.tables import read_json, write_json


@dataclass(frozen=True)
class Request:
    """What to learn, from what, and where, in plain values, so that another process can be asked for it."""

    spec: Mapping[str, Any]
    """The rule's stamp."""
    inputs: Mapping[str, str]
    """The rule's single files by name."""
    key: str
    """Digest of everything that the job depends on."""
    out: str
    """Folder of the dictionaries, with their checkpoints."""
    data_root: str | None
    device: str

    @classmethod
    def of(cls, snakemake: Any, spec: Mapping[str, Any]) -> "Request":
        """Read it off a job."""
        inputs = {name: file for name, file in snakemake.input.items() if isinstance(file, str)}
        root, out = data_root(snakemake), Path(snakemake.output.manifest).parent
        return cls(
            spec, inputs, digest_of_files(snakemake.input), str(out), str(root) if root else None, device(snakemake)
        )

    def ledger(self) -> Ledger:
        """The parts that are learnt, and the checkpoints of the one that is not."""
        return Ledger(Path(self.out) / "checkpoints", self.key)


def processes_of(snakemake: Any) -> int:
    """Processes of a job: `dictionaries.gpus`, as far as the GPUs that it was granted go; 1 where it got none."""
    wanted, granted = int(snakemake.config["dictionaries"].get("gpus", 1)), gpus_granted(snakemake.resources)
    taken = max(1, min(wanted, granted))
    if taken < wanted:
        print(f"dictionaries.gpus is {wanted}, but {granted} were granted: learning in {taken} process(es)")
    return taken


def learn(request: Request, processes: int, threads: int) -> dict[str, str]:
    """Learn everything in this process, or in several others together.

    Returns:
        the cards of all dictionaries by their names in the manifest.

    Raises:
        ConceptBenchError: as `learn_many`; when a device has a number, which only one process can use; when one of the
            processes fails.
    """
    if processes == 1:
        return learn_blocks(request, request.device)
    if ":" in request.device:
        raise ConceptBenchError(
            f"device: {request.device} is one GPU, but dictionaries.gpus asks for {processes}; set device: auto."
        )
    print(f"learning in {processes} processes on {request.device}", flush=True)
    with TemporaryDirectory(prefix="conceptbench-") as name:
        folder = Path(name)
        write_json(asdict(request), folder / "request.json")
        run_group([sys.executable, __file__, name], processes, folder, threads)
        return dict(read_json(folder / "learnt.json"))


def learn_blocks(request: Request, device: str) -> dict[str, str]:
    """Learn every dictionary (method, seed, half) at every hook point: one pass over the tokens of a block for each."""
    spec, inputs = request.spec, SimpleNamespace(**request.inputs)
    root = Path(request.data_root) if request.data_root else None
    dataset = open_dataset(Path(inputs.dataset).parent, root)
    tokens = open_tokens(inputs, dataset, spec, device)
    methods = [specify(name=name, **options) for name, options in spec["methods"].items()]
    rows = dataset.sample("train", spec["images"], spec["seed"])
    held_out = dataset.sample("val", HELD_OUT_IMAGES, spec["seed"])
    halved = [method for method in methods if method.name in spec["halves"]]
    halves = np.array_split(rng(spec["seed"], "halves").permutation(rows), 2) if halved else []
    runs = [
        ("seed", "seed", methods, spec["seeds_of"], rows),
        *((f"half{at}", "half", halved, [at], images) for at, images in enumerate(halves)),
    ]
    out, ledger, files = Path(request.out), request.ledger(), {}
    for block, (part, kind, chosen, seeds, images) in product(spec["blocks"], runs):
        run = partial(learn_from, tokens, block, chosen, seeds, (images, held_out), spec, device)
        saved = ledger.part(f"block{block}-{part}", run, place(out / f"block{block}", kind))
        for (name, seed), folder in saved.items():
            run_name = f"{seed}" if kind == "seed" else f"{kind}{seed}"
            files[f"{block}.{name}.{run_name}"] = str(folder / "card.json")
    return files


def take_part(folder: Path) -> None:
    """Be one of the processes that `learn` starts; the first one says what was learnt."""
    request = Request(**read_json(folder / "request.json"))
    with member(folder, request.device) as place_of:
        files = learn_blocks(request, str(place_of))
        if is_first():
            write_json(files, folder / "learnt.json")


if __name__ == "__main__":
    take_part(Path(sys.argv[1]))
