# Remapping: masking, existing and recruited concepts, associations, and the same estimators on planted adaptations.

MASKING = bool(TASKS and BEFORE and CONFIG.measures.masking)
CONCEPTS = bool(TASKS and BEFORE and CONFIG.measures.concepts)
PLANTED = bool(TASKS and BEFORE and CONFIG.measures.plants)
PLANTED_ON = [CONFIG.measures.plants.task or TASKS[0]] if PLANTED else []

from conceptbench.config.remapping_stages import associated

CHANGED = chosen(CONFIG.measures.concepts) if CONCEPTS else []
"""Adaptations whose concepts are compared with those of zero-shot."""
ASSOCIATED = list(associated(CONFIG)) if CONCEPTS else []
"""Adaptations whose association is compared with that of zero-shot: also those that change the text side alone."""
RELEARNT = [name for name in CHANGED if name in CONFIG.measures.concepts.relearn]
"""Adaptations on whose model the followed dictionary is learnt again."""
ENCODING = ["dictionaries/codes", "dictionaries/encoding", "dictionaries/dictionary", "adaptation", *RUNNING]
EDITING = [
    *(f"measures/{name}" for name in ("readout", "edits", "selection", "matched", "resampling", "stages/models")),
    *("inference", *ENCODING),
]
"""Code that encodes, edits and scores activations at the hook point."""

METRIC_TABLES += [
    *(["concepts"] if CHANGED else []),
    *(["remapping", "validity"] if ASSOCIATED else []),
    *(["plants"] if PLANTED else []),
]
REMAPPING_FIGURES = [
    *(["masking"] if MASKING else []),
    *(["shares"] if CHANGED else []),
    *(["association"] if ASSOCIATED else []),
    *(["plants"] if PLANTED else []),
    *(["remapping_scatter"] if MOVING and CHANGED else []),
]


rule measure_masking:
    input:
        backbone=f"{R}/backbones/{ADAPTED}/card.json",
        dictionaries=f"{R}/dictionaries/{ADAPTED}/manifest.json",
        adapters=per_task(
            f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/manifest.json",
            [*BEFORE[:1], *chosen(CONFIG.measures.masking)],
        ),
        datasets=[f"{R}/datasets/{task}/card.json" for task in TASKS],
        stamp=stamp("measure_masking"),
        code=code("measures/masking", "measures/masking_changes", "measures/stages/masking", *EDITING),
    output:
        **tables("masking", "masking_contrasts", "masking_balance", "masking_changes"),
    log:
        f"{R}/logs/measure_masking.log",
    benchmark:
        f"{R}/benchmarks/measure_masking.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_masking", 6000),
        runtime=minutes(240),
    script:
        "../scripts/measure_masking.py"


rule draw_masking:
    input:
        masking=f"{R}/tables/masking.parquet",
        masking_contrasts=f"{R}/tables/masking_contrasts.parquet",
        stamp=stamp("draw_masking"),
        code=code("figures/masking", "figures/style"),
    output:
        **figure("masking", "Remapping"),
    log:
        f"{R}/logs/draw_masking.log",
    benchmark:
        f"{R}/benchmarks/draw_masking.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_masking", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule measure_concepts:
    input:
        **on_concepts(CHANGED, RELEARNT),
        stamp=stamp("measure_concepts"),
        code=code("measures/concepts", "measures/decomposition", "measures/stages/concepts", *EDITING),
    output:
        **tables("concepts"),
    log:
        f"{R}/logs/measure_concepts.log",
    benchmark:
        f"{R}/benchmarks/measure_concepts.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_concepts", 6000),
        runtime=minutes(240),
    script:
        "../scripts/measure_concepts.py"


rule learn_adapted:
    input:
        backbone=f"{R}/backbones/{ADAPTED}/card.json",
        adapters=f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/manifest.json",
        dataset=f"{R}/datasets/{CONFIG.dictionaries.train_on}/card.json",
        dictionaries=f"{R}/dictionaries/{ADAPTED}/manifest.json",
        stamp=stamps("learn_adapted", task=TASKS, method=METHODS),
        code=code("dictionaries", "activations", "adaptation", *RUNNING),
    output:
        manifest=f"{R}/adapted/{ADAPTED}/{{task}}/{{method}}/dictionary.json",
    log:
        f"{R}/logs/learn_adapted/{{task}}.{{method}}.log",
    benchmark:
        f"{R}/benchmarks/learn_adapted/{{task}}.{{method}}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("learn_adapted", 8000),
        runtime=minutes(240),
    params:
        work=f"{R}/.work/learn_adapted/{{task}}/{{method}}",
    script:
        "../scripts/learn_adapted.py"


