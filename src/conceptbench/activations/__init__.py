"""The activation store: record a backbone's tokens once, verify them, read them in order, shuffled or by index."""

from conceptbench.activations.live import LiveTokens
from conceptbench.activations.record import record
from conceptbench.activations.request import ImageSource, RecordingContext, TokenModel
from conceptbench.activations.scatter import Part, gather, record_part
from conceptbench.activations.store import ActivationStore, find_problems, verify

__all__ = [
    "ActivationStore",
    "ImageSource",
    "LiveTokens",
    "Part",
    "RecordingContext",
    "TokenModel",
    "find_problems",
    "gather",
    "record",
    "record_part",
    "verify",
]
