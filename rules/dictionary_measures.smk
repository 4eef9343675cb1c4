# Measures of the dictionaries themselves: are latents alike to another model, stable, sparse; and who leads.

EVALUATED = CONFIG.dictionaries.train_on
HALVED = list(CONFIG.hooks) if CONFIG.dictionaries.halves else []
INTERVALS = ["inference", "tables", "measures/intervals", "measures/resampling", "measures/nulls"]
HOOK = {"backbone": ADAPTED, "block": CONFIG.measures.block}
"""The hook point that figures of dictionaries show first."""
FOLLOWED = {**HOOK, "dictionary": CONFIG.measures.dictionary}


rule measure_monosemanticity:
    input:
        codes=[f"{R}/codes/{name}/{EVALUATED}/manifest.json" for name in JUDGED],
        activations=[f"{R}/activations/{name}/{EVALUATED}/manifest.json" for name in JUDGED],
        embedded=[f"{R}/activations/{name}/{EVALUATED}/manifest.json" for name in JUDGES],
        backbones=[f"{R}/backbones/{name}/card.json" for name in JUDGES],
        dataset=f"{R}/datasets/{EVALUATED}/card.json",
        stamp=stamp("measure_monosemanticity"),
        code=code(
            "measures/monosemanticity", "measures/stages/monosemanticity", "measures/intervals", *RUNNING, *MEASURING
        ),
    output:
        **tables("monosemanticity", "monosemanticity_summary"),
    log:
        f"{R}/logs/measure_monosemanticity.log",
    benchmark:
        f"{R}/benchmarks/measure_monosemanticity.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_monosemanticity", 6000),
        runtime=minutes(60),
    params:
        activations=f"{R}/activations",
    script:
        "../scripts/measure_monosemanticity.py"


rule measure_stability:
    input:
        dictionaries=[f"{R}/dictionaries/{name}/manifest.json" for name in CONFIG.hooks],
        codes=[f"{R}/codes/{name}/{EVALUATED}/manifest.json" for name in CONFIG.hooks],
        activations=[f"{R}/activations/{name}/{EVALUATED}/manifest.json" for name in HALVED],
        dataset=f"{R}/datasets/{EVALUATED}/card.json",
        stamp=stamp("measure_stability"),
        code=code("measures/stability", "measures/stages/stability", "seeds", *INTERVALS),
    output:
        **tables("stability"),
    log:
        f"{R}/logs/measure_stability.log",
    benchmark:
        f"{R}/benchmarks/measure_stability.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_stability", 6000),
        runtime=minutes(120),
    script:
        "../scripts/measure_stability.py"


rule measure_pareto:
    input:
        dictionaries=f"{R}/tables/dictionaries.parquet",
        stamp=stamp("measure_pareto"),
        code=code("measures/pareto", *INTERVALS),
    output:
        **tables("pareto"),
    log:
        f"{R}/logs/measure_pareto.log",
    benchmark:
        f"{R}/benchmarks/measure_pareto.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_pareto", 1000),
        runtime=minutes(10),
    script:
        "../scripts/measure_pareto.py"


rule measure_leaderboard:
    input:
        tables=[f"{R}/tables/{name}.parquet" for name in DICTIONARY_TABLES],
        stamp=stamp("measure_leaderboard"),
        code=code("measures/leaderboard", *INTERVALS),
    output:
        **tables("leaderboard"),
    log:
        f"{R}/logs/measure_leaderboard.log",
    benchmark:
        f"{R}/benchmarks/measure_leaderboard.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_leaderboard", 1000),
        runtime=minutes(10),
    script:
        "../scripts/measure_leaderboard.py"


rule draw_monosemanticity:
    input:
        monosemanticity=f"{R}/tables/monosemanticity.parquet",
        monosemanticity_summary=f"{R}/tables/monosemanticity_summary.parquet",
        stamp=stamp("draw_monosemanticity"),
        code=code("figures/monosemanticity", "figures/dictionary_rows", "figures/style"),
    output:
        **figure("monosemanticity", "Dictionaries"),
    log:
        f"{R}/logs/draw_monosemanticity.log",
    benchmark:
        f"{R}/benchmarks/draw_monosemanticity.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_monosemanticity", 2000),
        runtime=minutes(10),
    params:
        options=FOLLOWED,
    script:
        "../scripts/draw.py"


rule draw_stability:
    input:
        stability=f"{R}/tables/stability.parquet",
        stamp=stamp("draw_stability"),
        code=code("figures/stability", "figures/dictionary_rows", "figures/style"),
    output:
        **figure("stability", "Dictionaries"),
    log:
        f"{R}/logs/draw_stability.log",
    benchmark:
        f"{R}/benchmarks/draw_stability.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_stability", 2000),
        runtime=minutes(10),
    params:
        options=HOOK,
    script:
        "../scripts/draw.py"


rule draw_densities:
    input:
        dictionaries=f"{R}/tables/dictionaries.parquet",
        densities=f"{R}/tables/densities.parquet",
        stamp=stamp("draw_densities"),
        code=code("figures/densities", "figures/dictionary_rows", "figures/style"),
    output:
        **figure("densities", "Dictionaries"),
    log:
        f"{R}/logs/draw_densities.log",
    benchmark:
        f"{R}/benchmarks/draw_densities.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_densities", 2000),
        runtime=minutes(10),
    params:
        options=HOOK,
    script:
        "../scripts/draw.py"


rule draw_pareto:
    input:
        pareto=f"{R}/tables/pareto.parquet",
        stamp=stamp("draw_pareto"),
        code=code("figures/pareto", "figures/dictionary_rows", "figures/style"),
    output:
        **figure("pareto", "Dictionaries"),
    log:
        f"{R}/logs/draw_pareto.log",
    benchmark:
        f"{R}/benchmarks/draw_pareto.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_pareto", 2000),
        runtime=minutes(10),
    params:
        options=HOOK,
    script:
        "../scripts/draw.py"


rule draw_leaderboard:
    input:
        leaderboard=f"{R}/tables/leaderboard.parquet",
        stamp=stamp("draw_leaderboard"),
        code=code("figures/leaderboard", "figures/dictionary_rows", "figures/style"),
    output:
        **figure("leaderboard", "Dictionaries"),
    log:
        f"{R}/logs/draw_leaderboard.log",
    benchmark:
        f"{R}/benchmarks/draw_leaderboard.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_leaderboard", 2000),
        runtime=minutes(10),
    params:
        options=FOLLOWED,
    script:
        "../scripts/draw.py"
