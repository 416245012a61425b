"""Whether new observations come from another population than old ones: the population stability index.

A reference keeps, of each variable, the deciles of the old values and the shares that fell into them, so that new
values can be compared without the old ones. Pure functions.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

BINS = 10  # equally full on the reference
BLOCKS = 5  # the longest stretches of the reference are a fifth of it,
SHORTEST = 20  # the shortest hold at least so many values
DRIFTED = 0.25  # a PSI above is commonly taken for another population
CHANCE = 0.01  # share of independent samples from one population that exceed the bound of their size
DRAWS = 1000  # simulated pairs of samples behind it
_FLOOR = 1e-4  # share that an empty bin counts as


class Drift(NamedTuple):
    """How far one variable has moved."""

    psi: float
    bound: float  # above it the variable has drifted
    values: int  # new ones that could be judged

    @property
    def drifted(self) -> bool:
        """Whether the index exceeds its bound."""
        return self.psi > self.bound

    @property
    def judged(self) -> bool:
        """Whether there were values enough to say."""
        return self.values > 0 and math.isfinite(self.bound)


def reference(values: np.ndarray) -> dict[str, Any]:
    """Edges, shares and number of the finite ones of old values (n,), in time order; ready for JSON.

    ``within`` is how far the old values move by themselves: pairs of a length and of the largest index of a stretch of
    so many values against the rest, from fifths of all down by halves. Neighbours in time are alike, so that the
    shorter a stretch, the further it lies from the whole.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    cut = edges(finite)
    return {
        "edges": cut.tolist(), "shares": shares(finite, cut).tolist(), "count": int(finite.size),
        "within": _within(finite, cut),
    }  # fmt: skip


def _within(values: np.ndarray, cut: np.ndarray) -> list[list[float]]:
    found: list[list[float]] = []
    bins, kinds, count = _bins(values, cut), 2 * cut.size + 1, BLOCKS
    whole = np.bincount(bins, minlength=kinds)
    while len(values) // count >= SHORTEST:
        stretch = np.arange(len(values)) * count // len(values)
        own = np.bincount(stretch * kinds + bins, minlength=count * kinds).reshape(count, kinds)
        size = own.sum(axis=1, keepdims=True)
        farthest = _index((whole - own) / (len(values) - size), own / size).max()
        found.append([len(values) // count, float(farthest)])
        count *= 2
    return found


def edges(values: np.ndarray) -> np.ndarray:
    """Deciles of values (n,), ends included, each once."""
    found: np.ndarray = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1))) if len(values) else np.empty(0)
    return found


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of values (n,) below, on and between the edges: (2 edges + 1,).

    A value that the reference has often is an edge of its own, hence a bin of its own.
    """
    found: np.ndarray = np.bincount(_bins(values, edges), minlength=2 * edges.size + 1) / max(len(values), 1)
    return found


def _bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")


def stability_index(old: np.ndarray, new: np.ndarray) -> float:
    """Population stability index of two vectors of shares: ``sum (q - p) ln(q / p)``; an empty bin counts as 1e-4."""
    return float(_index(old, new))


def _index(old: np.ndarray, new: np.ndarray) -> Any:
    p, q = (np.maximum(share, _FLOOR) for share in (old, new))
    return ((q - p) * np.log(q / p)).sum(axis=-1)


def compare(old: Mapping[str, Any], values: np.ndarray) -> Drift:
    """Compare new values (n,) with the `reference` of a variable; what is not finite is left out.

    The bound is 0.25, or how far stretches of the old values that are no longer than the new ones lie from the rest
    (``within``), or what chance exceeds once in a hundred times with so few values, whichever is largest. Chance is
    simulated: two independent samples of the old shares, one of each size. Values fewer than the shortest stretch are
    not judged: their bound is infinite.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size or not old["count"]:
        return Drift(0.0, math.inf, int(finite.size))
    before = np.array(old["shares"])
    psi = stability_index(before, shares(finite, np.array(old["edges"])))
    near = [index for length, index in old["within"] if length <= finite.size]  # the longest first
    if old["within"] and not near:
        return Drift(psi, math.inf, int(finite.size))
    bound = max(_bound(before, old["count"], finite.size), near[0] if near else 0.0)
    return Drift(psi, bound, int(finite.size))


def reference_share(happened: int, count: int) -> dict[str, Any]:
    """Reference of how often something happened among so many occasions."""
    return {"share": happened / count if count else 0.0, "count": count}


def compare_share(old: Mapping[str, Any], happened: int, count: int) -> Drift:
    """Compare how often something happens now with its `reference_share`: the index of the two outcomes.

    The bound is 0.25 or what chance exceeds once in a hundred times; fewer than 20 occasions are not judged.
    """
    if not count or not old["count"]:
        return Drift(0.0, math.inf, count)
    before, now = (np.array([share, 1 - share]) for share in (old["share"], happened / count))
    bound = _bound(before, old["count"], count) if count >= SHORTEST else math.inf
    return Drift(stability_index(before, now), bound, count)


def _bound(population: np.ndarray, old: int, new: int) -> float:
    rng = np.random.default_rng(0)
    population = population / population.sum()
    samples = [rng.multinomial(size, population, DRAWS) / size for size in (old, new)]
    return max(DRIFTED, float(np.quantile(_index(*samples), 1 - CHANCE)))
