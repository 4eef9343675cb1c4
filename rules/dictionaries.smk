# Dictionaries: all methods, blocks and seeds of a backbone in one job, one pass over the tokens of a block.

LIVE = CONFIG.dictionaries.live
STORED = f"{R}/activations/{{backbone}}/{CONFIG.dictionaries.train_on}/manifest.json"
LEARNT_FROM = {} if LIVE else {"activations": STORED}
"""Stored tokens, unless the backbone computes them on demand."""
GPUS = CONFIG.dictionaries.gpus
"""GPUs that learn together, with a process on each."""


rule learn_dictionaries:
    input:
        **LEARNT_FROM,
        backbone=f"{R}/backbones/{{backbone}}/card.json",
        dataset=f"{R}/datasets/{CONFIG.dictionaries.train_on}/card.json",
        stamp=stamps("learn_dictionaries", backbone=CONFIG.hooks),
        code=code("dictionaries", "seeds", "tables", *(["activations", *RUNNING] if LIVE else [])),
    output:
        manifest=f"{R}/dictionaries/{{backbone}}/manifest.json",
    log:
        f"{R}/logs/learn_dictionaries/{{backbone}}.log",
    benchmark:
        f"{R}/benchmarks/learn_dictionaries/{{backbone}}.tsv"
    priority: 20
    threads: 2 * GPUS
    resources:
        gpu=GPUS,
        mem_mb=memory("learn_dictionaries", 8000 * GPUS),
        runtime=minutes(480),
    script:
        "../scripts/learn_dictionaries.py"


rule encode_codes:
    input:
        backbone=f"{R}/backbones/{{backbone}}/card.json",
        activations=f"{R}/activations/{{backbone}}/{{dataset}}/manifest.json",
        dictionaries=f"{R}/dictionaries/{{backbone}}/manifest.json",
        dataset=f"{R}/datasets/{{dataset}}/card.json",
        stamp=stamps("encode_codes", backbone=CONFIG.hooks, dataset=CONFIG.datasets),
        code=code("dictionaries/codes", "dictionaries/code_writer", "dictionaries/encoding", "tensor_files"),
    output:
        manifest=f"{R}/codes/{{backbone}}/{{dataset}}/manifest.json",
    log:
        f"{R}/logs/encode_codes/{{backbone}}.{{dataset}}.log",
    benchmark:
        f"{R}/benchmarks/encode_codes/{{backbone}}.{{dataset}}.tsv"
    priority: 10
    threads: 2
    resources:
        gpu=1,
        mem_mb=memory("encode_codes", 8000),
        runtime=minutes(240),
    script:
        "../scripts/encode_codes.py"
