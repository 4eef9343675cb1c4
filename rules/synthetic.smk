# Synthetic worlds: dictionaries learnt on activations whose atoms are known, and how much of them they recover.

RECOVERY_CODE = [
    *("measures/recovery", "measures/recovery_firing", "measures/oracle", "measures/stages/recovery"),
    *("measures/resampling", "measures/nulls", "dictionaries/synthetic", "dictionaries/encoding"),
    *("dictionaries/evaluate", "inference", "seeds", "tables"),
]


rule learn_synthetic:
    input:
        stamp=stamps("learn_synthetic", world=CONFIG.synthetic.worlds),
        code=code("dictionaries", "seeds", "tables"),
    output:
        manifest=f"{R}/synthetic/{{world}}/manifest.json",
    log:
        f"{R}/logs/learn_synthetic/{{world}}.log",
    benchmark:
        f"{R}/benchmarks/learn_synthetic/{{world}}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("learn_synthetic", 4000),
        runtime=minutes(240),
    script:
        "../scripts/learn_synthetic.py"


rule measure_recovery:
    input:
        synthetic=[f"{R}/synthetic/{name}/manifest.json" for name in CONFIG.synthetic.worlds],
        stamp=stamp("measure_recovery"),
        code=code(*RECOVERY_CODE),
    output:
        **tables("recovery", "recovery_features"),
    log:
        f"{R}/logs/measure_recovery.log",
    benchmark:
        f"{R}/benchmarks/measure_recovery.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_recovery", 4000),
        runtime=minutes(60),
    script:
        "../scripts/measure_recovery.py"


rule draw_recovery:
    input:
        recovery=f"{R}/tables/recovery.parquet",
        stamp=stamp("draw_recovery"),
        code=code("figures/recovery", "figures/style"),
    output:
        **figure("recovery", "Known truth"),
    log:
        f"{R}/logs/draw_recovery.log",
    benchmark:
        f"{R}/benchmarks/draw_recovery.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_recovery", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"
