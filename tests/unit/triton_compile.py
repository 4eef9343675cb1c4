"""Compiles the kernels for a GPU that need not be there, from the arguments with which the engine starts them.

python triton_compile.py 90        prints what each kernel became for compute capability 9.0, as JSON
"""

import json
import sys
from types import SimpleNamespace

import torch
import triton
from topk_reference import K, start
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from conceptbench.dictionaries import topk_triton


def main(capability: int) -> None:
    target = GPUTarget("cuda", capability, 32)
    driver = SimpleNamespace(
        get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0
    )
    triton.runtime.driver.set_active(driver)
    built, launch = {}, JITFunction.run

    def compile_only(kernel, *args, warmup, **options):
        made = launch(kernel, *args, warmup=True, **options)
        built[f"{kernel.__name__} {d}"] = {"ptx": made.asm["ptx"], "bytes": len(made.asm["cubin"])}

    JITFunction.run = compile_only
    for d in (12, 768):
        parameters, x = start(d=d)
        slots = topk_triton.Slots(torch.arange(K).repeat(len(x), 1), torch.ones(len(x), K))
        term = topk_triton.explain(x, slots, parameters.atoms, torch.ones((), dtype=torch.float64))
        topk_triton.TritonAdam(parameters).update(x, [term], lr=1e-3)
    print(json.dumps(built))


if __name__ == "__main__":
    main(int(sys.argv[1]))
