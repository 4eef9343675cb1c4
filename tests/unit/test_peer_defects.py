"""Defects of other toolkits that no other test of ours would notice (what they are: docs/method.md, peers' issues)."""

import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import torch

from conceptbench.dictionaries import learn, specify
from conceptbench.dictionaries.distributed import group, in_group
from conceptbench.dictionaries.evaluate import coherence
from conceptbench.dictionaries.learner import Parameters
from conceptbench.dictionaries.specs import TopK
from conceptbench.dictionaries.topk_fused import FusedTopK

ROOT = Path(__file__).parents[2]
TOKENS = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)


def learnt():
    spec = specify(name="x", method="topk", width=12, k=2, batch_size=100)
    return learn(
        spec, lambda _: iter([TOKENS]), d=6, seed=0, held_out=TOKENS[:50], tokens_per_epoch=400, progress=False
    )


def test_a_group_of_one_process_learns_as_no_group(monkeypatch):
    """A toolkit's single-device path of a sharded option crashed: it divided before it looked for a group."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    alone = learnt()
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in launched.items():
        monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with group() as device:
        assert not in_group() and device.type == "cpu"
        assert learnt().digest == alone.digest


def test_coherence_holds_no_table_of_all_pairs():
    """A toolkit formed the table of all cosines: 9.7 GB at 49,152 atoms, 64 MB here."""
    atoms = np.random.default_rng(0).standard_normal((4_096, 8)).astype(np.float32)
    tracemalloc.start()
    coherence(atoms)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.75 * 4 * len(atoms) ** 2


def engine_with_dead_latents(aux_alpha):
    """Four of 24 latents are never among the two largest."""
    g = torch.Generator().manual_seed(0)
    atoms = torch.randn(24, 6, generator=g)
    atoms /= atoms.norm(dim=1, keepdim=True)
    parameters = Parameters(atoms, atoms.clone(), torch.zeros(24), torch.zeros(6))
    parameters.encoder_bias[:4] = -3.0
    return FusedTopK(parameters, TopK(name="t", width=24, k=2, aux_k=4, aux_alpha=aux_alpha))


def test_dead_latents_fire_again():
    """A toolkit's resampling wrote into a copy and changed nothing. Here the auxiliary loss revives, and it alone."""
    x, dead, fired = torch.from_numpy(TOKENS), torch.arange(4), {}
    for alpha in (0.0, 1.0):
        engine = engine_with_dead_latents(alpha)
        fired[alpha] = sum(engine.step(x, dead, lr=2e-2).fired[:4].int() for _ in range(400))
    assert not fired[0.0].any() and fired[1.0].any()


def test_reviving_moves_dead_latents_alone():
    first = {}
    for alpha in (0.0, 1.0):
        engine = engine_with_dead_latents(alpha)
        engine.step(torch.from_numpy(TOKENS), torch.arange(4), lr=1e-3)
        first[alpha] = engine.adam.moments()["encoder"][0]
    moved = np.abs(first[1.0] - first[0.0]).max(axis=1)
    assert moved[:4].max() > 1e-6 and moved[4:].max() < 1e-9


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    """Documented examples of two toolkits call functions with arguments that these do not take."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    names = {}
    exec(block.replace('kind="flora")', 'kind="flora", images_per_class=8)'), names)
    backbone = names["backbone"]
    with torch.inference_mode():
        whole = backbone.encode_image(backbone.preprocess(names["dataset"].images([0, 1, 2])))
    assert torch.equal(names["features"], whole)
