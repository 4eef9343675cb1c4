"""Which dictionary methods learn no concept: the floor of every score."""

from typing import Final

NULL_METHODS: Final = ("random", "frozen", "raw", "pca")
"""Random atoms, a trained encoder on frozen random atoms, coordinates, principal components."""
WITHOUT_CHANCE: Final = ("raw", "pca")
"""Nulls in which nothing is random: one seed is all there is, so between seeds they are known exactly."""
