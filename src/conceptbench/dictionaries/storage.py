"""A dictionary on disk: `dictionary.safetensors` (all tensors) and `card.json` (everything else)."""

from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.rules import describe_rule, restore_rule
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json, write_json
from conceptbench.tensor_files import write_tensors

FORMAT: Final = "conceptbench-dictionary-1"
_REQUIRED: Final = {"atoms", "encoder", "encoder_bias", "decoder_bias", "normaliser_mean", "normaliser_scale"}


def save_dictionary(dictionary: Dictionary, folder: Path) -> None:
    """Write the tensors, then the card: a folder with a card is complete."""
    notes = {"format": FORMAT, "digest": dictionary.digest}
    write_tensors(dictionary.tensors(), folder / "dictionary.safetensors", notes)
    card = dictionary.card | {
        "format": FORMAT,
        "digest": dictionary.digest,
        "width": dictionary.width,
        "d": dictionary.d,
        "code_rule": describe_rule(dictionary.rule),
    }
    write_json(card, folder / "card.json")


def load_dictionary(folder: Path | str) -> Dictionary:
    """Read what `save_dictionary` wrote.

    Raises:
        ConceptBenchError: when a file is missing or damaged, or card and tensors do not belong together.
    """
    folder = Path(folder)
    card = read_json(folder / "card.json")
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ConceptBenchError(f"{folder / 'card.json'} is not a {FORMAT} card; learn the dictionary again.")
    path = folder / "dictionary.safetensors"
    tensors = _read_tensors(path)
    thresholds = tensors.pop("thresholds", None)
    if set(tensors) != _REQUIRED:
        raise ConceptBenchError(f"{path} holds {sorted(tensors)}, not {sorted(_REQUIRED)}; learn the dictionary again.")
    rule = restore_rule(card.get("code_rule", {}), thresholds, str(folder))
    normaliser = Normaliser(tensors.pop("normaliser_mean"), float(tensors.pop("normaliser_scale")))
    try:
        dictionary = Dictionary(**tensors, normaliser=normaliser, rule=rule, card=card)
    except (ConceptBenchError, ValueError) as error:
        raise ConceptBenchError(f"{path} is damaged ({error}); learn the dictionary again.") from error
    if dictionary.digest != card.get("digest"):
        raise ConceptBenchError(f"{path} does not match the digest in its card.json; learn the dictionary again.")
    return dictionary


def _read_tensors(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConceptBenchError(f"Dictionary {path} does not exist; run learn_dictionaries.")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConceptBenchError(f"{path} is not a readable safetensors file ({error}); learn it again.") from error
