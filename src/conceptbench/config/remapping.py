"""Measures of what an adaptation does to the concepts: masking, existing and recruited, association, plants."""

from typing import Annotated, Literal

from pydantic import Field

from conceptbench.config.sections import Count, Counts, Name, Section, Share

Methods = tuple[Name, ...] | None
MinImages = Annotated[int, Field(ge=2)]
SplitImages = MinImages | Annotated[tuple[MinImages, ...], Field(min_length=2, max_length=2)]
"""At most so many images of each split, or of split A and of split B."""


class Masking(Section):
    """On-top-k and off-top-k masking."""

    k: Counts = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
    """Values of k below the dictionary's width; 0 and the width itself are always added."""
    images: SplitImages = 120
    """Images of each split, at most, evenly over the trained classes; or two numbers, for split A (latents are ranked
    on it) and split B (scored)."""
    edits: Annotated[tuple[Literal["keep-error", "replace"], ...], Field(min_length=1)] = ("keep-error", "replace")
    """Whether an edit keeps the dictionary's error, or replaces tokens by their reconstruction as the paper does."""
    dense: Annotated[tuple[Literal["kept", "filtered"], ...], Field(min_length=1)] = ("kept", "filtered")
    """Whether dense latents may be among the top ones, or come after all others."""
    methods: Methods = ()
    """Adaptations whose curves are drawn besides zero-shot; null takes all that change the image tower."""


class Concepts(Section):
    """Existing and recruited concepts, and the concept-to-class association."""

    q: Share = 0.1
    """A latent belongs to a class when it fires on at least this share of the class's images under zero-shot."""
    q_sweep: tuple[Share, ...] = (0.05, 0.25)
    """Other values of q for which the shares are computed."""
    images: SplitImages = 240
    """Images of each split, at most, evenly over the trained classes; or two numbers, for split A (a class's latents
    are told on it) and split B (scored)."""
    methods: Methods = None
    """Adaptations that are measured; null takes all that change the image tower; for the
    association, all but zero-shot."""
    exact: Count = 20
    """Latents of each class whose association is also measured by removing them."""
    halvings: Count = 20
    """Random halvings of the images behind each split-half value."""
    relearn: tuple[Name, ...] = ()
    """Adaptations on whose model the followed dictionary is learnt again: a control, and a measure of validity."""


def split_images(images: SplitImages) -> tuple[int, int]:
    """Return how many images of split A and of split B are taken, at most."""
    if isinstance(images, int):
        return images, images
    on_a, on_b = images
    return on_a, on_b


class Plants(Section):
    """Adaptations with a known truth, on which the estimators are scored."""

    task: Name | None = None
    """Task whose trained classes are planted on; null takes the first."""
    seeds: Count = 10
    """Draws of each plant: affected classes, atoms, and the images of split A."""
    resamples: Count = 10
    """Samples of images drawn from the population for each of them; repetitions are the product of the two."""
    images: MinImages = 30
    """Images of each class in a sample."""
    population: Annotated[int, Field(ge=4)] | None = None
    """Images of each class, at most: half grow the plants, half are the population of the samples; null takes all."""
    q: Share = 0.1
    """A latent belongs to a class when it fires on at least this share of the class's images."""
