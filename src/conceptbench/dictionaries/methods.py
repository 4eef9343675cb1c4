"""From a specification to the learner of its method: the one place where both meet."""

from conceptbench.dictionaries.learner import Learner, Setting
from conceptbench.dictionaries.nulls import PcaLearner, RandomLearner, RawLearner
from conceptbench.dictionaries.relu_l1 import ReluL1Learner
from conceptbench.dictionaries.specs import DictionarySpec, Pca, Random, Raw, ReluL1, TopK
from conceptbench.dictionaries.topk import TopKLearner
from conceptbench.errors import ConceptBenchError


def learner_of(spec: DictionarySpec, setting: Setting) -> Learner:
    """Return the learner of a specification, at its start."""
    match spec:
        case TopK():
            return TopKLearner(spec, setting)
        case ReluL1():
            return ReluL1Learner(spec, setting)
        case Random():
            return RandomLearner(spec, setting)
        case Raw():
            return RawLearner(spec, setting)
        case Pca():
            return PcaLearner(spec, setting)
        case _:
            raise ConceptBenchError(f"The method '{spec.method}' has no learner; choose another.")
