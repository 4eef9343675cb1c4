"""What every script does around its one library call: log, threads, time, and one clear sentence when input is bad."""

import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from threadpoolctl import threadpool_limits

from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import code_at_start, write_job_record
from conceptbench.tables import write_json


@contextmanager
def job(snakemake: Any) -> Iterator[dict[str, Any]]:
    """Run the body of a script; yields the rule's parameters (its stamp).

    Everything printed goes to the rule's log. The seconds of the body and of the process before it are written beside
    the log, so that work can be told from start-up; code, machine and versions go to the job's record, of which the
    manifest of the run is made: the code as it was when the job began, and whether it was another at the end. A
    ConceptBenchError ends the job with its one sentence.
    """
    code_at_start()
    log = Path(str(snakemake.log))
    console = os.dup(2)
    with log.open("w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        _use_threads(int(snakemake.threads))
        began, started = psutil.Process().create_time(), time.time()
        try:
            yield read_stamp(snakemake)
            read_stamp(snakemake)
        except ConceptBenchError as error:
            print(f"Error: {error}", file=sys.stderr)
            os.write(console, f"Error in rule {snakemake.rule}: {error}\n".encode())
            os._exit(1)
        except Exception:
            traceback.print_exc()
            raise
        now = time.time()
        timing = {"work_seconds": now - started, "start_up_seconds": started - began, "ended": now}
        write_json({"rule": snakemake.rule, **timing}, log.with_suffix(".timing.json"))
        granted = gpus_granted(snakemake.resources)
        write_job_record(_record_of(log), rule=snakemake.rule, gpus=granted, seconds=now - started)
        print(f"work {now - started:.1f} s after {started - began:.1f} s of start-up", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os.dup2(console, 2)


def read_stamp(snakemake: Any) -> dict[str, Any]:
    """The parameters of a job, which must be those it was planned with: as it begins, and still when it ends.

    Raises:
        ConceptBenchError: when the stamp was written anew since the rules were read, by a run of another configuration.
    """
    stamp = Path(snakemake.input.stamp)
    text = stamp.read_bytes() if stamp.exists() else b""
    if hashlib.sha256(text).hexdigest() != snakemake.config["stamps"].get(stamp.stem):
        raise ConceptBenchError(
            f"The parameters in {stamp} are no longer those of this run: its experiment was read with another "
            "configuration meanwhile, perhaps by a dry run; run this one again, and give the other one another name."
        )
    return dict(json.loads(text))


def _record_of(log: Path) -> Path:
    """The record of a job: results/<experiment>/logs/<name>.log belongs to results/<experiment>/jobs/<name>.json."""
    results, name = Path(*log.parts[:2]), Path(*log.parts[3:])
    return (results / "jobs" / name).with_suffix(".json")


def _use_threads(threads: int) -> None:
    """Give the numerical libraries the threads that the job was granted, whether or not they are loaded yet."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "numba" in sys.modules:
        numba = sys.modules["numba"]
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    else:
        os.environ["NUMBA_NUM_THREADS"] = str(threads)


def data_root(snakemake: Any) -> Path | None:
    """The folder of the real data; a place, not a parameter: moving it re-runs nothing."""
    folder = snakemake.config.get("data_root")
    return Path(folder) if folder else None


def rows_of(dataset: Any, spec: dict[str, Any]) -> list[int] | None:
    """Rows of the splits that a stamp names, in their order; None, which means all, where it names none."""
    if "splits" not in spec:
        return None
    known = [split for split in spec["splits"] if split in dataset.card["splits"]]
    return [int(row) for split in known for row in dataset.rows(split)]


_GPUS = {0: "no GPU", 1: "1 GPU"}


def gpus_granted(resources: Any) -> int:
    """GPUs that a job was granted, asked for as `gpu` or, where a cluster wants it, as `gres` (gpu[:<model>][:<n>])."""
    kind, _, rest = str(resources.get("gres", "")).partition(":")
    if kind == "gpu":
        number = rest.rpartition(":")[2]
        return int(number) if number.isdigit() else 1
    return int(resources.get("gpu", 0))


def device(snakemake: Any) -> str:
    """The torch device of a job: `auto` is a GPU when the job was granted one and there is one."""
    import torch

    wanted = str(snakemake.config.get("device", "auto"))
    if wanted == "auto":
        granted, there = gpus_granted(snakemake.resources), torch.cuda.is_available()
        if granted and not there:
            print(f"granted {_GPUS.get(granted, f'{granted} GPUs')}, but torch sees none: computing on the CPU")
        return "cuda" if granted and there else "cpu"
    if wanted.startswith("cuda"):
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(wanted.partition(":")[2] or 0) >= seen:
            shown = _GPUS.get(seen, f"{seen} GPUs")
            raise ConceptBenchError(
                f"The configuration asks for device {wanted}, but this machine shows {shown}; "
                "set device: auto or cpu, or ask the scheduler for one."
            )
    return wanted
