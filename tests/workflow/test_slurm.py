"""The smoke experiment on a real SLURM: GPUs where they belong, a cancelled job again, the results of a local run.

Every job on a cluster starts a Snakemake of its own, so this takes minutes; `make slurm-test` asks for it.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from .equality import differing
from .slurm_cluster import SLURM_CONF, Cluster, cluster, foreign, missing
from .workspace import ROOT, SMOKE, TIMEOUT, Workspace, copy_tree

PLUGIN = "snakemake_executor_plugin_slurm"
ASKED = "CONCEPTBENCH_SLURM"


def not_here() -> str | None:
    """Why these tests are skipped, or None."""
    if ASKED not in os.environ:
        return "takes minutes; run make slurm-test"
    return missing() or (
        None if importlib.util.find_spec(PLUGIN) else "no executor plugin; install conceptbench[slurm]"
    )


reason = not_here()
on_slurm = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.skipif(reason is not None, reason=str(reason))]

CANCELLED = "learn_dictionaries"
QUICK = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"]
"""Settings of a cluster without accounting whose jobs take seconds."""


@dataclass(frozen=True)
class ClusterRun:
    """A finished run of the smoke experiment on SLURM, and the job of it that was cancelled."""

    workspace: Workspace
    cluster: Cluster
    cancelled: int


LOCAL_THREADS = ["record_activations=2", "record_adapted=2", "learn_dictionaries=2", "adapt=1"]
"""On this machine without a real GPU the products are made by these threads, and their number orders the sums."""


def gpu_rules() -> set[str]:
    """Rules that ask for a GPU, read from the rules themselves."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    blocks = re.findall(r"^ *rule (\w+):\n(.*?)(?=^ *rule |^\S|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    return {name for name, body in blocks if re.search(r"^ +gpu=(1|GPUS),", body, flags=re.MULTILINE)}


def profile(name: str) -> dict[str, dict[str, dict[str, object]]]:
    return yaml.safe_load((ROOT / "profiles" / name / "profile.v9+.yaml").read_text())


def command(name: str, *arguments: str) -> list[str]:
    """The command of the documentation, with at most four jobs at once, since they share one machine."""
    settings = ["--workflow-profile", f"profiles/{name}", "--configfile", SMOKE, "--jobs", "4", "--nocolor"]
    return [sys.executable, "-m", "snakemake", *settings, "--set-threads", *LOCAL_THREADS, *QUICK, *arguments]


def cancel_first(running: Cluster, rule: str, process: subprocess.Popen[bytes]) -> int:
    """Cancel the first job of a rule as soon as it runs; returns its number."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        for number in running.running(rule):
            running.cancel(number)
            return number
        time.sleep(0.3)
    pytest.fail(f"no job of {rule} was seen running")


@pytest.fixture(scope="module")
def on_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterRun]:
    """The smoke experiment, run once on SLURM, with one job cancelled while it ran."""
    workspace = copy_tree(tmp_path_factory.mktemp("slurm") / "checkout")
    log = workspace.folder / "slurm.log"
    with cluster(tmp_path_factory.mktemp("slurm-files") / "cluster") as running:
        with log.open("wb") as out:
            process = subprocess.Popen(
                command("slurm"), cwd=workspace.folder, env=workspace.environment, stdout=out, stderr=out
            )
        try:
            number = cancel_first(running, CANCELLED, process)
            code = process.wait(TIMEOUT)
        finally:
            process.terminate()
            process.wait()
        assert code == 0, log.read_text()[-6000:]
        yield ClusterRun(workspace, running, number)
    shutil.rmtree(workspace.folder)


class TestOnSlurm:
    pytestmark = on_slurm

    def test_rules_with_a_gpu_got_one_and_others_none(self, on_cluster: ClusterRun) -> None:
        jobs = on_cluster.cluster.jobs()
        ran = {job.rule for job in jobs}
        assert ran >= {"prepare_dataset", "record_activations", "learn_dictionaries", "adapt", "draw_runtime"}
        assert "fetch_backbone" not in ran  # needs a network, so it runs where Snakemake does
        assert {job.rule for job in jobs if len(job.gpus) == 1} == ran & gpu_rules()
        assert {job.rule for job in jobs if not job.gpus} == ran - gpu_rules()

    def test_cancelled_job_is_retried(self, on_cluster: ClusterRun) -> None:
        numbers = [job.number for job in on_cluster.cluster.jobs() if job.rule == CANCELLED]
        backbones = {path.parent.name for path in (on_cluster.workspace.results / "dictionaries").glob("*/*.json")}
        assert on_cluster.cancelled in numbers
        assert len(numbers) == len(backbones) + 1

    def test_results_equal_those_of_a_local_run(self, on_cluster: ClusterRun, finished: Workspace) -> None:
        assert differing(finished.results, on_cluster.workspace.results) == []
        assert on_cluster.workspace.planned() == {}

    def test_profile_with_gres_grants_the_same(self, on_cluster: ClusterRun) -> None:
        before = len(on_cluster.cluster.jobs())
        target = "results/smoke/codes/random-local/scenes/manifest.json"
        on_cluster.workspace.run(*command("slurm-gres", "--force", target))
        again = on_cluster.cluster.jobs()[before:]
        assert [(job.rule, len(job.gpus)) for job in again] == [("encode_codes", 1)]
        record = on_cluster.workspace.results / "jobs" / "encode_codes" / "random-local.scenes.json"
        assert json.loads(record.read_text())["gpus_granted"] == 1


def test_settings_that_a_killed_test_left_are_not_those_of_another_cluster(tmp_path: Path) -> None:
    settings = tmp_path / "slurm.conf"
    assert not foreign(settings)
    settings.write_text(SLURM_CONF)
    assert not foreign(settings)
    settings.write_text(SLURM_CONF.replace("ClusterName=conceptbench", "ClusterName=conceptbench-2"))
    assert foreign(settings)


def test_gres_profile_names_every_rule_with_a_gpu() -> None:
    named = profile("slurm-gres")["set-resources"]
    assert set(named) == gpu_rules()
    assert all(resources["gpu"] == 0 and resources["gres"] == "gpu:1" for resources in named.values())


def test_rules_use_the_processors_they_ask_for_with_a_gpu() -> None:
    asked = {rule: options["cpus_per_gpu"] for rule, options in profile("slurm")["set-resources"].items()}
    assert asked and profile("slurm")["set-threads"] == asked


def test_profiles_differ_only_in_how_they_ask_for_gpus() -> None:
    gpus, gres = profile("slurm"), profile("slurm-gres")
    assert {key: value for key, value in gpus.items() if key != "set-resources"} == {
        key: value for key, value in gres.items() if key != "set-resources"
    }
