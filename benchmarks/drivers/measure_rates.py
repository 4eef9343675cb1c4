"""What this machine can do at best: the encoder product of one shape in bf16 and fp32, and moving bytes."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from child import finish, read_request

HEIGHTS = (512, 4096)
ONEDNN = -1
"""Stands for a float32 product by oneDNN, where torch has it: on some processors twice as fast as the default."""
COPY_FLOATS = 32 << 20
BF16_AT_MOST = 4.0
"""Where bf16 is this many times slower than fp32, the processor only emulates it and it is not measured again."""


class Rates:
    """Measures once per call, so that a caller can alternate it with something else."""

    def __init__(self, request: dict[str, Any]) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(request["batch"], request["d"], generator=generator)
        encoder = torch.randn(request["width"], request["d"], generator=generator)
        self._operands = {
            (precision, height): (x.to(dtype), encoder.to(dtype), height)
            for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
            for height in HEIGHTS
        }
        if torch.backends.mkldnn.is_available():
            self._operands["fp32", ONEDNN] = x, encoder, ONEDNN
        self._source, self._target = torch.ones(COPY_FLOATS), torch.empty(COPY_FLOATS)
        self._seconds: dict[tuple[str, int] | str, list[float]] = defaultdict(list)
        self._operations = 2 * request["batch"] * request["d"] * request["width"]

    def measure(self) -> None:
        """Time every product and one copy."""
        for case, operands in self._operands.items():
            seconds = self._seconds[case]
            plain = self._seconds["fp32", HEIGHTS[0]]
            if case[0] == "bf16" and seconds and seconds[-1] > BF16_AT_MOST * plain[-1]:
                seconds.append(seconds[-1])
            else:
                seconds.append(timed(lambda operands=operands: product(*operands)))
        self._seconds["copy"].append(timed(lambda: self._target.copy_(self._source)))

    def summary(self, warm_up: int) -> dict[str, float]:
        """Return medians, each product at its best tile height or library."""
        typical = {name: statistics.median(values[warm_up:]) for name, values in self._seconds.items()}
        best = {
            precision: min(typical[case] for case in self._operands if case[0] == precision)
            for precision in ("bf16", "fp32")
        }
        return {
            "bf16_seconds": best["bf16"],
            "fp32_seconds": best["fp32"],
            "fp32_operations_per_s": self._operations / best["fp32"],
            "bytes_per_s": 2 * 4 * COPY_FLOATS / typical["copy"],
        }


def product(x: torch.Tensor, encoder: torch.Tensor, height: int) -> None:
    """The pre-activations of all tokens, tile by tile into one reused buffer; or all at once by oneDNN."""
    if height == ONEDNN:
        with torch.inference_mode():
            torch.nn.functional.linear(x.to_mkldnn(), encoder).to_dense()
        return
    buffer = torch.empty(min(height, len(x)), len(encoder), dtype=x.dtype)
    for tile in torch.split(x, height):
        torch.mm(tile, encoder.T, out=buffer[: len(tile)])


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    request = read_request()
    torch.set_num_threads(request["threads"])
    rates = Rates(request)
    for _ in range(request["steps"]):
        rates.measure()
    finish(request, packages=("torch",), measured=rates.summary(request["warm_up"]))


if __name__ == "__main__":
    main()