rule measure_validity:
    input:
        **on_concepts(CHANGED, RELEARNT),
        stamp=stamp("measure_validity"),
        code=code("measures/validity", "measures/stages/validity", *EDITING),
    output:
        **tables("validity"),
    log:
        f"{R}/logs/measure_validity.log",
    benchmark:
        f"{R}/benchmarks/measure_validity.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_validity", 6000),
        runtime=minutes(60),
    script:
        "../scripts/measure_validity.py"


rule measure_association:
    input:
        **on_concepts(ASSOCIATED, RELEARNT),
        stamp=stamp("measure_association"),
        code=code(
            *("measures/association", "measures/association_shown", "measures/stages/association"),
            *("measures/stages/association_pictures", *EDITING),
        ),
    output:
        **tables("association", "association_shown", "remapping", "association_agreement"),
        pictures=f"{R}/tables/association.npz",
    log:
        f"{R}/logs/measure_association.log",
    benchmark:
        f"{R}/benchmarks/measure_association.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_association", 6000),
        runtime=minutes(240),
    script:
        "../scripts/measure_association.py"


rule measure_plants:
    input:
        backbone=f"{R}/backbones/{ADAPTED}/card.json",
        dictionaries=f"{R}/dictionaries/{ADAPTED}/manifest.json",
        adapters=[f"{R}/adapters/{ADAPTED}/{task}/{name}/manifest.json" for task in PLANTED_ON for name in BEFORE[:1]],
        datasets=[f"{R}/datasets/{task}/card.json" for task in PLANTED_ON],
        stamp=stamp("measure_plants"),
        code=code(
            *(
                f"measures/{name}"
                for name in (
                    "plants",
                    "plant_recruit",
                    "plant_harvest",
                    "plant_validation",
                    "plant_summary",
                    "concepts",
                    "association",
                    "decomposition",
                )
            ),
            *("measures/stages/plants", *EDITING),
        ),
    output:
        **tables("plants", "plant_repetitions", "plant_claims"),
    log:
        f"{R}/logs/measure_plants.log",
    benchmark:
        f"{R}/benchmarks/measure_plants.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_plants", 6000),
        runtime=minutes(240),
    script:
        "../scripts/measure_plants.py"


rule draw_shares:
    input:
        concepts=f"{R}/tables/concepts.parquet",
        stamp=stamp("draw_shares"),
        code=code("figures/shares", "figures/style"),
    output:
        **figure("shares", "Remapping"),
    log:
        f"{R}/logs/draw_shares.log",
    benchmark:
        f"{R}/benchmarks/draw_shares.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_shares", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_association:
    input:
        association_shown=f"{R}/tables/association_shown.parquet",
        remapping=f"{R}/tables/remapping.parquet",
        validity=f"{R}/tables/validity.parquet",
        pictures=f"{R}/tables/association.npz",
        stamp=stamp("draw_association"),
        code=code("figures/association", "figures/style"),
    output:
        **figure("association", "Remapping"),
    log:
        f"{R}/logs/draw_association.log",
    benchmark:
        f"{R}/benchmarks/draw_association.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_association", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_plants:
    input:
        plants=f"{R}/tables/plants.parquet",
        stamp=stamp("draw_plants"),
        code=code("figures/plants", "figures/style"),
    output:
        **figure("plants", "Remapping"),
    log:
        f"{R}/logs/draw_plants.log",
    benchmark:
        f"{R}/benchmarks/draw_plants.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_plants", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule draw_remapping_scatter:
    input:
        overlap_points=f"{R}/tables/overlap_points.parquet",
        overlap_regions=f"{R}/tables/overlap_regions.parquet",
        stamp=stamp("draw_remapping_scatter"),
        code=code("figures/remapping_scatter", "figures/style"),
    output:
        **figure("remapping_scatter", "Remapping"),
    log:
        f"{R}/logs/draw_remapping_scatter.log",
    benchmark:
        f"{R}/benchmarks/draw_remapping_scatter.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_remapping_scatter", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"
