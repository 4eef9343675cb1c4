"""k-means by scikit-learn: a token is its nearest centre, or a few centres found by orthogonal matching pursuit."""

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from conceptbench.dictionaries.assembled import assigned, pursued, refuse_few
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import Setting
from conceptbench.dictionaries.sampling import SampleLearner
from conceptbench.dictionaries.specs import KMeans, KMeansPursuit


class KMeansLearner(SampleLearner):
    """Mini-batch k-means (Sculley 2010) on a uniform sample of the training tokens."""

    def __init__(self, spec: KMeans | KMeansPursuit, setting: Setting) -> None:
        """Start with no tokens."""
        super().__init__(spec.sample, setting)
        self._spec, self._setting = spec, setting

    def finish(self) -> Dictionary:
        """Return the dictionary; the decoder bias is the mean of the sample, and atoms are relative to it."""
        spec, tokens = self._spec, self._reservoir.tokens()
        refuse_few(spec.name, len(tokens), spec.width)
        seed = int(torch.randint(2**31 - 1, (), generator=self._setting.generator))
        clusters = MiniBatchKMeans(spec.width, random_state=seed, n_init=1, batch_size=4096).fit(tokens)
        mean = tokens.mean(0, dtype=np.float64).astype(np.float32)
        centres = clusters.cluster_centers_.astype(np.float32) - mean
        if isinstance(spec, KMeansPursuit):
            return pursued(centres, mean, spec.k, self._setting)
        return assigned(centres, mean, self._setting)
