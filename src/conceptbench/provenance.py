"""Manifests: what was computed from what, by which code, with which libraries, on which machine.

They are written inside the job, not by the scheduler, so that they describe the machine that did the work.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import digest, sha256_file, write_json

LIBRARIES: Final = (
    "conceptbench",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "zarr",
    "safetensors",
    "numba",
    "scikit-learn",
    "pillow",
    "snakemake",
)
"""Distributions whose versions can change a result."""

_LOCK = "requirements.lock"
_CODE = ("src", "scripts", "rules")
"""Folders in which a file that git does not know can change a result."""
_ENVIRONMENT = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "PYTHONHASHSEED", "SLURM_CLUSTER_NAME")
"""Variables of the environment that change how numbers are computed, or say where."""


def library_versions() -> dict[str, str | None]:
    """Return the installed version of every library in `LIBRARIES` (None when absent), importing none of them."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _checkout() -> Path | None:
    """Return the checkout this package is imported from, or None when it is installed elsewhere."""
    here = Path(__file__).resolve().parent
    root = here.parents[1]
    return root if (root / "pyproject.toml").is_file() and here.parent.name == "src" else None


def describe_code(folder: Path | None = None) -> dict[str, Any]:
    """Return the git revision, whether files differ from it, and the digest of the lock file.

    A code file that git does not know and does not ignore is a difference too. Each is None when it cannot be known:
    outside a checkout, without git, without a lock file.
    """
    root = folder if folder is not None else _checkout()
    if root is None:
        return {"revision": None, "dirty": None, "lock": None}
    revision = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no") if revision else None
    unknown = _git(root, "ls-files", "--others", "--exclude-standard", "--", *_CODE) if revision else None
    lock = root / _LOCK
    return {
        "revision": revision,
        "dirty": None if status is None or unknown is None else bool(status or unknown),
        "lock": sha256_file(lock) if lock.is_file() else None,
    }


@cache
def code_at_start() -> dict[str, Any]:
    """Return `describe_code()` as it was when this process asked first, which a job does as it begins.

    What is computed belongs to the code that was loaded then, whatever is committed or pulled while it runs.
    """
    return describe_code()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[str] | None:
    """Return the names of the visible GPUs, or None when torch has not been imported by this process."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_name(index)) for index in range(torch.cuda.device_count())]


def describe_machine() -> dict[str, Any]:
    """Return operating system, Python, CPU model, cores this process may use, memory, thread settings and GPUs."""
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name in os.environ}
    torch = sys.modules.get("torch")
    if torch is not None:
        threads["torch"] = str(torch.get_num_threads())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": usable,
        "memory_mib": _memory_mib(),
        "threads": threads,
        "gpus": _gpus(),
    }


def describe_flags() -> dict[str, Any]:
    """Return what decides how this process computes: settings of torch, if it is loaded, and of the environment."""
    flags: dict[str, Any] = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    torch = sys.modules.get("torch")
    if torch is not None:
        flags["deterministic_algorithms"] = bool(torch.are_deterministic_algorithms_enabled())
        flags["cudnn_benchmark"] = bool(torch.backends.cudnn.benchmark)
        flags["float32_matmul_precision"] = str(torch.get_float32_matmul_precision())
    return flags


def write_job_record(path: Path | str, *, rule: str, gpus: int, seconds: float) -> None:
    """Write what a job can say about itself at its end: code, machine, versions, flags.

    The code is that at the start of the job; `code_at_end` is written beside it when it has become another since. What
    differs between jobs of one machine (threads, the GPUs that are visible) is among the flags.

    Args:
        path: where the record goes. rule: the rule of the job.
        gpus: GPUs that the scheduler granted. seconds: its work.
    """
    machine, flags = describe_machine(), describe_flags()
    code, at_end = code_at_start(), describe_code()
    flags |= {name: machine.pop(name) for name in ("threads", "gpus")}
    record = {
        "rule": rule,
        "gpus_granted": gpus,
        "seconds": round(seconds, 3),
        "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "code": code,
        **({"code_at_end": at_end} if at_end != code else {}),
        "machine": machine,
        "versions": library_versions(),
        "flags": flags,
    }
    write_json(record, path)


def _described(kind: str, files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    described = {}
    for name, path in sorted(files.items()):
        if not Path(path).is_file():
            raise ConceptBenchError(f"The {kind} '{name}' of a manifest is not a file: {path}; run its rule again.")
        described[name] = {"path": str(path), "sha256": sha256_file(path), "bytes": Path(path).stat().st_size}
    return described


def write_manifest(
    path: Path | str,
    *,
    outputs: Mapping[str, Path],
    inputs: Mapping[str, Path],
    spec: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write and return the manifest of one job.

    Args:
        path: where the manifest goes. outputs, inputs: files by name; each gets its path, SHA-256 and size.
        spec: the parameters that defined the result; stored with their digest as `spec_digest`.
        extra: further facts of the stage, stored at the top level.

    Raises:
        ConceptBenchError: when a file is missing, a value is NaN, or `extra` uses a reserved key.
    """
    manifest: dict[str, Any] = {
        "outputs": _described("output", outputs),
        "inputs": _described("input", inputs),
        "spec": dict(spec),
        "spec_digest": digest(spec),
        "versions": library_versions(),
        "machine": describe_machine(),
        "code": dict(code_at_start()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    clash = sorted(set(manifest) & set(extra or {}))
    if clash:
        raise ConceptBenchError(f"The manifest {path} cannot take the extra key(s) {', '.join(clash)}; rename them.")
    manifest |= dict(extra or {})
    write_json(manifest, path)
    return manifest
