# ConceptBench: images -> activations -> dictionaries -> codes -> adaptation -> measures -> figures and report.
# The DAG is read from the configuration (docs/configuration.md); what each rule makes is in docs/architecture.md.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/backbones.smk"
include: "rules/activations.smk"
include: "rules/dictionaries.smk"
include: "rules/adaptation.smk"
include: "rules/remapping.smk"
include: "rules/claims.smk"
include: "rules/measures.smk"
include: "rules/dictionary_measures.smk"
include: "rules/synthetic.smk"
include: "rules/kinds.smk"
include: "rules/figures.smk"
include: "rules/runtime.smk"


report: "report/workflow.rst"


onstart:
    require_space()
    take_lock()


onsuccess:
    RUN_LOCK.release()


onerror:
    RUN_LOCK.release()


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    backbone="|".join(CONFIG.backbones),
    task="|".join(CONFIG.adaptations.tasks) or "none",
    method="|".join(CONFIG.adaptations.methods) or "none",
    world="|".join(CONFIG.synthetic.worlds) or "none",


rule all:
    default_target: True
    input:
        f"{R}/metrics.json",
        FIGURES,
        f"{R}/figures/runtime.png",
        f"{R}/manifest.json",
