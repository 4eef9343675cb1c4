# Backbones: the small ones are shipped (and trained again when anything that defines them changes), others are fetched.


rule train_backbone:
    input:
        stamp=stamps("train_backbone", "backbone"),
    output:
        card=f"{R}/backbones/{{backbone}}/card.json",
        weights=f"{R}/backbones/{{backbone}}/open_clip_model.safetensors",
    log:
        f"{R}/logs/train_backbone/{{backbone}}.log",
    benchmark:
        f"{R}/benchmarks/train_backbone/{{backbone}}.tsv"
    wildcard_constraints:
        backbone="|".join(TRAINED) or "none",
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        work=f"{R}/.work/backbones/{{backbone}}",
    script:
        "../scripts/train_backbone.py"


rule fetch_backbone:
    input:
        stamp=stamps("fetch_backbone", "backbone"),
    output:
        card=f"{R}/backbones/{{backbone}}/card.json",
        weights=f"{R}/backbones/{{backbone}}/open_clip_model.safetensors",
    log:
        f"{R}/logs/fetch_backbone/{{backbone}}.log",
    benchmark:
        f"{R}/benchmarks/fetch_backbone/{{backbone}}.tsv"
    wildcard_constraints:
        backbone="|".join(FETCHED) or "none",
    retries: 2
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    script:
        "../scripts/fetch_backbone.py"
