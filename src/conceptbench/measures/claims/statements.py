"""The seventeen statements as data: what the paper says, its number, the decision rule and the control.

Numbers are those of the paper unless said otherwise; words and rules are ours. A statement made on ImageNet and CLIP
ViT-B/16 is tested here, where that means anything, by its analogue on the backbone and tasks of the experiment.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Statement:
    """One claim of the paper."""

    id: str
    text: str
    paper: str
    """The paper's number, or what it shows instead of one."""
    rule: str
    """The decision rule that is applied here."""
    control: str
    reads: tuple[str, ...] = ()
    """Tables without which nothing of it can be tested."""


STATEMENTS: Final = (
    Statement(
        "C1",
        "The dictionary of layer 11 over all tokens reaches the printed trade-off of error and sparsity.",
        "error 0.0025, L1 28.3, L0 148.6 at an l1 weight of 8e-5",
        "error within 15 %, L1 and L0 within 20 %",
        "centred explained variance, dead share, three seeds",
        ("dictionaries",),
    ),
    Statement(
        "C2",
        "Deeper layers are harder to reconstruct and, at the last one, sparser.",
        "error 0.0005, 0.0007, 0.0010, 0.0025 and L0 243, 299, 182, 149 at layers 2, 5, 8, 11",
        "error rises from block to block, L0 falls, seeds paired",
        "FVU, which does not grow with the norm of deeper activations",
        ("dictionaries",),
    ),
    Statement(
        "C3",
        "A dictionary of class tokens alone is sparser than one of all tokens.",
        "L0 25.2 against 148.6; error 0.0009 against 0.0025",
        "L0 of all tokens 4 to 8 times that of class tokens",
        "equally many training vectors",
    ),
    Statement(
        "C4",
        "L0 falls with the l1 weight, and little with the expansion; the start of the bias does not matter.",
        "L0 17571, 29.5, 5.6 at weights 0, 8e-5, 8e-4; 35.7, 29.5, 28.4 at expansions 32, 64, 128; "
        "geometric median 29.5, mean 32.5",
        "order only: L0 falls from each l1 weight to the next, and from each width to the next",
        "seeds",
        ("dictionaries",),
    ),
    Statement(
        "C5",
        "Replacing tokens by their full reconstruction keeps most of the accuracy.",
        "68.25 to 64.82; in the authors' later package 67.29 to 63.34",
        "loses at most 5 points, and less than at least as many principal components as latents fire on a token (the "
        "next k of the masking curve)",
        "principal components of equal rank; KL divergence",
        ("masking", "masking_changes", "dictionaries"),
    ),
    Statement(
        "C6",
        "With all latents removed, accuracy falls to chance.",
        "0.1",
        "1/C within 0.1 points (every token is then the same, and so is the prediction for all images: on balanced "
        "classes this holds for every dictionary)",
        "the mean token in place of every token is at chance too",
        ("masking", "overlap"),
    ),
    Statement(
        "C7",
        "Removing the few top latents of an image's class hurts early.",
        "a curve; in the authors' later package 63.34 to 29.18 with ten removed",
        "ten removed cost at least 20 points, more than the control's; no rise along k of more than 2 points",
        "latents active on the image, matched in frequency and mass; the latents of another class; dense latents last",
        ("masking", "masking_changes", "masking_contrasts"),
    ),
    Statement(
        "C8",
        "Removing a few random latents, or the top ones of the data set, changes next to nothing.",
        "no visible effect (curve only)",
        "for every k up to 10: less than 0.5 points (random), less than 3 points (data set)",
        "how many latents active on the image are hit; what as many active ones cost",
        ("masking", "masking_changes", "masking_balance"),
    ),
    Statement(
        "C9",
        "A few latents of the class alone bring accuracy back, random ones do not.",
        "a curve",
        "with 100 latents kept, the class's beat random ones; without the label, those of the predicted class beat the "
        "control",
        "oracle check: ranking by the predicted class against equally many active, matched latents",
        ("masking", "masking_contrasts"),
    ),
    Statement(
        "C10",
        "The same latents are the top ones of a class before and after adaptation.",
        "10.42 (base) and 10.79 (novel) latents high in both; off the diagonal at most 0.32 in 9 of 11 data sets",
        "share high in both at least 0.95, overlap above that of two classes, and neither more than 0.05 below what "
        "resampling leaves; the task like EuroSAT: below all others",
        "zero-shot on one half of the images against adapted on the other, less zero-shot on both halves; Jaccard@50, "
        "which has no dead zone, against two different classes",
        ("overlap", "overlap_regions"),
    ),
    Statement(
        "C11",
        "The gain is not explained by newly active latents.",
        "Spearman correlation 0.12 over 11 data sets (from the printed table)",
        "tasks like EuroSAT left out, the 95 % interval of the correlation contains 0 (the published rule, which any "
        "wide interval meets) and lies within 0.5 of 0 (less than a quarter of the variance of ranks)",
        "permutation test",
        ("hybrids", "overlap_regions"),
    ),
    Statement(
        "C12",
        "EuroSAT is the exception: there, new latents become active.",
        "6.9 high, 0.5 high to low, 4.1 low to high, gain rate 53.1",
        "most latents from low to high and the lowest rank correlation of all tasks, and either beyond resampling",
        "zero-shot on one half of the images against adapted on the other, less zero-shot on both halves",
        ("overlap", "overlap_regions"),
    ),
    Statement(
        "C13",
        "Which backbone selects the latents is irrelevant; which one classifies matters.",
        "curves",
        "selection changes every point of the curves by less than 1 point; the adapted model is above zero-shot from "
        "k = 10 on",
        "paired by image; the text side's part of the gain",
        ("masking", "masking_changes", "decomposition"),
    ),
    Statement(
        "C14",
        "A dictionary learnt on the adapted model gives the same picture.",
        "a figure (ImageNet only)",
        "the part of the gain that existing latents carry differs by less than 2 points",
        "the zero-shot dictionary is valid on the adapted model: its FVU exceeds the relearnt one's by at most 0.05",
        ("concepts", "validity"),
    ),
    Statement(
        "C15",
        "Prompt adaptation raises accuracy on base classes, not on novel ones.",
        "+12.55 base, +0.13 novel on average; MaPLe's authors: +12.94, +0.92",
        "every method that learns prompts: base above 0 (the size of +12.94 belongs to the paper's backbone and data "
        "sets); novel within 3 points of the authors' +0.92, so neither raised nor harmed",
        "seeds of the adaptation; each method beside MaPLe",
        ("accuracy_difference",),
    ),
    Statement(
        "C16",
        "Latents are interpretable and localised, also on data sets that they were not learnt on.",
        "pictures",
        "label entropy of the exemplars below that of shuffled labels by more than for the control; IoU with the masks "
        "of factors above the control's",
        "a random dictionary; raw coordinates",
        ("latents", "exemplars"),
    ),
    Statement(
        "C17",
        "Over frequency and mean activation, latents form two large clusters and a small one.",
        "a scatter plot",
        "the Bayesian information criterion prefers two or three Gaussians to one on (log f, log mu)",
        "one Gaussian of the same moments, for which it must not; seeds",
        ("latents",),
    ),
)
