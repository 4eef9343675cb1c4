# Measures: codes, predictions and labels in, tidy tables (parquet and CSV) out.


rule measure_backbones:
    input:
        backbones=[f"{R}/backbones/{name}/card.json" for name in CONFIG.hooks],
        dataset=f"{R}/datasets/{TRUTH}/card.json",
        stamp=stamp("measure_backbones"),
        code=code("measures/backbones", "measures/kinds_text", "measures/kinds", "data/prompts", *MEASURING),
    output:
        **tables("backbones", "kinds_text"),
    log:
        f"{R}/logs/measure_backbones.log",
    benchmark:
        f"{R}/benchmarks/measure_backbones.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_backbones", 4000),
        runtime=minutes(60),
    script:
        "../scripts/measure_backbones.py"


rule measure_dictionaries:
    input:
        dictionaries=[f"{R}/dictionaries/{name}/manifest.json" for name in CONFIG.hooks],
        stamp=stamp("measure_dictionaries"),
        code=code("measures/dictionaries", "tables"),
    output:
        table=f"{R}/tables/dictionaries.parquet",
        densities=f"{R}/tables/densities.parquet",
    log:
        f"{R}/logs/measure_dictionaries.log",
    benchmark:
        f"{R}/benchmarks/measure_dictionaries.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_dictionaries", 1000),
        runtime=minutes(10),
    script:
        "../scripts/measure_dictionaries.py"


rule measure_latents:
    input:
        codes=[f"{R}/codes/{ADAPTED}/{name}/manifest.json" for name in CONFIG.measures.latents_on],
        activations=[f"{R}/activations/{ADAPTED}/{name}/manifest.json" for name in CONFIG.measures.latents_on],
        datasets=[f"{R}/datasets/{name}/card.json" for name in CONFIG.measures.latents_on],
        stamp=stamp("measure_latents"),
        code=code("measures/latents", "measures/stages/latents", "dictionaries/evaluate", *MEASURING),
    output:
        latents=f"{R}/tables/latents.parquet",
        exemplars=f"{R}/tables/exemplars.parquet",
        pictures=f"{R}/tables/exemplars.npz",
    log:
        f"{R}/logs/measure_latents.log",
    benchmark:
        f"{R}/benchmarks/measure_latents.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_latents", 6000),
        runtime=minutes(60),
    script:
        "../scripts/measure_latents.py"


rule measure_truth:
    input:
        codes=codes_of(TRUTH),
        activations=[f"{R}/activations/{name}/{TRUTH}/manifest.json" for name in CONFIG.hooks],
        dataset=f"{R}/datasets/{TRUTH}/card.json",
        stamp=stamp("measure_truth"),
        code=code(*TRUTH_CODE),
    output:
        **tables(*TRUTH_TABLES),
    log:
        f"{R}/logs/measure_truth.log",
    benchmark:
        f"{R}/benchmarks/measure_truth.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_truth", 8000),
        runtime=minutes(120),
    script:
        "../scripts/measure_truth.py"


rule measure_accuracy:
    input:
        predictions=per_task(f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/predictions.parquet", METHODS),
        stamp=stamp("measure_accuracy"),
        code=code("measures/accuracy", "measures/stages/accuracy", *MEASURING),
    output:
        **tables("accuracy", "accuracy_difference"),
    log:
        f"{R}/logs/measure_accuracy.log",
    benchmark:
        f"{R}/benchmarks/measure_accuracy.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_accuracy", 2000),
        runtime=minutes(30),
    script:
        "../scripts/measure_accuracy.py"


rule measure_overlap:
    input:
        adapted=per_task(f"{R}/adapted/{ADAPTED}/{{task}}/{{method}}/codes.json", MOVING),
        codes=[f"{R}/codes/{ADAPTED}/{task}/manifest.json" for task in TASKS],
        datasets=[f"{R}/datasets/{task}/card.json" for task in TASKS],
        stamp=stamp("measure_overlap"),
        code=code("measures/overlap", "measures/latents", "measures/stages/overlap", *MEASURING),
    output:
        **tables("overlap", "overlap_regions", "overlap_points"),
    log:
        f"{R}/logs/measure_overlap.log",
    benchmark:
        f"{R}/benchmarks/measure_overlap.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_overlap", 4000),
        runtime=minutes(120),
    params:
        codes=f"{R}/codes/{ADAPTED}",
        datasets=f"{R}/datasets",
    script:
        "../scripts/measure_overlap.py"


rule measure_decomposition:
    input:
        backbone=f"{R}/backbones/{ADAPTED}/card.json",
        adapted=per_task(f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/manifest.json", LEARNING),
        zero_shot=per_task(f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/manifest.json", BEFORE),
        datasets=[f"{R}/datasets/{task}/card.json" for task in TASKS],
        stamp=stamp("measure_decomposition"),
        code=code(
            "measures/decomposition",
            "measures/hybrids",
            "measures/readout",
            "measures/stages/decomposition",
            *MEASURING,
        ),
    output:
        **tables("hybrids", "decomposition"),
    log:
        f"{R}/logs/measure_decomposition.log",
    benchmark:
        f"{R}/benchmarks/measure_decomposition.tsv"
    threads: 2
    resources:
        gpu=1,
        mem_mb=memory("measure_decomposition", 6000),
        runtime=minutes(120),
    params:
        datasets=f"{R}/datasets",
    script:
        "../scripts/measure_decomposition.py"


rule collect_metrics:
    input:
        tables=[f"{R}/tables/{name}.parquet" for name in METRIC_TABLES],
        stamp=stamp("collect_metrics"),
        code=code("measures/metrics", "tables"),
    output:
        metrics=f"{R}/metrics.json",
    log:
        f"{R}/logs/collect_metrics.log",
    benchmark:
        f"{R}/benchmarks/collect_metrics.tsv"
    threads: 1
    resources:
        mem_mb=memory("collect_metrics", 1000),
        runtime=minutes(10),
    script:
        "../scripts/collect_metrics.py"
