"""Published recipes of the ReLU autoencoder: options under a name, each of which an explicit option overrides.

`patchsae` (arXiv 2412.05276 and its published code): raw tokens, norm-divided loss, ghost gradients, a constant rate
after the warm-up. Where nothing is published: 128 images of 197 tokens a step. The window of 64 steps without firing
becomes as many batches of tokens.

`sae-v` (arXiv 2502.06755, for CLIP with 768 features): normalised tokens, no revival, a constant rate. Its squared
error is a mean over features and ours a sum, hence the factor 768 on its penalty of 8e-4; for activations with another
number of features set `l1` to 8e-4 times it. The penalty was configured to rise over 500 steps but did not (the
schedule wrote to an attribute that the loss did not read). Ours starts the decoder bias at the geometric median, not 0.
"""

from collections.abc import Mapping
from typing import Any, Final

_BATCH: Final = 128 * 197

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "patchsae": {
        "width": 49_152,
        "normalise": False,
        "l1": 8e-5,
        "lr": 4e-4,
        "warmup_steps": 500,
        "decay_share": 0.0,
        "epochs": 2,
        "batch_size": _BATCH,
        "dead_tokens": 64 * _BATCH,
        "init": "kaiming",
    },
    "sae-v": {
        "width": 24_576,
        "l1": 8e-4 * 768,
        "lr": 3e-3,
        "warmup_steps": 500,
        "decay_share": 0.0,
        "batch_size": 16_384,
        "norm_divided": False,
        "ghost_gradients": False,
        "init": "kaiming",
    },
}
