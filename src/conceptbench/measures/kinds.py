"""Named kinds: does one latent unite visually unlike things that only language gives one name?

United AUROC of a latent for a kind: the smallest, over the members of the kind, of the AUROC that tells images with
that member from images without any member. A latent of one shape or colour fails on the other members, so a high value
means that the latent unites all of them. The latent is chosen on split A and scored on split B. The null is the best
latent for random groups of as many compositions that share no value, none of which belongs to a kind.

A smallest AUROC over few images is low by luck alone, and the world shows members of kinds more often than other
compositions. Therefore every member, of a kind or of a random group, counts with equally many images: for each set of
factors and each split a number is fixed, and that many images are drawn from those that show the member. The others
are left out, neither positive nor negative. The draw does not depend on the dictionary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import benjamini_hochberg, permutation_p
from conceptbench.measures.ranking import column, curve, rank_all, replicate
from conceptbench.measures.resampling import image_weights, interval
from conceptbench.measures.sparse import split_sign
from conceptbench.measures.truth import Side

Composition = Mapping[str, str]
"""Factor -> value for the factors that are fixed, for example {"shape": "ring", "colour": "red"}."""


@dataclass(frozen=True)
class KindSpec:
    """Choices of the named-kinds measure."""

    n_null: int = 200
    """Random groups."""
    minimum_images: int = 5
    """Images a member needs on both splits to enter a group."""
    n_resamples: int = 1000


@dataclass(frozen=True)
class _Group:
    """Images that count for each member [image, member], and images without any member [image], on both splits."""

    positive_a: NDArray[np.bool_]
    positive_b: NDArray[np.bool_]
    outside_a: NDArray[np.bool_]
    outside_b: NDArray[np.bool_]


@dataclass(frozen=True)
class _Pool:
    """Compositions that fix the same factors and belong to no kind: presence [image, composition] on both splits.

    `counts` is the number of images that each member with these factors counts with, on split A and on split B.
    """

    compositions: list[Composition]
    present_a: NDArray[np.bool_]
    present_b: NDArray[np.bool_]
    counts: tuple[int, int]


def composition_presence(
    objects: pd.DataFrame, images: Sequence[int], compositions: Sequence[Composition]
) -> NDArray[np.bool_]:
    """Whether each image has one object with all values of a composition: [image, composition].

    `objects` has one row an object: image and one column a factor.
    """
    position = {int(image): at for at, image in enumerate(images)}
    rows = objects[objects["image"].isin(position)]
    at = rows["image"].map(position).to_numpy()
    present = np.zeros((len(position), len(compositions)), dtype=np.bool_)
    values = {f: rows[f].to_numpy(dtype=str) for f in dict.fromkeys(f for c in compositions for f in c)}
    for index, composition in enumerate(compositions):
        fits = np.ones(len(rows), dtype=np.bool_)
        for factor, value in composition.items():
            fits &= values[factor] == value
        present[at[fits], index] = True
    return present


def unite_kinds(
    a: Side,
    b: Side,
    objects_a: pd.DataFrame,
    objects_b: pd.DataFrame,
    images: tuple[Sequence[int], Sequence[int]],
    kinds: Mapping[str, Sequence[Composition]],
    rng: np.random.Generator,
    spec: KindSpec | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """United AUROC of the best latent of every kind, beside random groups of compositions.

    Args:
        a, b: scores of both splits (`truth.side`); their factor labels are not used.
        objects_a, objects_b: one row an object: image, and a column for every factor of the compositions.
        images: image numbers of both splits in the order of the codes. kinds: members of every kind.

    Returns:
        `kinds`: kind, latent, sign, statistic (united_auroc), selected (on A), members (text), weakest_member,
        null_median, null_high (95 % quantile), n_null, p (share of null groups at least as good, +1 correction), q
        (Benjamini-Hochberg over kinds), n_positive (images of B that count for the rarest member), estimate, low,
        high, n (images of B), note. `kinds_null`: group, n_members, n_positive, estimate.
    """
    spec = spec or KindSpec()
    presence = {kind: _presence(objects_a, objects_b, images, members) for kind, members in kinds.items()}
    pools = _pools(objects_a, objects_b, images, kinds, presence, spec)
    groups = {kind: _kind_group(members, *presence[kind], pools, rng) for kind, members in kinds.items()}
    null_groups = _null_groups(pools, kinds, rng, spec)
    null = [found[2] for found in _choose(a, b, null_groups)]
    null_frame = pd.DataFrame({"group": range(len(null)), "n_members": [g.positive_a.shape[1] for g in null_groups]})
    null_frame = null_frame.assign(n_positive=[_rarest(group) for group in null_groups], estimate=null)
    weights = image_weights(len(images[1]), spec.n_resamples, rng)
    rows = []
    for kind, members in kinds.items():
        group = groups[kind]
        names = [" ".join(f"{factor}={value}" for factor, value in m.items()) for m in members]
        row = {"kind": kind, "statistic": "united_auroc", "members": "; ".join(names)}
        rows.append(row | _united(a, b, group, names, weights, np.asarray(null), spec))
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    table["q"] = np.nan
    if tested.any():
        table.loc[tested, "q"] = benjamini_hochberg(table.loc[tested, "p"].to_numpy())
    return table, null_frame


def _presence(
    objects_a: pd.DataFrame,
    objects_b: pd.DataFrame,
    images: tuple[Sequence[int], Sequence[int]],
    members: Sequence[Composition],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return composition_presence(objects_a, images[0], members), composition_presence(objects_b, images[1], members)


def _kind_group(
    members: Sequence[Composition],
    present_a: NDArray[np.bool_],
    present_b: NDArray[np.bool_],
    pools: Mapping[tuple[str, ...], _Pool],
    rng: np.random.Generator,
) -> _Group:
    """A kind whose members count with the number of images of their factors."""
    counts = [pools[tuple(member)].counts for member in members]
    return _thinned(present_a, present_b, counts, rng)


def _thinned(
    present_a: NDArray[np.bool_],
    present_b: NDArray[np.bool_],
    counts: Sequence[tuple[int, int]],
    rng: np.random.Generator,
) -> _Group:
    """A group whose members keep at most `counts` (on A, on B) images each, drawn without replacement."""
    kept = []
    for side, present in enumerate((present_a, present_b)):
        positive = np.zeros_like(present)
        for at, limits in enumerate(counts):
            shown = np.flatnonzero(present[:, at])
            positive[rng.permutation(shown)[: limits[side]], at] = True
        kept.append(positive)
    return _Group(kept[0], kept[1], _outside(present_a), _outside(present_b))


def _enough(group: _Group, spec: KindSpec) -> bool:
    sides = ((group.positive_a, group.outside_a), (group.positive_b, group.outside_b))
    return all(min(positive.sum(axis=0).min(), outside.sum()) >= spec.minimum_images for positive, outside in sides)


def _rarest(group: _Group) -> int:
    """Images of B that count for the member with the fewest."""
    return int(group.positive_b.sum(axis=0).min())


def _outside(positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Images without any member of the group."""
    return np.asarray(np.logical_not(positive.any(axis=1)))


