"""Rules that a change of one part of the experiment affects."""

from typing import Any

LAST = {"measure_runtime", "draw_runtime", "collect_manifests"}
"""The breakdown of the time and the manifest of the run come after everything else, so after every change."""
DRAW = {
    *("draw_accuracy", "draw_decomposition", "draw_exemplars", "draw_factor_recovery", "draw_factor_values"),
    *("draw_latent_statistics", "draw_named_kinds", "draw_overlap", "draw_zero_shot"),
    *("draw_leaderboard", "draw_monosemanticity", "draw_densities", "draw_pareto", "draw_stability"),
    *("draw_association", "draw_masking", "draw_recovery", "draw_remapping_scatter", "draw_shares"),
}
LEADERBOARD = {"measure_leaderboard", "draw_leaderboard"}
TRUTH = {"measure_truth", "draw_factor_recovery", "draw_factor_values", *LEADERBOARD}
KINDS = {"measure_kinds", "draw_named_kinds"}
OUTPUTS = {"learn_output_dictionaries", *KINDS, "collect_metrics"}
STABILITY = {"measure_stability", "draw_stability"}
EVALUATED = {"measure_monosemanticity", "draw_monosemanticity", "measure_pareto", "draw_pareto", *STABILITY}
CLAIMS = {"measure_claims", "collect_metrics"}
LATENTS = {"measure_latents", "draw_latent_statistics", "draw_exemplars", *CLAIMS}
ACCURACY = {"measure_accuracy", "draw_accuracy", *CLAIMS}
OVERLAP = {"measure_overlap", "draw_overlap", "draw_remapping_scatter", *CLAIMS}
DECOMPOSITION = {"measure_decomposition", "draw_decomposition"}
REMAPPING = {"measure_association", "draw_association", "measure_concepts", "draw_shares"}
REMAPPING |= {"measure_masking", "draw_masking", "measure_validity"}
ADAPTED = {"adapt", "record_adapted", "encode_adapted", "learn_adapted", "collect_metrics"}
ADAPTED |= {*ACCURACY, *OVERLAP, *DECOMPOSITION, *REMAPPING}
LEARNT = {"learn_dictionaries", "measure_dictionaries", "draw_densities", "encode_codes", "encode_adapted"}
LEARNT |= {*LATENTS, *TRUTH, *OVERLAP, *EVALUATED, "learn_adapted", *REMAPPING, "collect_metrics"}
RECOVERY = {"measure_recovery", "draw_recovery"}
SYNTHETIC = {"learn_synthetic", *RECOVERY, "collect_metrics"}
UNCERTAIN = {"measure_backbones", "draw_zero_shot", *TRUTH, *ACCURACY, *OVERLAP, *DECOMPOSITION, "collect_metrics"}
UNCERTAIN |= {*KINDS, *RECOVERY, *REMAPPING}


def nested(path: str, value: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}
