"""A real SLURM of one node on this machine: munged, slurmctld and slurmd, with two GPUs that are plain device files.

SLURM's jobs read slurm.conf in its default place, so the cluster needs root and a machine without a SLURM of its own.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SETTINGS = Path("/etc/slurm")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun", "taskset")
ALL_CORES = ("taskset", "--cpu-list", f"0-{(os.cpu_count() or 1) - 1}")
"""A node owns its cores, even where the tests are bound to one: Snakemake gives a job no more threads than it sees."""

CPUS, GPUS, MEMORY_MIB = 8, 2, 32000
"""What the node claims to have, whatever the machine has: no job is refused, and the operating system shares it."""

OURS = "ClusterName=conceptbench"
"""The first line of our settings, by which those that a killed test has left are known."""
SLURM_CONF = """\
ClusterName=conceptbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/note
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SchedulerParameters=batch_sched_delay=0,sched_interval=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NOTE = """\
#!/bin/bash
# Before a task: which rule it is, and which GPUs its environment has. What this prints would be read by SLURM.
{{ scontrol show job "$SLURM_JOB_ID" | grep -o 'Comment=.*'
   echo "Gpus=${{CUDA_VISIBLE_DEVICES:-}}"; }} > {folder}/notes/"$SLURM_JOB_ID" 2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class Job:
    """What a job's own environment said when it began: the rule it was submitted for and the GPUs it was given."""

    number: int
    rule: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Cluster:
    """A running SLURM whose files are in one folder."""

    folder: Path

    def jobs(self) -> list[Job]:
        """Every job that has begun so far, in the order of submission."""
        return [_job(path) for path in sorted((self.folder / "notes").iterdir(), key=lambda path: int(path.name))]

    def running(self, rule: str) -> list[int]:
        """Numbers of the jobs of a rule that run now."""
        text = _read("squeue", "--noheader", "--states=RUNNING", "--format=%i %k")
        rows = [line.split(maxsplit=1) for line in text.splitlines()]
        return [int(number) for number, comment in rows if _rule(comment) == rule]

    def cancel(self, number: int) -> None:
        """Cancel one job, as a user would."""
        _read("scancel", str(number))


def missing() -> str | None:
    """Why no cluster can be started here, or None when it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}; install Debian's slurm-wlm and munge"
    if os.geteuid() != 0:
        return f"only root may write {SETTINGS}/slurm.conf, where the jobs of SLURM read it"
    if foreign(SETTINGS / "slurm.conf"):
        return f"{SETTINGS}/slurm.conf exists: this machine has a SLURM of its own"
    if (os.cpu_count() or 1) < 2:
        return "rules of two threads compute the same only on two cores"
    return None


def foreign(settings: Path) -> bool:
    """Whether there are settings that are not ours; ours, left by a killed test, are written anew."""
    return settings.exists() and OURS not in settings.read_text().splitlines()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start the cluster, wait until its node is idle, and stop it and take its settings away at the end."""
    for name in ("notes", "state", "spool"):
        (folder / name).mkdir(parents=True)
    _write_settings(folder)
    with ExitStack() as stack:
        stack.callback(_remove_settings)
        stack.enter_context(_daemon(folder, "munged", *_munge(folder)))
        stack.enter_context(_daemon(folder, "slurmctld", "-D", "-c"))
        stack.enter_context(_daemon(folder, *ALL_CORES, "slurmd", "-D"))
        _wait_until_idle(folder)
        yield Cluster(folder)
        _read("scancel", "--full", "--user=root")


def _write_settings(folder: Path) -> None:
    devices = [folder / f"gpu{index}" for index in range(GPUS)]
    for device in devices:
        os.mknod(device, 0o20666, os.makedev(1, 3))
    places = {"folder": folder, "host": socket.gethostname().split(".")[0]}
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    settings = SLURM_CONF.format(**places, **ports, cpus=CPUS, memory=MEMORY_MIB, gpus=GPUS)
    SETTINGS.mkdir(exist_ok=True)
    (SETTINGS / "slurm.conf").write_text(settings)
    (SETTINGS / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
    note = folder / "note"
    note.write_text(NOTE.format(folder=folder))
    note.chmod(0o755)


def _remove_settings() -> None:
    for name in ("slurm.conf", "gres.conf"):
        (SETTINGS / name).unlink(missing_ok=True)


def _munge(folder: Path) -> list[str]:
    """Options of a munged with a key and places of its own."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    named = {"key-file": key, "socket": folder / "munge.socket", "log-file": folder / "munge.log"}
    named |= {"pid-file": folder / "munge.pid", "seed-file": folder / "munge.seed"}
    return ["--foreground", "--force", *(f"--{name}={path}" for name, path in named.items())]


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[None]:
    """Run a daemon in the foreground of a process of ours, and end it with us."""
    with (folder / "daemons.out").open("a") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(folder: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = [path.read_text()[-1500:] for path in sorted([*folder.glob("*.log"), *folder.glob("*.out")])]
    raise RuntimeError("the node of SLURM did not come up:\n" + "\n".join(logs))


def _job(path: Path) -> Job:
    fields = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    gpus = tuple(name for name in fields.get("Gpus", "").split(",") if name)
    return Job(int(path.name), _rule(fields.get("Comment", "")), gpus)


def _rule(comment: str) -> str:
    """The rule in the comment that Snakemake's plugin gives its jobs: rule_<rule>_wildcards_<values>."""
    return comment.removeprefix("rule_").split("_wildcards_")[0].strip()


def _read(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
