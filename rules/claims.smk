# Claims: the testable statements of PatchSAE, judged by rule from the tables that this configuration has.

CLAIM_TABLES = [
    "dictionaries",
    *(["accuracy_difference"] if TASKS else []),
    *(["latents", "exemplars"] if CONFIG.measures.latents_on else []),
    *(["truth_patches"] if TRUTH else []),
    *(["overlap", "overlap_regions"] if "overlap" in METRIC_TABLES else []),
    *(["hybrids", "decomposition"] if "decomposition" in METRIC_TABLES else []),
    *(["masking", "masking_contrasts", "masking_balance", "masking_changes"] if MASKING else []),
    *(["concepts"] if CHANGED else []),
    *(["validity"] if RELEARNT else []),
]
METRIC_TABLES += ["claims"] if TASKS else []


rule measure_claims:
    input:
        tables=[f"{R}/tables/{name}.parquet" for name in CLAIM_TABLES],
        stamp=stamp("measure_claims"),
        code=code("measures/claims", "measures/intervals", "measures/resampling", "inference", "seeds", "tables"),
    output:
        **tables("claims", "claim_parts"),
        page=report(
            f"{R}/claims.md",
            caption="../report/claims.rst",
            category="Remapping",
            labels={"figure": "claims (page)"},
        ),
    log:
        f"{R}/logs/measure_claims.log",
    benchmark:
        f"{R}/benchmarks/measure_claims.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_claims", 2000),
        runtime=minutes(10),
    script:
        "../scripts/measure_claims.py"
