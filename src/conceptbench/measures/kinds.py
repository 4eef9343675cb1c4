"""Named kinds: does one latent unite visually unlike things that only language gives one name?

United AUROC of a latent for a kind: the smallest, over the members of the kind, of the AUROC that tells images with
that member from images without any member. A latent of one shape or colour fails on the other members, so a high value
means that the latent unites all of them. The latent is chosen on split A and scored on split B. The null is the best
latent for random groups of as many compositions that share no value, none of which belongs to a kind.
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

    n_null: int = 100
    """Random groups."""
    minimum_images: int = 5
    """Images a member needs on both splits to enter a group."""
    n_resamples: int = 1000


@dataclass(frozen=True)
class _Group:
    """Presence [image, member] of the members of one group on both splits."""

    positive_a: NDArray[np.bool_]
    positive_b: NDArray[np.bool_]


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
        (Benjamini-Hochberg over kinds), estimate, low, high, n (images of B), note.
        `kinds_null`: group, n_members, estimate.
    """
    spec = spec or KindSpec()
    null_groups = _null_groups(objects_a, objects_b, images, kinds, rng, spec)
    null = [found[2] for found in _choose(a, b, null_groups)]
    null_frame = pd.DataFrame(
        {"group": range(len(null)), "n_members": [g.positive_a.shape[1] for g in null_groups], "estimate": null}
    )
    weights = image_weights(len(images[1]), spec.n_resamples, rng)
    rows = []
    for kind, members in kinds.items():
        group = _group(objects_a, objects_b, images, members)
        names = [" ".join(f"{factor}={value}" for factor, value in m.items()) for m in members]
        row = {"kind": kind, "statistic": "united_auroc", "members": "; ".join(names)}
        rows.append(row | _united(a, b, group, names, weights, np.asarray(null), spec))
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    table["q"] = np.nan
    if tested.any():
        table.loc[tested, "q"] = benjamini_hochberg(table.loc[tested, "p"].to_numpy())
    return table, null_frame


def _group(
    objects_a: pd.DataFrame,
    objects_b: pd.DataFrame,
    images: tuple[Sequence[int], Sequence[int]],
    members: Sequence[Composition],
) -> _Group:
    return _Group(
        composition_presence(objects_a, images[0], members), composition_presence(objects_b, images[1], members)
    )


def _enough(group: _Group, spec: KindSpec) -> bool:
    sides = (group.positive_a, group.positive_b)
    return all(min(p.sum(axis=0).min(), _outside(p).sum()) >= spec.minimum_images for p in sides)


def _outside(positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Images without any member of the group."""
    return np.asarray(np.logical_not(positive.any(axis=1)))


def _choose(a: Side, b: Side, groups: Sequence[_Group]) -> list[tuple[int, float, float, int]]:
    """For every group: best column on A, its united AUROC on A and on B, and the weakest member on B."""
    if not groups:
        return []
    positive = np.concatenate([group.positive_a for group in groups], axis=1)
    outside = [np.repeat(_outside(g.positive_a)[:, None], g.positive_a.shape[1], axis=1) for g in groups]
    members = rank_all(a.scores, positive, np.concatenate(outside, axis=1)).auroc
    starts = np.cumsum([0, *(group.positive_a.shape[1] for group in groups)])
    found = []
    for group, first, last in zip(groups, starts, starts[1:], strict=False):
        on_a = np.nan_to_num(members[:, first:last].min(axis=1), nan=0.0)
        best = int(np.argmax(on_a))
        items, values = column(b.scores, best)
        negative = _outside(group.positive_b).astype(np.float64)
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
    empty |= dict.fromkeys(("null_median", "null_high", "estimate", "low", "high"), np.nan) | {"n_null": len(null)}
    if not _enough(group, spec):
        return empty | {"note": f"a member has fewer than {spec.minimum_images} images on a split"}
    best, selected, point, weakest = _choose(a, b, [group])[0]
    items, values = column(b.scores, best)
    outside = _outside(group.positive_b).astype(np.float64)
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
    objects_a: pd.DataFrame,
    objects_b: pd.DataFrame,
    images: tuple[Sequence[int], Sequence[int]],
    kinds: Mapping[str, Sequence[Composition]],
    rng: np.random.Generator,
    spec: KindSpec,
) -> list[_Group]:
    """Random groups shaped like the kinds: as many members, the same factors fixed, no value shared, no kind member."""
    templates = [[tuple(member) for member in members] for members in kinds.values()]
    if not templates:
        raise ConceptBenchError("The named-kinds measure got no kinds; pass at least one with its members.")
    pool = _pool(objects_a, objects_b, images, kinds, spec)
    presence = {factors: _group(objects_a, objects_b, images, found) for factors, found in pool.items()}
    groups: list[_Group] = []
    for attempt in range(spec.n_null * 20):
        template = templates[attempt % len(templates)]
        if len(groups) == spec.n_null:
            break
        if any(not pool[factors] for factors in template):
            continue
        drawn = [int(rng.integers(len(pool[factors]))) for factors in template]
        members = [pool[factors][at] for factors, at in zip(template, drawn, strict=True)]
        if any(set(m.items()) & set(o.items()) for m, o in combinations(members, 2)):
            continue
        columns = [(presence[factors], at) for factors, at in zip(template, drawn, strict=True)]
        group = _Group(
            np.stack([both.positive_a[:, at] for both, at in columns], axis=1),
            np.stack([both.positive_b[:, at] for both, at in columns], axis=1),
        )
        if _enough(group, spec):
            groups.append(group)
    return groups


def _pool(
    objects_a: pd.DataFrame,
    objects_b: pd.DataFrame,
    images: tuple[Sequence[int], Sequence[int]],
    kinds: Mapping[str, Sequence[Composition]],
    spec: KindSpec,
) -> dict[tuple[str, ...], list[Composition]]:
    """Compositions with enough images on both splits and no object in common with a kind, for every set of factors."""
    members = [dict(member) for group in kinds.values() for member in group]
    kept = (objects_a[objects_a["image"].isin(list(images[0]))], objects_b[objects_b["image"].isin(list(images[1]))])
    pool: dict[tuple[str, ...], list[Composition]] = {}
    for factors in dict.fromkeys(tuple(member) for member in members):
        counts = [o.drop_duplicates(["image", *factors]).groupby(list(factors)).size() for o in kept]
        common = pd.concat(counts, axis=1).fillna(0).min(axis=1)
        found: list[Composition] = []
        for values in common[common >= spec.minimum_images].index:
            composition = dict(zip(factors, [str(v) for v in np.atleast_1d(np.asarray(values, object))], strict=True))
            if not any(_compatible(composition, member) for member in members):
                found.append(composition)
        pool[factors] = found
    return pool


def _compatible(one: Composition, other: Composition) -> bool:
    """Whether one object could fit both compositions."""
    return all(other.get(factor, value) == value for factor, value in one.items())
