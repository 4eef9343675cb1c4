# Activations: one pass over the images of a data set stores the tokens of every configured block.

PARTS = [f"{number}of{CONFIG.record.jobs}" for number in range(1, CONFIG.record.jobs + 1)]
"""Parts of a recording by name, one for each job that shares it."""
RECORDING = {
    "backbone": f"{R}/backbones/{{backbone}}/card.json",
    "dataset": f"{R}/datasets/{{dataset}}/card.json",
    "stamp": stamps("record_activations", backbone=CONFIG.hooks, dataset=CONFIG.datasets),
    "code": code("activations", *RUNNING),
}
"""What a recording depends on, whoever records."""


if CONFIG.record.jobs == 1:

    rule record_activations:
        input:
            **RECORDING,
        output:
            manifest=f"{R}/activations/{{backbone}}/{{dataset}}/manifest.json",
        log:
            f"{R}/logs/record_activations/{{backbone}}.{{dataset}}.log",
        benchmark:
            f"{R}/benchmarks/record_activations/{{backbone}}.{{dataset}}.tsv"
        priority: 30
        threads: 2
        resources:
            gpu=1,
            mem_mb=memory("record_activations", 6000),
            runtime=minutes(240),
        params:
            work=f"{R}/.work/activations/{{backbone}}/{{dataset}}",
        script:
            "../scripts/record_activations.py"

else:

    rule record_part:
        input:
            **RECORDING,
        output:
            part=temp(f"{R}/.work/activations/{{backbone}}/{{dataset}}/{{part}}/part.json"),
        log:
            f"{R}/logs/record_part/{{backbone}}.{{dataset}}.{{part}}.log",
        benchmark:
            f"{R}/benchmarks/record_part/{{backbone}}.{{dataset}}.{{part}}.tsv"
        wildcard_constraints:
            part=r"\d+of\d+",
        priority: 30
        threads: 2
        resources:
            gpu=1,
            mem_mb=memory("record_part", 6000),
            runtime=minutes(240),
        script:
            "../scripts/record_part.py"

    rule gather_activations:
        input:
            **RECORDING,
            parts=expand(f"{R}/.work/activations/{{{{backbone}}}}/{{{{dataset}}}}/{{part}}/part.json", part=PARTS),
        output:
            manifest=f"{R}/activations/{{backbone}}/{{dataset}}/manifest.json",
        log:
            f"{R}/logs/record_activations/{{backbone}}.{{dataset}}.log",
        benchmark:
            f"{R}/benchmarks/record_activations/{{backbone}}.{{dataset}}.tsv"
        priority: 30
        threads: 1
        resources:
            mem_mb=memory("gather_activations", 2000),
            runtime=minutes(120),
        params:
            work=f"{R}/.work/activations/{{backbone}}/{{dataset}}",
        script:
            "../scripts/gather_activations.py"
