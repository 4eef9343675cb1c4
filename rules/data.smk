# Images: rendered worlds are described by a manifest, photographs are found, checked and split.


rule prepare_dataset:
    input:
        stamp=stamps("prepare_dataset", dataset=CONFIG.datasets),
        code=code("data"),
    output:
        manifest=f"{R}/datasets/{{dataset}}/manifest.parquet",
        card=f"{R}/datasets/{{dataset}}/card.json",
    log:
        f"{R}/logs/prepare_dataset/{{dataset}}.log",
    benchmark:
        f"{R}/benchmarks/prepare_dataset/{{dataset}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    script:
        "../scripts/prepare_dataset.py"
