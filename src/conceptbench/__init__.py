"""ConceptBench: a reproducible benchmark of visual concepts in vision and vision-language transformers."""

__version__ = "0.1.0"