def _choose(a: Side, b: Side, groups: Sequence[_Group]) -> list[tuple[int, float, float, int]]:
    """For every group: best column on A, its united AUROC on A and on B, and the weakest member on B."""
    if not groups:
        return []
    positive = np.concatenate([group.positive_a for group in groups], axis=1)
    outside = [np.repeat(g.outside_a[:, None], g.positive_a.shape[1], axis=1) for g in groups]
    members = rank_all(a.scores, positive, np.concatenate(outside, axis=1)).auroc
    starts = np.cumsum([0, *(group.positive_a.shape[1] for group in groups)])
    found = []
    for group, first, last in zip(groups, starts, starts[1:], strict=False):
        on_a = np.nan_to_num(members[:, first:last].min(axis=1), nan=0.0)
        best = int(np.argmax(on_a))
        items, values = column(b.scores, best)
        negative = group.outside_b.astype(np.float64)
        on_b = [curve(items, values, member.astype(np.float64), negative).auroc for member in group.positive_b.T]
        found.append((best, float(on_a[best]), float(min(on_b)), int(np.argmin(on_b))))
    return found


def _united(
    a: Side,
    b: Side,
    group: _Group,
    names: list[str],
    weights: NDArray[np.float64],
    null: NDArray[np.float64],
    spec: KindSpec,
) -> dict[str, Any]:
    n = weights.shape[1]
    empty = {"latent": -1, "sign": 1, "selected": np.nan, "weakest_member": "", "p": np.nan, "n": n}
    empty |= dict.fromkeys(("null_median", "null_high", "estimate", "low", "high"), np.nan)
    empty |= {"n_null": len(null), "n_positive": _rarest(group)}
    if not _enough(group, spec):
        return empty | {"note": f"a member has fewer than {spec.minimum_images} images on a split"}
    best, selected, point, weakest = _choose(a, b, [group])[0]
    items, values = column(b.scores, best)
    outside = group.outside_b.astype(np.float64)
    clusters = np.arange(n)
    drawn = [
        replicate(items, values, member.astype(np.float64), outside, clusters, weights).auroc
        for member in group.positive_b.T
    ]
    latent, sign = split_sign(best, b.width)
    row = {"latent": latent, "sign": sign, "selected": selected, "weakest_member": names[weakest], "n_null": len(null)}
    if len(null):
        row |= {"null_median": float(np.median(null)), "null_high": float(np.quantile(null, 0.95))}
        row["p"] = float(permutation_p(point, null))
    estimate = interval(point, np.min(drawn, axis=0), n).row()
    del estimate["seed"]
    return empty | row | estimate


