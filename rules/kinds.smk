# Named kinds: dictionaries over the outputs of backbones, where language supervises, and whether a latent unites a kind.


rule record_outputs:
    input:
        backbone=f"{R}/backbones/{{backbone}}/card.json",
        dataset=f"{R}/datasets/{KINDS}/card.json",
        stamp=stamps("record_outputs", backbone=KINDS_OF),
        code=code("activations/outputs", *RUNNING),
    output:
        outputs=f"{R}/outputs/{{backbone}}/outputs.safetensors",
    log:
        f"{R}/logs/record_outputs/{{backbone}}.log",
    benchmark:
        f"{R}/benchmarks/record_outputs/{{backbone}}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("record_outputs", 4000),
        runtime=minutes(60),
    script:
        "../scripts/record_outputs.py"


rule learn_output_dictionaries:
    input:
        outputs=f"{R}/outputs/{{backbone}}/outputs.safetensors",
        dataset=f"{R}/datasets/{KINDS}/card.json",
        stamp=stamps("learn_output_dictionaries", backbone=KINDS_OF),
        code=code("dictionaries", "seeds", "tables"),
    output:
        manifest=f"{R}/outputs/{{backbone}}/manifest.json",
    log:
        f"{R}/logs/learn_output_dictionaries/{{backbone}}.log",
    benchmark:
        f"{R}/benchmarks/learn_output_dictionaries/{{backbone}}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("learn_output_dictionaries", 4000),
        runtime=minutes(60),
    script:
        "../scripts/learn_output_dictionaries.py"


rule measure_kinds:
    input:
        dictionaries=[f"{R}/outputs/{name}/manifest.json" for name in KINDS_OF],
        dataset=f"{R}/datasets/{KINDS}/card.json",
        stamp=stamp("measure_kinds"),
        code=code(*KINDS_CODE),
    output:
        **tables("kinds", "kinds_null"),
    log:
        f"{R}/logs/measure_kinds.log",
    benchmark:
        f"{R}/benchmarks/measure_kinds.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_kinds", 4000),
        runtime=minutes(60),
    script:
        "../scripts/measure_kinds.py"
