# Adaptation: few-shot training of one method on one task for all seeds; the adapted model's own activations and codes.


rule adapt:
    input:
        backbone=f"{R}/backbones/{ADAPTED}/card.json",
        dataset=f"{R}/datasets/{{task}}/card.json",
        stamp=stamps("adapt", task=TASKS, method=METHODS),
        code=code("adaptation", *RUNNING),
    output:
        manifest=f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/manifest.json",
        predictions=f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/predictions.parquet",
    log:
        f"{R}/logs/adapt/{{task}}.{{method}}.log",
    benchmark:
        f"{R}/benchmarks/adapt/{{task}}.{{method}}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("adapt", 6000),
        runtime=minutes(240),
    params:
        work=f"{R}/.work/adapters/{ADAPTED}/{{task}}/{{method}}",
    script:
        "../scripts/adapt.py"


rule record_adapted:
    input:
        backbone=f"{R}/backbones/{ADAPTED}/card.json",
        adapters=f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/manifest.json",
        dataset=f"{R}/datasets/{{task}}/card.json",
        stamp=stamps("record_adapted", task=TASKS, method=METHODS),
        code=code("activations", "adaptation/prompts", *RUNNING),
    output:
        manifest=f"{R}/adapted/{ADAPTED}/{{task}}/{{method}}/manifest.json",
    log:
        f"{R}/logs/record_adapted/{{task}}.{{method}}.log",
    benchmark:
        f"{R}/benchmarks/record_adapted/{{task}}.{{method}}.tsv"
    threads: 2
    resources:
        gpu=1,
        mem_mb=memory("record_adapted", 6000),
        runtime=minutes(240),
    params:
        work=f"{R}/.work/adapted/{ADAPTED}/{{task}}/{{method}}",
    script:
        "../scripts/record_adapted.py"


rule encode_adapted:
    input:
        backbone=f"{R}/backbones/{ADAPTED}/card.json",
        dataset=f"{R}/datasets/{{task}}/card.json",
        adapters=f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/manifest.json",
        activations=f"{R}/adapted/{ADAPTED}/{{task}}/{{method}}/manifest.json",
        dictionaries=f"{R}/dictionaries/{ADAPTED}/manifest.json",
        stamp=stamps("encode_adapted", task=TASKS, method=METHODS),
        code=code("dictionaries/codes", "dictionaries/code_writer", "dictionaries/encoding", "tensor_files"),
    output:
        manifest=f"{R}/adapted/{ADAPTED}/{{task}}/{{method}}/codes.json",
    log:
        f"{R}/logs/encode_adapted/{{task}}.{{method}}.log",
    benchmark:
        f"{R}/benchmarks/encode_adapted/{{task}}.{{method}}.tsv"
    threads: 2
    resources:
        gpu=1,
        mem_mb=memory("encode_adapted", 6000),
        runtime=minutes(120),
    params:
        work=f"{R}/.work/adapted-codes/{ADAPTED}/{{task}}/{{method}}",
    script:
        "../scripts/encode_adapted.py"
