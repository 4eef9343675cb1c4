"""A recipe small enough to train in a test, and its vocabulary."""

from pathlib import Path

from conceptbench.backbones.pretrain import write_recipe_vocabulary
from conceptbench.backbones.recipes import Kind, Phase, Recipe
from conceptbench.backbones.tokenizer import load_tokenizer

PHASES = (
    Phase(images=48, n_objects=(0.7, 0.2, 0.1), pair_share=0.5, web_share=0.0),
    Phase(images=48, n_objects=(0.4, 0.3, 0.3), pair_share=0.25, web_share=0.25),
)


def tiny(kind: Kind = "clip", **options: object) -> Recipe:
    """Six steps of 16 pictures in two phases."""
    shape = {"width": 32, "blocks": 2, "head_width": 16, "text_width": 32, "text_blocks": 1, "embed_dim": 16}
    known = {"batch_size": 16, "warmup_steps": 2, "phases": PHASES if kind != "random" else ()}
    return Recipe(kind=kind, **{**shape, **known, **options})


def vocabulary(folder: Path, context_length: int = 48):
    """(entries, tokenizer) of the recipes' vocabulary, written to a folder."""
    entries = write_recipe_vocabulary(folder / "merges.txt.gz")
    return entries, load_tokenizer(folder / "merges.txt.gz", context_length)
