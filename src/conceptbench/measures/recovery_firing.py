"""Do latents fire where the true features do? Matched on split A, scored on split B.

Firing is value > 0 on both sides. Next to the one-to-one match stand its three ways of failing: splitting (several
latents share a feature), absorption (a parent's latent is silent where a child fires; Chanin et al., arXiv 2409.14507)
and shrinkage (a latent's contribution is smaller than the feature's).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from conceptbench.measures.recovery import over_chance

MIN_FIRINGS: Final = 10
"""A true feature that fires on fewer tokens of either split is left out (NaN)."""
MIN_PRECISION: Final = 0.5
"""Absorption and shrinkage are asked of features whose latent has this precision on split A: the others have none."""
CANDIDATES: Final = 5
"""Latents of best F1 on split A that a set may take."""
MIN_GAIN: Final = 0.01
"""Gain in F1 on split A from which on a set takes one more latent."""

Scores = dict[str, Float64[np.ndarray, "feature"]]


@dataclass(frozen=True, eq=False)
class Side:
    """True codes and learnt codes of the same tokens of one split."""

    truth: sparse.csr_array
    """[token, feature] magnitudes, >= 0."""
    codes: sparse.csr_array
    """[token, latent] values, >= 0."""

    @property
    def counts(self) -> tuple[Float64[np.ndarray, "feature"], Float64[np.ndarray, "latent"]]:
        """Tokens on which each feature, and each latent, fires."""
        return _firing(self.truth).sum(axis=0), _firing(self.codes).sum(axis=0)

    def f1(self) -> Float64[np.ndarray, "feature latent"]:
        """F1 of every latent's firing as a detector of every feature's."""
        both = (_firing(self.truth).T @ _firing(self.codes)).toarray()
        features, latents = self.counts
        return np.asarray(2 * both / np.maximum(features[:, None] + latents[None, :], 1.0))


def firing_scores(a: Side, b: Side, rng: np.random.Generator) -> tuple[Scores, Int64[np.ndarray, "feature"]]:
    """Return F1, precision and recall on B of the one-to-one match of A, with their null, and the matched latents.

    The null repeats matching and scoring with the tokens of the codes permuted on both splits: what base rates and the
    choice among all latents give.
    """
    usable = (a.counts[0] >= MIN_FIRINGS) & (b.counts[0] >= MIN_FIRINGS)
    latent = match_firing(a)
    precision, recall, f1 = _detection(b, latent)
    shuffled = [Side(side.truth, side.codes[rng.permutation(side.codes.shape[0])]) for side in (a, b)]
    null = _detection(shuffled[1], match_firing(shuffled[0]))[2]
    chance = float(null[usable].mean()) if usable.any() else 0.0
    scores = {"firing_precision": precision, "firing_recall": recall, "f1": f1, "f1_null": null}
    scores["f1_over_null"] = over_chance(f1, chance)
    return {name: np.where(usable, values, np.nan) for name, values in scores.items()}, latent


def match_firing(side: Side) -> Int64[np.ndarray, "feature"]:
    """Return the latent of each feature in the assignment of largest summed F1, -1 for none."""
    f1 = side.f1()
    rows, columns = linear_sum_assignment(f1, maximize=True)
    latent = np.full(len(f1), -1, np.int64)
    latent[rows] = np.where(f1[rows, columns] > 0, columns, -1)
    return latent


def splitting_scores(a: Side, b: Side) -> Scores:
    """Return size and F1 on B of each feature's set of latents, and whether it takes more than one.

    The set is grown on A: from the latent of best F1 on, the candidate whose union of firings raises the F1 most is
    added while the gain is at least `MIN_GAIN`.
    """
    usable = (a.counts[0] >= MIN_FIRINGS) & (b.counts[0] >= MIN_FIRINGS)
    f1 = a.f1()
    fires_a, fires_b = (_columns(side.codes) for side in (a, b))
    true_a, true_b = (_columns(side.truth) for side in (a, b))
    size, score = np.full(len(f1), np.nan), np.full(len(f1), np.nan)
    for feature in np.flatnonzero(usable):
        best = np.argsort(-f1[feature], kind="stable")[:CANDIDATES]
        chosen = _grow(true_a[feature], fires_a[best])
        size[feature] = len(chosen)
        score[feature] = _f1_of(true_b[feature], np.logical_or.reduce(fires_b[best[chosen]], axis=0))
    return {"set_size": size, "set_f1": score, "splitting": np.where(usable, (size > 1).astype(np.float64), np.nan)}


def absorption_scores(
    a: Side, b: Side, latent: Int64[np.ndarray, "feature"], parents: Int64[np.ndarray, "feature"]
) -> Scores:
    """Return, for features with children, the recall on B that is lost where a child fires, and its null.

    `absorption` = recall of the parent's latent where no child fires - recall where one does. The null is the same
    difference for the features outside the parent's family, weighted by how often they fire together with it: any
    further feature on a token makes it harder for a latent to fire. NaN for other features.
    """
    precision = _detection(a, latent)[0]
    hits = _firing(_take(b.codes, latent))
    truth = _firing(b.truth)
    lost, null = np.full(len(parents), np.nan), np.full(len(parents), np.nan)
    for parent in np.unique(parents[parents >= 0]):
        rows = np.flatnonzero(truth[:, [parent]].toarray()[:, 0])
        if precision[parent] < MIN_PRECISION or len(rows) < MIN_FIRINGS:
            continue
        hit, others = hits[rows][:, [parent]].toarray()[:, 0], truth[rows]
        child = np.asarray(others[:, np.flatnonzero(parents == parent)].sum(axis=1)).ravel() > 0
        if min(child.sum(), (~child).sum()) < MIN_FIRINGS:
            continue
        lost[parent] = hit[~child].mean() - hit[child].mean()
        null[parent] = _unrelated_loss(hit, others, ~_family(parents, int(parent)))
    return {"absorption": lost, "absorption_null": null, "absorption_over_null": lost - null}


def shrinkage_scores(
    a: Side,
    b: Side,
    latent: Int64[np.ndarray, "feature"],
    atoms: Float[np.ndarray, "feature d"],
    directions: Float[np.ndarray, "latent d"],
) -> Scores:
    """Return 1 - the slope (through 0) of a latent's contribution along its atom against the true magnitude on B.

    Only tokens where both fire count; 0 is unbiased, positive values are shrinkage. NaN without a good latent.
    """
    along = np.einsum("fd,fd->f", atoms.astype(np.float64), directions[latent].astype(np.float64))
    values = _take(b.codes, latent)
    products = np.asarray(b.truth.multiply(values).sum(axis=0)).ravel() * along
    squares = np.asarray(b.truth.power(2).multiply(_firing(values)).sum(axis=0)).ravel()
    good = (_detection(a, latent)[0] >= MIN_PRECISION) & (squares > 0)
    return {"shrinkage": np.where(good, 1 - products / np.where(good, squares, 1.0), np.nan)}


def _detection(side: Side, latent: Int64[np.ndarray, "feature"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 [feature] of each feature's latent; 0 without one."""
    truth, fires = _firing(side.truth), _firing(_take(side.codes, latent))
    both = np.asarray(truth.multiply(fires).sum(axis=0)).ravel()
    true, fired = truth.sum(axis=0), fires.sum(axis=0)
    sums = np.maximum(true + fired, 1.0)
    return both / np.maximum(fired, 1.0), both / np.maximum(true, 1.0), 2 * both / sums


