"""Sparse coding or one K-SVD iteration by one of three toolkits: our own, dictlearn, or scikit-learn's coder.

The task is `code` or `iterate`. Of coding, only the coding is timed; the error is that of its last codes. An iteration
is one sparse coding and one update of the dictionary; dictlearn's `fit` does them in the other order, from codes that
are handed to it, so that neither does more than one of each.
"""

import time

import numpy as np
from child import finish, read_request, wait_for_turn


def ours(request, signals, atoms):
    from conceptbench.dictionaries.ksvd import ksvd_iteration
    from conceptbench.dictionaries.omp import omp_encode

    k, sign = request["k"], "split"

    def code():
        return omp_encode(signals, atoms, k, sign)

    def decode(found):
        indices, values = found
        return np.einsum("nk,nkd->nd", np.where(indices >= 0, values, 0), atoms[indices])

    def iterate():
        done = ksvd_iteration(signals, atoms, k, rng=np.random.default_rng(request["seed"]), sign=sign)
        return float(np.sqrt(done.after))

    return code, decode, iterate


def dictlearn(request, signals, atoms):
    from dictlearn import DictionaryLearning, sparse_encode

    k = request["k"]
    double, rows = signals.astype(np.float64), atoms.astype(np.float64)

    def code():
        return sparse_encode(double, rows, algorithm="omp", n_nonzero_coefs=k)

    codes = sparse_encode(double, rows, algorithm="omp", n_nonzero_coefs=k) if request["task"] == "iterate" else None

    def iterate():
        learner = DictionaryLearning(
            n_components=len(rows), fit_algorithm=request["setting"], n_nonzero_coefs=k, max_iter=1, dict_init=rows,
            code_init=codes, random_state=request["seed"],
        )  # fmt: skip
        error = learner.fit(double).error_[-1]
        return float(error * np.sqrt(double.size))

    return code, lambda codes: codes @ rows, iterate


def scikit_learn(request, signals, atoms):
    from sklearn.linear_model import orthogonal_mp_gram

    def code():
        return orthogonal_mp_gram(atoms @ atoms.T, atoms @ signals.T, n_nonzero_coefs=request["k"])

    return code, lambda codes: codes.T @ atoms, None


TOOLKITS = {"conceptbench": ours, "dictlearn": dictlearn, "scikit-learn": scikit_learn}


def main() -> None:
    request = read_request()
    d, n = request["d"], request["signals"]
    signals = np.fromfile(request["signals_file"], np.float32, n * d).reshape(n, d)
    atoms = np.fromfile(request["atoms_file"], np.float32).reshape(-1, d)
    code, decode, iterate = TOOLKITS[request["toolkit"]](request, signals, atoms)
    work = code if request["task"] == "code" else iterate
    seconds, result = [], None
    for repetition in range(request["steps"]):
        if request["turn"] and repetition >= request["warm_up"]:
            wait_for_turn()
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    error = float(np.linalg.norm(signals - decode(result))) if request["task"] == "code" else result
    relative = error / float(np.linalg.norm(signals))
    measured = {"step_seconds": seconds[request["warm_up"] :], "relative_error": relative}
    finish(request, packages=(request["toolkit"],), measured=measured)


if __name__ == "__main__":
    main()
