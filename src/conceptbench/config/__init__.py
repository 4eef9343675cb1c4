"""The typed configuration: the only reader of config.yaml, light enough to be imported while the workflow is parsed."""

from conceptbench.config.adaptations import AdaptationMethod, Adaptations
from conceptbench.config.backbones import BackboneSpec, known_blocks
from conceptbench.config.datasets import DatasetSpec
from conceptbench.config.dictionaries import Dictionaries, DictionaryMethod
from conceptbench.config.load import load_config, merge, read_yaml
from conceptbench.config.measures import Figures, Measures
from conceptbench.config.model import Config
from conceptbench.config.stages import STAGES, stage_spec

__all__ = [
    "STAGES",
    "AdaptationMethod",
    "Adaptations",
    "BackboneSpec",
    "Config",
    "DatasetSpec",
    "Dictionaries",
    "DictionaryMethod",
    "Figures",
    "Measures",
    "known_blocks",
    "load_config",
    "merge",
    "read_yaml",
    "stage_spec",
]
