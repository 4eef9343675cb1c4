"""Codes on the true atoms: what is left to lose when the dictionary is perfect. The ceilings of recovery.

`pursue` is non-negative orthogonal matching pursuit (Bruckstein, Elad and Zibulevsky, IEEE Trans. Inf. Theory 2008):
the atom of largest positive correlation with the residual is added, all coefficients are fitted again. It is told how
many features fire on each token, which nobody knows of real activations. `project` is what a tied linear encoder with
the true atoms makes of a token: the gap between the two is the price of encoding in one step.
"""

import numpy as np
from jaxtyping import Float, Int64
from scipy import sparse


def pursue(
    x: Float[np.ndarray, "token d"], atoms: Float[np.ndarray, "feature d"], fires: Int64[np.ndarray, "token"]
) -> sparse.csr_array:
    """Return codes [token, feature] with at most `fires[token]` positive entries; atoms have unit norm."""
    tokens, rows = x.astype(np.float64), atoms.astype(np.float64)
    gram, target = rows @ rows.T, tokens @ rows.T
    support = np.zeros((len(x), 0), np.int64)
    values = np.zeros((len(x), 0))
    size = np.zeros(len(x), np.int64)
    for step in range(int(fires.max(initial=0))):
        left = target.copy()
        if step:
            codes = np.zeros_like(target)
            np.put_along_axis(codes, support, values, axis=1)
            left -= codes @ gram
            np.put_along_axis(left, support, -np.inf, axis=1)
        best = left.argmax(axis=1)
        size += (size == step) & (step < fires) & (left[np.arange(len(x)), best] > 0)
        support = np.concatenate([support, best[:, None]], axis=1)
        values = _least_squares(gram, target, support, size)
    return _rows(support, values, len(atoms))


def project(x: Float[np.ndarray, "token d"], atoms: Float[np.ndarray, "feature d"], k: int) -> sparse.csr_array:
    """Return the k largest positive inner products of each token with the atoms."""
    products = x.astype(np.float64) @ atoms.T.astype(np.float64)
    support = np.argpartition(-products, k - 1, axis=1)[:, :k]
    return _rows(support, np.take_along_axis(products, support, axis=1), len(atoms))


def _least_squares(gram: np.ndarray, target: np.ndarray, support: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Coefficients [token, slot] of least squares on the first `size` slots of each token's support, 0 elsewhere."""
    slots = np.arange(support.shape[1])
    used = slots[None, :] < size[:, None]
    both = used[:, :, None] & used[:, None, :]
    system = np.where(both, gram[support[:, :, None], support[:, None, :]], np.eye(len(slots)))
    right = np.where(used, np.take_along_axis(target, support, axis=1), 0.0)
    return np.asarray(np.linalg.solve(system, right[:, :, None])[:, :, 0])


def _rows(support: np.ndarray, values: np.ndarray, features: int) -> sparse.csr_array:
    """Compressed rows of the positive coefficients."""
    token, slot = np.nonzero(values > 0)
    entries = (values[token, slot].astype(np.float32), (token, support[token, slot]))
    return sparse.csr_array(entries, shape=(len(values), features))
