# Remapping: masking, existing and recruited concepts, associations, and the same estimators on planted adaptations.

MASKING = bool(TASKS and BEFORE and CONFIG.measures.masking)
CONCEPTS = bool(TASKS and BEFORE and CONFIG.measures.concepts)


def chosen(section):
    """The adaptations that a measure takes: those it names, or all that change the image tower."""
    return MOVING if section is None or section.methods is None else list(section.methods)


ENCODING = ["dictionaries/codes", "dictionaries/encoding", "dictionaries/dictionary", "adaptation", *RUNNING]
EDITING = [
    *(f"measures/{name}" for name in ("readout", "edits", "selection", "matched", "resampling", "stages/models")),
    *("inference", *ENCODING),
]
"""Code that encodes, edits and scores activations at the hook point."""
METRIC_TABLES += [
    *(["masking", "masking_contrasts"] if MASKING else []),
]
REMAPPING_FIGURES = [
    *(["masking"] if MASKING else []),
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
        code=code("measures/masking", "measures/stages/masking", *EDITING),
    output:
        **tables("masking", "masking_contrasts", "masking_balance"),
    log:
        f"{R}/logs/measure_masking.log",
    benchmark:
        f"{R}/benchmarks/measure_masking.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=6000,
        runtime=240,
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
        mem_mb=2000,
        runtime=10,
    script:
        "../scripts/draw.py"
