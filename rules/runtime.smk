# Runtime: where the time of the run went, from the records that the jobs leave beside their logs; comes last.


rule measure_runtime:
    input:
        metrics=f"{R}/metrics.json",
        figures=FIGURES,
        stamp=stamp("measure_runtime"),
        code=code("measures/runtime"),
    output:
        **tables("runtime", "runtime_summary"),
    log:
        f"{R}/logs/measure_runtime.log",
    benchmark:
        f"{R}/benchmarks/measure_runtime.tsv"
    threads: 1
    resources:
        mem_mb=memory("measure_runtime", 1000),
        runtime=minutes(10),
    params:
        logs=f"{R}/logs",
    script:
        "../scripts/measure_runtime.py"


rule draw_runtime:
    input:
        runtime=f"{R}/tables/runtime.parquet",
        stamp=stamp("draw_runtime"),
        code=code("figures/runtime", "figures/style"),
    output:
        **figure("runtime", "Workflow"),
    log:
        f"{R}/logs/draw_runtime.log",
    benchmark:
        f"{R}/benchmarks/draw_runtime.tsv"
    threads: 1
    resources:
        mem_mb=memory("draw_runtime", 2000),
        runtime=minutes(10),
    script:
        "../scripts/draw.py"


rule collect_manifests:
    input:
        runtime=f"{R}/figures/runtime.png",
        metrics=f"{R}/metrics.json",
        stamp=stamp("collect_manifests"),
        code=code("run_manifest", "provenance"),
    output:
        manifest=f"{R}/manifest.json",
    log:
        f"{R}/logs/collect_manifests.log",
    benchmark:
        f"{R}/benchmarks/collect_manifests.tsv"
    threads: 1
    resources:
        mem_mb=memory("collect_manifests", 1000),
        runtime=minutes(10),
    params:
        results=R,
        named=sorted(NAMED),
    script:
        "../scripts/collect_manifests.py"
