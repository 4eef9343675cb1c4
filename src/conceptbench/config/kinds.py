"""Named kinds: dictionaries over a backbone's output, where language supervises it."""

from typing import Annotated

from pydantic import Field

from conceptbench.config.dictionaries import DictionaryMethod
from conceptbench.config.sections import Name, Section


class Kinds(Section):
    """Does one latent of a dictionary over image embeddings unite the unlike members of a named kind?"""

    dataset: Name
    """Rendered scenes: dictionaries learn from the train split, latents are chosen on val and scored on test."""
    backbones: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Backbones whose image embeddings are compared: with language, without it, and without training."""
    methods: Annotated[dict[Name, DictionaryMethod], Field(min_length=1)]
    """Dictionaries by name; an image is one token here."""
