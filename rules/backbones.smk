# Backbones: the small ones are shipped (and trained again when anything that defines them changes), others are fetched.


localrules:
    fetch_backbone,


PRETRAINING = ["backbones/pretrain", *(f"backbones/pretrain_{part}" for part in ("batches", "losses", "views"))]
PICTURES = [
    *(f"data/{name}" for name in ("raster", "geometry", "vocabulary", "scenes", "scene_pixels", "edits", "captions")),
    *("data/flora", "data/terra", "data/web"),
]
"""What a trained backbone sees; a change that alters no picture or caption leaves the shipped weights valid."""


rule train_backbone:
    input:
        stamp=stamps("train_backbone", backbone=TRAINED),
        shipped=shipped_files,
        code=code("backbones/recipes", "backbones/shipped", *PRETRAINING, "backbones/tokenizer", *PICTURES),
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
        mem_mb=memory("train_backbone", 4000),
        runtime=minutes(240),
    params:
        work=f"{R}/.work/backbones/{{backbone}}",
    script:
        "../scripts/train_backbone.py"


rule fetch_backbone:
    input:
        stamp=stamps("fetch_backbone", backbone=FETCHED),
        pin=pins(FETCHED),
        files=local_files,
        code=code(*(f"backbones/{name}" for name in ("fetch", "load", "folder", "hub_tokenizer", "names", "trunks"))),
    output:
        card=f"{R}/backbones/{{backbone}}/card.json",
        weights=f"{R}/backbones/{{backbone}}/open_clip_model.safetensors",
    log:
        f"{R}/logs/fetch_backbone/{{backbone}}.log",
    benchmark:
        f"{R}/benchmarks/fetch_backbone/{{backbone}}.tsv"
    wildcard_constraints:
        backbone="|".join(FETCHED) or "none",
    threads: 1
    resources:
        mem_mb=memory("fetch_backbone", 8000),
        runtime=minutes(60),
    params:
        work=f"{R}/.work/backbones/{{backbone}}",
        locks=LOCKS,
    script:
        "../scripts/fetch_backbone.py"