def _null_groups(
    pools: Mapping[tuple[str, ...], _Pool],
    kinds: Mapping[str, Sequence[Composition]],
    rng: np.random.Generator,
    spec: KindSpec,
) -> list[_Group]:
    """Random groups shaped like the kinds: as many members, the same factors fixed, no value shared, no kind member."""
    templates = [[tuple(member) for member in members] for members in kinds.values()]
    groups: list[_Group] = []
    for attempt in range(spec.n_null * 20):
        parts = [pools[factors] for factors in templates[attempt % len(templates)]]
        if len(groups) == spec.n_null:
            break
        if any(not part.compositions for part in parts):
            continue
        drawn = [int(rng.integers(len(part.compositions))) for part in parts]
        members = [part.compositions[at] for part, at in zip(parts, drawn, strict=True)]
        if any(set(m.items()) & set(o.items()) for m, o in combinations(members, 2)):
            continue
        columns = list(zip(parts, drawn, strict=True))
        present_a = np.stack([part.present_a[:, at] for part, at in columns], axis=1)
        present_b = np.stack([part.present_b[:, at] for part, at in columns], axis=1)
        group = _thinned(present_a, present_b, [part.counts for part in parts], rng)
        if _enough(group, spec):
            groups.append(group)
    return groups


def _pools(
    objects_a: pd.DataFrame,
    objects_b: pd.DataFrame,
    images: tuple[Sequence[int], Sequence[int]],
    kinds: Mapping[str, Sequence[Composition]],
    presence: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    spec: KindSpec,
) -> dict[tuple[str, ...], _Pool]:
    """For every set of factors: compositions that no object of a kind fits, and the number of images to count with.

    The number is the median over compositions with enough images on both splits, or that of the rarest kind member
    where this is smaller; the pool holds the compositions with at least as many.
    """
    if not kinds:
        raise ConceptBenchError("The named-kinds measure got no kinds; pass at least one with its members.")
    members = [dict(member) for group in kinds.values() for member in group]
    shown = np.concatenate([np.stack([p.sum(axis=0) for p in presence[kind]], axis=1) for kind in kinds])
    kept = (objects_a[objects_a["image"].isin(list(images[0]))], objects_b[objects_b["image"].isin(list(images[1]))])
    pools: dict[tuple[str, ...], _Pool] = {}
    for factors in dict.fromkeys(tuple(member) for member in members):
        found, counts = _common(kept, factors, members, spec)
        limit = np.array([len(images[0]), len(images[1])], dtype=np.float64)
        if found:
            mine = shown[[tuple(member) == factors for member in members]]
            limits = np.concatenate([np.median(counts, axis=0)[None], mine[mine.min(axis=1) >= spec.minimum_images]])
            limit = np.floor(limits.min(axis=0))
        chosen = [found[at] for at in np.flatnonzero((counts >= limit).all(axis=1))]
        both = _presence(objects_a, objects_b, images, chosen)
        pools[factors] = _Pool(chosen, *both, counts=(int(limit[0]), int(limit[1])))
    return pools


def _common(
    kept: tuple[pd.DataFrame, pd.DataFrame],
    factors: tuple[str, ...],
    members: Sequence[Composition],
    spec: KindSpec,
) -> tuple[list[Composition], NDArray[np.float64]]:
    """Compositions of no kind with enough images on both splits, and their numbers of images [composition, split]."""
    sizes = [objects.drop_duplicates(["image", *factors]).groupby(list(factors)).size() for objects in kept]
    table = pd.concat(sizes, axis=1).fillna(0)
    found: list[Composition] = []
    counts: list[NDArray[np.float64]] = []
    for values, both in zip(table.index, table.to_numpy(dtype=np.float64), strict=True):
        composition = dict(zip(factors, [str(v) for v in np.atleast_1d(np.asarray(values, object))], strict=True))
        if both.min() >= spec.minimum_images and not any(_compatible(composition, member) for member in members):
            found.append(composition)
            counts.append(both)
    return found, np.array(counts).reshape(-1, 2)


def _compatible(one: Composition, other: Composition) -> bool:
    """Whether one object could fit both compositions."""
    return all(other.get(factor, value) == value for factor, value in one.items())