def _unrelated_loss(hit: Float64[np.ndarray, "token"], others: sparse.csr_array, unrelated: np.ndarray) -> float:
    """Recall lost where an unrelated feature fires, averaged over these features by how often they do."""
    with_it = np.asarray(others.sum(axis=0)).ravel()
    hits_with = np.asarray(others.T @ hit).ravel()
    usable = unrelated & (with_it > 0) & (with_it < len(hit))
    if not usable.any():
        return float("nan")
    inside, count = hits_with[usable] / with_it[usable], with_it[usable]
    outside = (hit.sum() - hits_with[usable]) / (len(hit) - count)
    return float(np.average(outside - inside, weights=count))


def _family(parents: Int64[np.ndarray, "feature"], feature: int) -> Bool[np.ndarray, "feature"]:
    """The feature, its ancestors and its descendants."""
    family = np.zeros(len(parents), bool)
    ancestor = feature
    while ancestor >= 0:
        family[ancestor] = True
        ancestor = int(parents[ancestor])
    below = np.zeros(len(parents), bool)
    below[feature] = True
    for child in np.flatnonzero(parents >= 0):
        below[child] |= below[parents[child]]
    return family | below


def _grow(true: Bool[np.ndarray, "token"], fires: Bool[np.ndarray, "candidate token"]) -> list[int]:
    """Candidates of the set in the order in which they were added; the first is the best one."""
    chosen, union = [0], fires[0]
    score = _f1_of(true, union)
    while True:
        rest = [index for index in range(len(fires)) if index not in chosen]
        trials = [_f1_of(true, union | fires[index]) for index in rest]
        if not rest or max(trials) < score + MIN_GAIN:
            return chosen
        best = rest[int(np.argmax(trials))]
        score, union = max(trials), union | fires[best]
        chosen.append(best)


def _f1_of(true: Bool[np.ndarray, "token"], fires: Bool[np.ndarray, "token"]) -> float:
    total = np.count_nonzero(true) + np.count_nonzero(fires)
    return 2 * np.count_nonzero(true & fires) / total if total else 0.0


def _take(codes: sparse.csr_array, latent: Int64[np.ndarray, "feature"]) -> sparse.csr_array:
    """The column of each feature's latent; empty where there is none."""
    taken = sparse.csc_array(codes)[:, np.maximum(latent, 0)]
    return sparse.csr_array(taken @ sparse.diags_array((latent >= 0).astype(taken.dtype)))


def _firing(codes: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array((codes > 0).astype(np.float64))


def _columns(codes: sparse.csr_array) -> Bool[np.ndarray, "column token"]:
    return np.ascontiguousarray((codes > 0).toarray().T)
