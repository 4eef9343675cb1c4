"""Independent components by scikit-learn's FastICA (Hyvarinen 1999)."""

import warnings

import numpy as np
import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from conceptbench.dictionaries.assembled import both_signs, linear, refuse_few, refuse_more
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import Setting
from conceptbench.dictionaries.rules import KeepLargest
from conceptbench.dictionaries.sampling import SampleLearner
from conceptbench.dictionaries.specs import Ica


class IcaLearner(SampleLearner):
    """FastICA on a uniform sample of the training tokens; codes are the sources, in units of their unit-norm atoms."""

    def __init__(self, spec: Ica, setting: Setting) -> None:
        """Check the number of components and start with no tokens."""
        super().__init__(spec.sample, setting)
        self._spec, self._setting = spec, setting
        d = setting.sample.shape[1]
        refuse_more(spec.name, spec.components, d)
        refuse_more(spec.name, spec.k, d)
        self._components = spec.components or d

    def finish(self) -> Dictionary:
        """Return the dictionary; the card says whether FastICA converged."""
        spec, tokens = self._spec, self._reservoir.tokens()
        refuse_few(spec.name, len(tokens), self._components)
        seed = int(torch.randint(2**31 - 1, (), generator=self._setting.generator))
        ica = FastICA(
            self._components, random_state=seed, max_iter=spec.max_iter, whiten="unit-variance", whiten_solver="eigh"
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            ica.fit(tokens.astype(np.float64))
        columns = ica.mixing_.T
        norms = np.linalg.norm(columns, axis=1, keepdims=True)
        atoms = both_signs((columns / norms).astype(np.float32))
        encoder = both_signs((ica.components_ * norms).astype(np.float32))
        dictionary = linear(atoms, encoder, ica.mean_.astype(np.float32), self._setting, KeepLargest(spec.k))
        unfinished = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        dictionary.card["fit"] = {"tokens": len(tokens), "iterations": int(ica.n_iter_), "converged": not unfinished}
        return dictionary
