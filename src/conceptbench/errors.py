"""The one exception of this package that people are meant to read."""


class ConceptBenchError(Exception):
    """A problem with input, configuration or state: one sentence that names the thing, the file and the remedy."""
