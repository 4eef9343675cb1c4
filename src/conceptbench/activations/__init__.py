"""The activation store: record a backbone's tokens once, verify them, read them in order, shuffled or by index."""

from conceptbench.activations.record import record
from conceptbench.activations.request import ImageSource, RecordingContext, TokenModel
from conceptbench.activations.store import ActivationStore, find_problems, verify

__all__ = [
    "ActivationStore",
    "ImageSource",
    "RecordingContext",
    "TokenModel",
    "find_problems",
    "record",
    "verify",
]
