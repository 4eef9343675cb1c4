# Figures: tables in, pictures and the plotted values out.

FIGURES = [
    f"{R}/figures/{name}.png"
    for name in [
        *(["latent_statistics", "exemplars"] if CONFIG.measures.latents_on else []),
        *(["zero_shot", "factor_recovery", "factor_values"] if TRUTH else []),
        *(["named_kinds"] if KINDS else []),
        *("densities", "leaderboard", "pareto"),
        *(["stability"] if REPEATED else []),
        *(["monosemanticity"] if JUDGED else []),
        *(["accuracy"] if TASKS else []),
        *(["overlap"] if "overlap" in METRIC_TABLES else []),
        *(["decomposition"] if "decomposition" in METRIC_TABLES else []),
        *REMAPPING_FIGURES,
        *(["recovery"] if CONFIG.synthetic.worlds else []),
    ]
]


rule draw_latent_statistics:
    input:
        latents=f"{R}/tables/latents.parquet",
        stamp=stamp("draw_latent_statistics"),
        code=code("figures/latent_statistics", "figures/style"),
    output:
        **figure("latent_statistics", "Dictionaries"),
    log:
        f"{R}/logs/draw_latent_statistics.log",
    benchmark:
        f"{R}/benchmarks/draw_latent_statistics.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_latent_statistics", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_exemplars:
    input:
        exemplars=f"{R}/tables/exemplars.npz",
        stamp=stamp("draw_exemplars"),
        code=code("figures/exemplars", "figures/style"),
    output:
        **figure("exemplars", "Dictionaries"),
    log:
        f"{R}/logs/draw_exemplars.log",
    benchmark:
        f"{R}/benchmarks/draw_exemplars.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_exemplars", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_zero_shot:
    input:
        zero_shot=f"{R}/tables/backbones.parquet",
        stamp=stamp("draw_zero_shot"),
        code=code("figures/zero_shot", "figures/style"),
    output:
        **figure("zero_shot", "Backbones"),
    log:
        f"{R}/logs/draw_zero_shot.log",
    benchmark:
        f"{R}/benchmarks/draw_zero_shot.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_zero_shot", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_factor_recovery:
    input:
        truth_summary=f"{R}/tables/truth_summary.parquet",
        truth_comparison=f"{R}/tables/truth_comparison.parquet",
        stamp=stamp("draw_factor_recovery"),
        code=code("figures/factor_recovery", "figures/style"),
    output:
        **figure("factor_recovery", "Known truth"),
    log:
        f"{R}/logs/draw_factor_recovery.log",
    benchmark:
        f"{R}/benchmarks/draw_factor_recovery.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_factor_recovery", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_factor_values:
    input:
        truth_factors=f"{R}/tables/truth_factors.parquet",
        truth_comparison=f"{R}/tables/truth_comparison.parquet",
        stamp=stamp("draw_factor_values"),
        code=code("figures/factor_values", "figures/factor_recovery", "figures/style"),
    output:
        **figure("factor_values", "Known truth"),
    log:
        f"{R}/logs/draw_factor_values.log",
    benchmark:
        f"{R}/benchmarks/draw_factor_values.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_factor_values", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_named_kinds:
    input:
        kinds=f"{R}/tables/kinds.parquet",
        kinds_null=f"{R}/tables/kinds_null.parquet",
        stamp=stamp("draw_named_kinds"),
        code=code("figures/named_kinds", "figures/style"),
    output:
        **figure("named_kinds", "Known truth"),
    log:
        f"{R}/logs/draw_named_kinds.log",
    benchmark:
        f"{R}/benchmarks/draw_named_kinds.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_named_kinds", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_accuracy:
    input:
        accuracy=f"{R}/tables/accuracy.parquet",
        stamp=stamp("draw_accuracy"),
        code=code("figures/accuracy", "figures/style"),
    output:
        **figure("accuracy", "Adaptation"),
    log:
        f"{R}/logs/draw_accuracy.log",
    benchmark:
        f"{R}/benchmarks/draw_accuracy.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_accuracy", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_overlap:
    input:
        overlap=f"{R}/tables/overlap.parquet",
        stamp=stamp("draw_overlap"),
        code=code("figures/overlap", "figures/style"),
    output:
        **figure("overlap", "Remapping"),
    log:
        f"{R}/logs/draw_overlap.log",
    benchmark:
        f"{R}/benchmarks/draw_overlap.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_overlap", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_decomposition:
    input:
        decomposition=f"{R}/tables/decomposition.parquet",
        stamp=stamp("draw_decomposition"),
        code=code("figures/decomposition", "figures/style"),
    output:
        **figure("decomposition", "Remapping"),
    log:
        f"{R}/logs/draw_decomposition.log",
    benchmark:
        f"{R}/benchmarks/draw_decomposition.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_decomposition", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"
