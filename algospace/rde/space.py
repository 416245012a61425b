"""The space of regime vectors: its axes, what they mean, the archetypes in it, and how far to trust a vector.

Everything is fitted on train, except the names: they are measured on validation, since unsupervised training gives
a dimension no meaning of its own.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field

from algospace.params import Params
from algospace.performance import stationary_bootstrap_interval
from algospace.rde.measures import WORDS
from algospace.rde.model import RegimeVAE
from algospace.rde.persistence import kinetic_axes

Floats = NDArray[np.float64]

UNNAMED = "unnamed"
DRAWS = 500  # of a correlation's bootstrap
TINY = np.finfo(np.float64).tiny


class AlarmParams(Params):
    """Thresholds beyond which a regime vector raises an alarm."""

    magnitude: float = Field(gt=0)
    step: float = Field(gt=0)
    uniqueness: float = Field(gt=0, lt=1)


class Space(NamedTuple):
    """What is fitted on train's regime vectors (n, latent)."""

    spread: Floats  # (latent,): root mean square of each coordinate before the squashing
    axes: Floats  # (latent, latent): `kinetic_axes` of the coordinates before the squashing
    archetypes: Floats  # (k, latent): regime vectors at the centres of k-means
    radii: Floats  # (k,): root mean square distance of an archetype's own vectors from it, along the axes
    typical: Floats  # (2,): median distance from its own archetype, median step from one vector to the next

    @classmethod
    def fit(cls, vectors: np.ndarray, rows: np.ndarray, lag: int, k: int, seed: int) -> "Space":
        """Fit to train's vectors, of windows that end at ``rows`` (n,); windows ``lag`` rows apart share no bar."""
        y = unsquashed(vectors)
        axes = kinetic_axes(y, rows, lag)
        places = y @ axes
        from sklearn.cluster import KMeans  # here, since whoever decides fits nothing

        found = KMeans(k, n_init=10, random_state=seed).fit(places).labels_
        # k-means numbers its clusters by chance; the most populous one comes first.
        found = np.argsort(np.argsort(-np.bincount(found, minlength=k), kind="stable"))[found]
        centres = np.stack([y[found == cluster].mean(axis=0) for cluster in range(k)])
        squared = ((places - (centres @ axes)[found]) ** 2).sum(axis=1)
        radii = np.sqrt([squared[found == cluster].mean() for cluster in range(k)])
        away = np.sqrt(squared) / np.maximum(radii, TINY)[found]
        step = np.linalg.norm(np.diff(vectors, axis=0), axis=1)[np.diff(rows) == 1]
        return cls(
            np.sqrt((y**2).mean(axis=0)),
            axes,
            np.tanh(centres / 2),
            radii,
            np.array([np.median(away), np.median(step)]),
        )

    def places(self, vectors: np.ndarray) -> Floats:
        """Coordinates (n, latent) of vectors (n, latent) along the axes: distance says how unlike their futures are."""
        found: Floats = unsquashed(vectors) @ self.axes
        return found

    def distances(self, vectors: np.ndarray) -> Floats:
        """Distance of each vector (n, latent) from each archetype along the axes, in radii of that one, (n, k).

        In plain distance, as k-means has it while it searches, a wide cluster loses its near side to a narrow one. A
        regime that is rare and far from the usual one is such a cluster.
        """
        away = np.linalg.norm(self.places(vectors)[:, None] - self.places(self.archetypes), axis=2)
        found: Floats = away / np.maximum(self.radii, TINY)
        return found

    def nearest(self, vectors: np.ndarray) -> np.ndarray:
        """Number of the nearest archetype (n,) of each vector (n, latent)."""
        found: np.ndarray = self.distances(vectors).argmin(axis=1)
        return found


def orient(model: RegimeVAE, vectors: np.ndarray, volatility: np.ndarray) -> None:
    """Turn the latent to its principal axes, in place: most variance first, each rising with volatility.

    ``vectors`` (n, latent), as the model gives them after training, and ``volatility`` (n,) are of train's windows. A
    rotation keeps what the latent carries and removes what training leaves to chance.
    """
    mu = unsquashed(vectors)
    centred = mu - mu.mean(axis=0)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    axes = axes[:, np.argsort(-variance, kind="stable")]
    along = (centred @ axes).T @ (volatility - volatility.mean())
    axes = axes * np.where(along < 0, -1.0, 1.0)
    place(model, mu.mean(axis=0), axes)


