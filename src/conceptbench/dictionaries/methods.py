"""From a specification to the learner of its method: the one place where both meet."""

from typing import assert_never

from conceptbench.dictionaries.archetypal import archetypal_learner
from conceptbench.dictionaries.batch_topk import batch_topk_learner
from conceptbench.dictionaries.frozen import frozen_learner
from conceptbench.dictionaries.ica import IcaLearner
from conceptbench.dictionaries.jump_relu import jump_relu_learner
from conceptbench.dictionaries.kmeans import KMeansLearner
from conceptbench.dictionaries.ksvd import KSvdLearner
from conceptbench.dictionaries.learner import Learner, Setting
from conceptbench.dictionaries.matryoshka import matryoshka_learner
from conceptbench.dictionaries.nulls import PcaLearner, RandomLearner, RawLearner
from conceptbench.dictionaries.own import OwnLearner
from conceptbench.dictionaries.relu_l1 import ReluL1Learner
from conceptbench.dictionaries.semi_nmf import SemiNmfLearner
from conceptbench.dictionaries.specs import (
    Archetypal,
    BatchTopK,
    DictionarySpec,
    Frozen,
    Ica,
    JumpRelu,
    KMeans,
    KMeansPursuit,
    KSvd,
    Matryoshka,
    Own,
    Pca,
    Random,
    Raw,
    ReluL1,
    SemiNmf,
    TopK,
)
from conceptbench.dictionaries.topk import TopKLearner


def learner_of(spec: DictionarySpec, setting: Setting) -> Learner:
    """Return the learner of a specification, at its start."""
    match spec:
        case TopK():
            return TopKLearner(spec, setting)
        case ReluL1():
            return ReluL1Learner(spec, setting)
        case BatchTopK():
            return batch_topk_learner(spec, setting)
        case Matryoshka():
            return matryoshka_learner(spec, setting)
        case JumpRelu():
            return jump_relu_learner(spec, setting)
        case Archetypal():
            return archetypal_learner(spec, setting)
        case Frozen():
            return frozen_learner(spec, setting)
        case KSvd():
            return KSvdLearner(spec, setting)
        case KMeans() | KMeansPursuit():
            return KMeansLearner(spec, setting)
        case Ica():
            return IcaLearner(spec, setting)
        case SemiNmf():
            return SemiNmfLearner(spec, setting)
        case Random():
            return RandomLearner(spec, setting)
        case Raw():
            return RawLearner(spec, setting)
        case Pca():
            return PcaLearner(spec, setting)
        case Own():
            return OwnLearner(spec, setting)
        case _:
            assert_never(spec)
