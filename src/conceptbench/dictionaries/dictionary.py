"""A learnt dictionary: everything needed to turn raw activations into sparse codes and back, whatever the method."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from conceptbench.dictionaries.codes import Codes
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.rules import CodeRule, KeepAbove, Pursue, describe_rule
from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True, eq=False)
class Dictionary:
    """With `n` the normalised token: h = encoder (n - decoder_bias) + encoder_bias, code = rule(h) >= 0, and the
    reconstruction of n is code @ atoms + decoder_bias. Inputs and outputs of the methods are raw activations.
    """

    atoms: Float32[np.ndarray, "latent feature"]
    encoder: Float32[np.ndarray, "latent feature"]
    encoder_bias: Float32[np.ndarray, "latent"]
    decoder_bias: Float32[np.ndarray, "feature"]
    normaliser: Normaliser
    rule: CodeRule
    card: dict[str, Any] = field(default_factory=dict)
    """Where it comes from and how good it is; not part of the digest."""

    def __post_init__(self) -> None:
        """Refuse tensors that do not fit each other or are not finite."""
        width, d = self.atoms.shape
        shapes = {
            "atoms": (width, d),
            "encoder": (width, d),
            "encoder_bias": (width,),
            "decoder_bias": (d,),
            "normaliser_mean": (d,),
            "normaliser_scale": (),
            "thresholds": (width,),
        }
        for name, tensor in self.tensors().items():
            if tensor.dtype != np.float32 or tensor.shape != shapes[name]:
                raise ConceptBenchError(f"Dictionary tensor '{name}' has dtype {tensor.dtype}, shape {tensor.shape}.")
            if not np.isfinite(tensor).all():
                raise ConceptBenchError(
                    f"Dictionary tensor '{name}' holds NaN or infinity; learn the dictionary again."
                )

    @property
    def width(self) -> int:
        """Number of latents."""
        return int(self.atoms.shape[0])

    @property
    def d(self) -> int:
        """Number of features of a token."""
        return int(self.atoms.shape[1])

    @cached_property
    def directions(self) -> Float32[np.ndarray, "latent feature"]:
        """What one unit of a code adds to a raw activation: atoms times the normaliser's scale."""
        return self.atoms * np.float32(self.normaliser.scale)

    @property
    def pursued(self) -> Float32[np.ndarray, "atom feature"]:
        """The atoms that a pursuit works on: the first half where the second half is its negative, else all."""
        split = isinstance(self.rule, Pursue) and self.rule.sign == "split"
        return self.atoms[: self.width // 2] if split else self.atoms

    @cached_property
    def gram(self) -> Float32[np.ndarray, "atom atom"]:
        """Inner products of the atoms that a pursuit works on."""
        from conceptbench.dictionaries.omp import gram_matrix  # like `encode`: torch is slow to import

        return gram_matrix(self.pursued)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the tensors as stored: all that encoding and decoding need besides the rule's name."""
        tensors = {
            "atoms": self.atoms,
            "encoder": self.encoder,
            "encoder_bias": self.encoder_bias,
            "decoder_bias": self.decoder_bias,
            "normaliser_mean": self.normaliser.mean,
            "normaliser_scale": np.asarray(self.normaliser.scale, np.float32),
        }
        return tensors | ({"thresholds": self.rule.thresholds} if isinstance(self.rule, KeepAbove) else {})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tensors and the code rule; two dictionaries of one digest encode alike."""
        state = hashlib.sha256(json.dumps(describe_rule(self.rule), sort_keys=True).encode())
        for name, tensor in sorted(self.tensors().items()):
            state.update(f"{name}{tensor.shape}{tensor.dtype.str}".encode())
            state.update(np.ascontiguousarray(tensor).tobytes())
        return state.hexdigest()

    def encode(self, x: Float32[np.ndarray, "*rows feature"], device: str = "cpu") -> Codes:
        """Encode raw activations [token, feature] (one token an image) or [image, token, feature].

        Raises:
            ConceptBenchError: when the number of features differs or a token is not finite.
        """
        # torch is slow to import, and most users of a dictionary only read codes and atoms
        from conceptbench.dictionaries.encoding import encode

        return encode(self, x, device)

    def decode(self, codes: Codes) -> Float32[np.ndarray, "row feature"]:
        """Return the reconstructed raw activations, one row a token.

        Raises:
            ConceptBenchError: when the codes come from another dictionary.
        """
        if codes.dictionary != self.digest:
            raise ConceptBenchError("The codes were written by another dictionary; encode the tokens with this one.")
        normalised = np.asarray(codes.csr() @ self.atoms, np.float32) + self.decoder_bias
        return self.normaliser.invert(normalised)

    def reconstruct(self, x: Float32[np.ndarray, "*rows feature"]) -> Float32[np.ndarray, "*rows feature"]:
        """Encode and decode raw activations, keeping their shape."""
        return self.decode(self.encode(x)).reshape(x.shape)

    def save(self, folder: Path | str) -> None:
        """Write `dictionary.safetensors` and `card.json` into `folder`."""
        from conceptbench.dictionaries.storage import save_dictionary

        save_dictionary(self, Path(folder))