def align(model: RegimeVAE, own: np.ndarray, vectors: np.ndarray) -> float:
    """Place another model's latent in an existing space, in place; return the R^2 of the placement.

    Least squares from the coordinates of ``own`` (n, latent), this model's vectors after training, to those of
    ``vectors`` (n, latent), which the space's own model gave to the same windows.
    """
    wanted, mu = unsquashed(vectors), unsquashed(own)
    centre = mu.mean(axis=0)
    design = np.column_stack([mu - centre, np.ones(len(mu))])
    solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
    axes, shift = solution[:-1], solution[-1]
    place(model, centre - np.linalg.lstsq(axes.T, shift, rcond=None)[0], axes)
    residual = design @ solution - wanted
    return float(1 - (residual**2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum())


def place(model: RegimeVAE, centre: np.ndarray, axes: np.ndarray) -> None:
    """Set the centre (latent,) and the axes (latent, latent), a column each, of a model's regime vectors."""
    model.centre.copy_(torch.from_numpy(np.asarray(centre, np.float32)))
    model.axes.copy_(torch.from_numpy(np.asarray(axes, np.float32)))


def unsquashed(vectors: np.ndarray) -> Floats:
    """Coordinates before tanh(y / 2)."""
    found: Floats = 2 * np.arctanh(np.clip(vectors.astype(np.float64), -1 + 1e-7, 1 - 1e-7))
    return found


class Meaning(NamedTuple):
    """What a dimension goes with on validation."""

    name: str  # of the measure of the largest |r|, or `UNNAMED`
    r: float
    low: float  # of the 95 % interval
    high: float


def meanings(vectors: np.ndarray, found: pd.DataFrame, min_r: float, mean_block: float, seed: int) -> list[Meaning]:
    """Name each dimension after the measure that it correlates with most; below ``min_r`` it stays unnamed.

    Parameters
    ----------
    vectors, found
        Regime vectors (n, latent) and measures of the same windows, in time order.
    mean_block
        Of the stationary bootstrap behind the intervals: neighbouring windows share most of their rows.

    Notes
    -----
    An interval that holds 0 leaves a dimension unnamed too, whatever its r.
    """
    named = []
    table = found.to_numpy(np.float64)
    for y in unsquashed(vectors).T:
        r = correlations(y, table)
        best = int(np.abs(r).argmax())

        def resampled(chosen: Floats, y: Floats = y, m: Floats = table[:, best]) -> Floats:
            at = chosen.astype(np.int64)
            return _correlation(y[at], m[at])

        low, high = stationary_bootstrap_interval(
            np.arange(len(y), dtype=np.float64), resampled, mean_block, DRAWS, seed
        )
        told = abs(r[best]) >= min_r and low * high > 0
        named.append(Meaning(str(found.columns[best]) if told else UNNAMED, float(r[best]), low, high))
    return named


def correlations(y: Floats, table: Floats) -> Floats:
    """Correlation of y (n,) with each column of a table (n, m); 0 where either is constant."""
    return _correlation(np.broadcast_to(y, (table.shape[1], len(y))), table.T)


def _correlation(a: Floats, b: Floats) -> Floats:
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (a, b))
    scale = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    product = (a * b).sum(axis=-1)
    r: Floats = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    return r


def archetype_names(nearest: np.ndarray, found: pd.DataFrame, archetypes: int) -> list[str]:
    """Names like "volatile, falling": the two measures on which an archetype's windows stand out most.

    Parameters
    ----------
    nearest
        Archetype (n,) of each window of validation.
    found
        Measures (n, m) of these windows, as `meanings` takes them.
    archetypes
        How many there are.

    Notes
    -----
    A measure counts when its mean over the archetype's windows lies half a standard deviation or more from that over
    all. The correlations of single dimensions would not do: a measure that several dimensions share is told by none.
    """
    table = found.to_numpy(np.float64)
    scores = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), TINY)
    names: list[str] = []
    for k in range(archetypes):
        own = scores[nearest == k]
        centre = own.mean(axis=0) if len(own) else np.zeros(table.shape[1])
        strongest = np.argsort(-np.abs(centre), kind="stable")[:2]
        words = [WORDS[found.columns[m]][int(centre[m] > 0)] for m in strongest if abs(centre[m]) >= 0.5]
        name = ", ".join(words) or "ordinary"
        again = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({again + 1})" if again else name)
    return names


class Quality(NamedTuple):
    """How far to trust each of n consecutive regime vectors: arrays (n,)."""

    archetype: np.ndarray  # int64, the nearest
    magnitude: Floats  # root mean square coordinate in spreads of train; about 1 on train
    stability: Floats  # 0.5 at train's median step from the vector before, 1 without a step; NaN for a first vector
    uniqueness: Floats  # 0.5 at train's median distance from the nearest archetype, 0.9 at 3.3 times it
    confidence: Floats  # share of the prior's variance that the window removes
    alarm: np.ndarray  # bool


def quality(
    space: Space, vectors: np.ndarray, confidence: np.ndarray, consecutive: np.ndarray, alarms: AlarmParams
) -> Quality:
    """Judge vectors (n, latent) in time order; each looks at itself and at the one before.

    ``consecutive`` (n,) says which vectors follow the one before by one bar.
    """
    magnitude = np.sqrt(((unsquashed(vectors) / np.maximum(space.spread, 1e-9)) ** 2).mean(axis=1))
    distances = space.distances(vectors)
    step = np.full(len(vectors), np.nan)
    step[1:] = np.linalg.norm(np.diff(vectors.astype(np.float64), axis=0), axis=1)
    step[~consecutive] = np.nan
    usual_distance, usual_step = np.maximum(space.typical, 1e-9)
    uniqueness = 1 - 0.5 ** (distances.min(axis=1) / usual_distance)
    alarm = (magnitude > alarms.magnitude) | (step > alarms.step) | (uniqueness > alarms.uniqueness)
    return Quality(
        distances.argmin(axis=1),
        magnitude,
        0.5 ** (step / usual_step),
        uniqueness,
        confidence.astype(np.float64),
        alarm,
    )


def words(named: list[Meaning], names: list[str]) -> dict[str, Any]:
    """What a space is called: the header of its file."""
    return {"dimensions": [meaning._asdict() for meaning in named], "archetypes": names}
