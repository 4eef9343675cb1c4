"""Environments of the peers: each toolkit in its own, on top of the project's packages, so that torch is the same.

    python -m benchmarks.environments create          install what benchmarks/peers/*.txt pin (`make bench-environment`)
    python -m benchmarks.environments lock            renew those lists from what the toolkits ask for today

A peer's own packages come first on its path and those of the project after them. Nothing is installed into the
project's environment. A peer that cannot be installed leaves the reason, and the benchmarks print it.
"""

import hashlib
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any, Final

from benchmarks.common import FOLDER

PEERS: Final[dict[str, tuple[str, ...]]] = {
    "sparsify": ("eai-sparsify",),
    "dictionary_learning": ("dictionary-learning",),
    "sae_lens": ("sae-lens",),
    "overcomplete": ("overcomplete", "matplotlib<3.9"),
    "dictlearn": ("dictlearn",),
}
"""What is asked of the installer for each environment."""

ENVIRONMENTS: Final = FOLDER / ".environments"
LISTS: Final = FOLDER / "peers"


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, whether it exists or not."""
    return ENVIRONMENTS / peer / "bin" / "python"


def missing(peer: str) -> str | None:
    """Return why a peer cannot be run here, or None when it can."""
    if not (LISTS / f"{peer}.txt").is_file():
        return f"benchmarks/peers/{peer}.txt is missing"
    if _stamp(peer).is_file() and _stamp(peer).read_text(encoding="utf-8") == _digest(peer):
        return None
    reason = _reason(peer)
    return reason.read_text(encoding="utf-8").strip() if reason.is_file() else "not installed: make bench-environment"


def create(peer: str) -> None:
    """Install one peer as pinned, unless that was done before; keep the reason when it fails."""
    if missing(peer) is None:
        return
    _bare(peer)
    command = ["install", "--no-deps", "--quiet", "--requirement", str(LISTS / f"{peer}.txt")]
    done = _pip(peer, *command)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        _reason(peer).write_text(f"installation failed: {last}\n", encoding="utf-8")
        return
    _stamp(peer).write_text(_digest(peer), encoding="utf-8")


def lock(peer: str) -> None:
    """Write the pinned list of one peer: what it needs beyond the packages of the project, at today's versions."""
    _bare(peer)
    report = ENVIRONMENTS / peer / "report.json"
    held = [f"{name}=={version}" for name, version in _kept().items()]
    done = _pip(peer, "install", "--dry-run", "--quiet", "--report", str(report), *held, *PEERS[peer])
    if done.returncode:
        sys.exit(f"Error: {peer} cannot be resolved: {done.stderr.strip()}")
    items: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    pins = sorted((f"{item['metadata']['name']}=={item['metadata']['version']}" for item in items), key=str.lower)
    asked = " ".join(PEERS[peer])
    head = f"# {asked}: what it needs beyond the project's packages (python -m benchmarks.environments lock)\n"
    (LISTS / f"{peer}.txt").write_text(head + "\n".join(pins) + "\n", encoding="utf-8")


def _bare(peer: str) -> None:
    """Make an environment that sees the project's packages after its own."""
    folder = ENVIRONMENTS / peer
    venv.EnvBuilder(with_pip=True, clear=True).create(folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shared = folder / "lib" / version / "site-packages" / "project.pth"
    shared.write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")


def _kept() -> dict[str, str]:
    """Return the packages that must be the project's own, so that every toolkit computes with the same."""
    from importlib import metadata

    return {name: metadata.version(name).split("+")[0] for name in ("torch", "numpy")}


def _pip(peer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python_of(peer)), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _digest(peer: str) -> str:
    return hashlib.sha256((LISTS / f"{peer}.txt").read_bytes() + sys.prefix.encode()).hexdigest()


def _stamp(peer: str) -> Path:
    return ENVIRONMENTS / peer / "installed"


def _reason(peer: str) -> Path:
    return ENVIRONMENTS / peer / "reason"


def main() -> None:
    """Create or lock every environment."""
    verbs = {"create": create, "lock": lock}
    if len(sys.argv) < 2 or sys.argv[1] not in verbs:
        sys.exit("Usage: python -m benchmarks.environments create|lock [peer ...]")
    for peer in sys.argv[2:] or PEERS:
        print(f"{sys.argv[1]} {peer}", flush=True)
        verbs[sys.argv[1]](peer)
        if sys.argv[1] == "create" and (reason := missing(peer)):
            print(f"  {reason}")


if __name__ == "__main__":
    main()
