"""Measures and figures of the configuration."""

from typing import Annotated, Literal

from pydantic import Field

from conceptbench.config.remapping import Concepts, Masking, Plants
from conceptbench.config.sections import Count, Counts, Index, Name, NonNegative, Section


class Measures(Section):
    """What is measured, on which data, and how uncertainty is found."""

    dictionary: Name
    """Dictionary whose latents the adaptation measures follow."""
    block: Index
    """Block at which adapted and unadapted activations are compared."""
    truth_on: Name | None = None
    """Rendered data set against whose factors dictionaries are scored; null leaves factor recovery out."""
    latents_on: tuple[Name, ...] = ()
    """Data sets on which latent statistics and exemplars are computed."""
    exemplars: Count = 10
    """Top images of a latent that stand for it (reference images)."""
    firing_threshold: NonNegative = 0.2
    """A latent counts as active on a token above this value, in counts of active tokens."""
    overlap_k: Counts = (10, 25, 50, 100)
    """Sizes of the top lists whose overlap before and after adaptation is compared."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap samples of each 95 % interval."""
    permutations: Annotated[int, Field(ge=19)] = 200
    """Permutations of a null distribution."""
    embed_with: tuple[Name, ...] = ()
    """Backbones whose image embeddings judge monosemanticity: a dictionary is judged by the first of them that has
    hooks and is not its own backbone. Empty leaves the measure out."""
    masking: Masking | None = None
    """On-top-k and off-top-k masking with its controls; null leaves it out."""
    concepts: Concepts | None = None
    """Existing and recruited concepts and the concept-to-class association; null leaves them out."""
    plants: Plants | None = None
    """Planted adaptations, on which the estimators of remapping are scored; null leaves them out."""


class Figures(Section):
    """How figures look; nothing here changes a number."""

    format: tuple[Literal["png", "svg"], ...] = ("png", "svg")
    """File formats; each figure also gets the CSV of what it shows."""
    dpi: Annotated[int, Field(ge=50, le=1200)] = 150
    """Resolution of PNG files."""
    latents: Annotated[int, Field(ge=1, le=20)] = 6
    """Latents shown in the exemplar figure."""
    images: Annotated[int, Field(ge=1, le=12)] = 5
    """Images shown for each of them."""
