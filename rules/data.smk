# Images: rendered worlds are described by a manifest, photographs are found or downloaded, checked and split.


localrules:
    fetch_dataset,


rule fetch_dataset:
    input:
        stamp=stamps("fetch_dataset", dataset=PUBLISHED),
        code=code("data/catalogue"),
    output:
        source=f"{R}/datasets/{{dataset}}/source.json",
    log:
        f"{R}/logs/fetch_dataset/{{dataset}}.log",
    benchmark:
        f"{R}/benchmarks/fetch_dataset/{{dataset}}.tsv"
    wildcard_constraints:
        dataset="|".join(PUBLISHED) or "none",
    threads: 1
    resources:
        mem_mb=memory("fetch_dataset", 500),
        runtime=minutes(600),
    script:
        "../scripts/fetch_dataset.py"


rule prepare_dataset:
    input:
        source=lambda wildcards: fetched_source(wildcards.dataset),
        stamp=stamps("prepare_dataset", dataset=CONFIG.datasets),
        code=code("data"),
    output:
        manifest=f"{R}/datasets/{{dataset}}/manifest.parquet",
        card=f"{R}/datasets/{{dataset}}/card.json",
    log:
        f"{R}/logs/prepare_dataset/{{dataset}}.log",
    benchmark:
        f"{R}/benchmarks/prepare_dataset/{{dataset}}.tsv"
    threads: lambda wildcards: 4 if wildcards.dataset in PHOTOGRAPHS else 1
    resources:
        mem_mb=memory("prepare_dataset", 2000),
        runtime=minutes(240),
    script:
        "../scripts/prepare_dataset.py"
