"""A masking curve of 21 values of k: what it costs beside its floor, and beside 21 whole forwards.

    python -m benchmarks.masking_curve            about a minute on one core

The floor is what no curve can do without: one lower half, one encoding and 21 upper halves over the same images. The
curve is the library's off-top-k curve with the dictionary's error kept. The third contender runs the whole image tower
anew for each k with a hook that encodes, masks and decodes every token, as PatchSAE's code does. All three take turns;
before anything is timed, the predictions of curve and whole forwards are compared. Backbone: the shipped clip-tiny, cut
behind its block 4, and behind block 1, where more of the tower lies above the cut; dictionary: random atoms, since
values do not matter here.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import OURS, Row, write_results
from conceptbench.adaptation import ZeroShotSpec
from conceptbench.adaptation.zero_shot import ZeroShotAdapter
from conceptbench.backbones import Backbone, load_backbone
from conceptbench.backbones.shipped import SHIPPED
from conceptbench.data.flora import FLORA_CHAIN
from conceptbench.dictionaries import Dictionary, Normaliser
from conceptbench.dictionaries.rules import KeepLargest
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.edits import Firings, atoms_in_raw_units, off_steps, removal_curve
from conceptbench.measures.masking import k_grid
from conceptbench.measures.readout import Readout

KS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
WIDTH, K, IMAGES, ROUNDS = 1024, 8, 100, 5


@dataclass(frozen=True, eq=False)
class Case:
    """One hook point with its images, dictionary and a ranking of latents for every image."""

    readout: Readout
    pixels: torch.Tensor
    dictionary: Dictionary
    ranks: NDArray[np.int64]
    ks: NDArray[np.int64]

    @property
    def backbone(self) -> Backbone:
        """The model."""
        return self.readout.backbone

    def none(self, images: int) -> torch.Tensor:
        """No prompts."""
        return torch.empty(images, 0, self.backbone.width)


def make_case(block: int) -> Case:
    """Random images and a random dictionary with a learned one's sparsity."""
    backbone = load_backbone(SHIPPED / "clip-tiny", "cpu")
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.normal(size=(IMAGES, 3, backbone.image_size, backbone.image_size)).astype(np.float32))
    with torch.no_grad():
        tokens = backbone.lower(pixels, block).numpy()
    atoms = rng.normal(size=(WIDTH, backbone.width)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    zeros = np.zeros(WIDTH, np.float32)
    normaliser = Normaliser.fit(tokens.reshape(-1, backbone.width))
    dictionary = Dictionary(atoms, 0.5 * atoms, zeros, np.zeros(backbone.width, np.float32), normaliser, KeepLargest(K))
    ranks = rng.permuted(np.tile(np.arange(WIDTH), (IMAGES, 1)), axis=1)
    card: dict[str, Any] = {"backbone": {"name": backbone.name, "digest": backbone.digest}}
    readout = Readout(backbone, ZeroShotAdapter(ZeroShotSpec(), card), block, tuple(FLORA_CHAIN[:12]))
    return Case(readout, pixels, dictionary, ranks, k_grid(KS, WIDTH))


@torch.no_grad()
def floor(case: Case) -> list[NDArray[np.float64]]:
    """One lower half, one encoding, 21 upper halves."""
    tokens = case.backbone.lower(case.pixels, case.readout.block)
    case.dictionary.encode(tokens.numpy())
    return [case.readout.log_probabilities(tokens, case.none(IMAGES)) for _ in case.ks]


@torch.no_grad()
def curve(case: Case) -> list[NDArray[np.float64]]:
    """The library's curve."""
    tokens = case.backbone.lower(case.pixels, case.readout.block)
    firings = Firings.of(case.dictionary.encode(tokens.numpy()))
    steps = off_steps(firings.pick(case.ranks), case.ks)
    states = removal_curve(tokens, firings, steps, len(case.ks), atoms_in_raw_units(case.dictionary, tokens))
    return [case.readout.log_probabilities(state, case.none(IMAGES)) for state in states]


@torch.no_grad()
def whole_forwards(case: Case) -> list[NDArray[np.float64]]:
    """A whole forward for each k, whose hook encodes, masks and decodes densely."""
    directions = torch.from_numpy(case.dictionary.directions)

    def masking(k: int) -> Callable[..., torch.Tensor]:
        """Forward hook that removes the k first latents of every image."""
        gone = torch.from_numpy(case.ranks < k)[:, None]

        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            code = torch.from_numpy(case.dictionary.encode(output.numpy()).csr().toarray())
            return output - (code.reshape(*output.shape[:2], -1) * gone) @ directions

        return hook

    found = []
    for k in case.ks:
        handle = case.backbone.vision_blocks[case.readout.block].register_forward_hook(masking(int(k)))
        features = case.backbone.encode_image(case.pixels)
        handle.remove()
        logits = case.readout.adapter.classify(case.backbone, features, case.readout.class_names)
        found.append(torch.log_softmax(logits.double(), dim=-1).numpy())
    return found


CONTENDERS: Final[dict[str, Callable[[Case], list[NDArray[np.float64]]]]] = {
    "floor": floor,
    "curve": curve,
    "whole forwards": whole_forwards,
}


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Median seconds of each contender, which take turns.

    Raises:
        ConceptBenchError: when curve and whole forwards disagree.
    """
    for ours, theirs in zip(curve(case), whole_forwards(case), strict=True):
        if not np.allclose(ours, theirs, atol=1e-2):
            raise ConceptBenchError("The curve and the whole forwards predict differently; do not time them.")
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, contender in CONTENDERS.items():
            began = time.perf_counter()
            contender(case)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each contender")
    rounds = parser.parse_args().rounds
    rows = []
    for block in (4, 1):
        case = make_case(block)
        seconds = measure(case, rounds)
        for name, value in seconds.items():
            shapes = {"images": IMAGES, "values_of_k": len(case.ks), "width": WIDTH, "block": block}
            rows.append(
                Row(
                    toolkit=OURS if name != "whole forwards" else "as PatchSAE does it",
                    method=name,
                    shapes=shapes,
                    rate="images_per_s",
                    value=IMAGES / value,
                    share_of_floor=seconds["floor"] / value,
                    more={"seconds": value, "cost_over_floor": value / seconds["floor"]},
                )
            )
            print(f"block {block} {name:>15}: {value:.3f} s, {value / seconds['floor']:.3f} times the floor")
    write_results("masking_curve", rows, {"rounds": rounds, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main()
