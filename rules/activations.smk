# Activations: one pass over the images of a data set stores the tokens of every configured block.


rule record_activations:
    input:
        backbone=f"{R}/backbones/{{backbone}}/card.json",
        dataset=f"{R}/datasets/{{dataset}}/card.json",
        stamp=stamps("record_activations", backbone=CONFIG.hooks, dataset=CONFIG.datasets),
        code=code("activations", *RUNNING),
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
        mem_mb=6000,
        runtime=240,
    params:
        work=f"{R}/.work/activations/{{backbone}}/{{dataset}}",
    script:
        "../scripts/record_activations.py"
