"""Ways to find two regimes without labels: each is fitted to one path and labels that path and a second one.

A method gives two arrays of 0 and 1 (n - 34,): a label for each window of 35 returns of the fitted path and of the
scored path, in the order of the returns that end them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from _regime_markets import STEP, WINDOW, Market, Path, rolling_sum
from hmmlearn.hmm import GaussianHMM
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.cluster import KMeans

from algospace.params import RuntimeParams
from algospace.rde.examples import Examples, Windows
from algospace.rde.fit import fit
from algospace.rde.model import encode
from algospace.rde.params import RDEParams
from algospace.rde.space import Space, unsquashed
from algospace.training import Unsaved

Labels = tuple[np.ndarray, np.ndarray]

RESTARTS = 5  # of every k-means
HMM_STARTS = 3  # of the hidden Markov model
SELECT = 0.15  # last share of the fitted path's windows, on which the RDE stops early
RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)
CLIP = 4.0  # robust deviations at which the RDE's rows cut a return off


def windows(values: np.ndarray) -> np.ndarray:
    """Every window of 35 of values (n,) or (n, features), (n - 34, 35[, features])."""
    return np.moveaxis(sliding_window_view(values, WINDOW, axis=0), -1, 1)


def two_means(fitted: np.ndarray, scored: np.ndarray, seed: int) -> Labels:
    """2-means on features (n - 34, d) of the windows; it is fitted to one window in 7, as published."""
    found = KMeans(2, n_init=RESTARTS, random_state=seed).fit(fitted[::STEP])
    return found.predict(fitted), found.predict(scored)


def one_liner(fitted: Path, scored: Path, seed: int) -> Labels:
    """2-means on the log standard deviation of the window."""
    x, y = (np.log(windows(path.returns).std(axis=1))[:, None] for path in (fitted, scored))
    return two_means(x, y, seed)


def moment_k_means(fitted: Path, scored: Path, seed: int) -> Labels:
    """2-means on the first four raw moments of the window, standardised on the fitted path."""
    x, y = (
        np.column_stack([(windows(path.returns) ** p).mean(axis=1) for p in (1, 2, 3, 4)]) for path in (fitted, scored)
    )
    return two_means((x - x.mean(axis=0)) / x.std(axis=0), (y - x.mean(axis=0)) / x.std(axis=0), seed)


def wasserstein_k_means(fitted: Path, scored: Path, seed: int) -> Labels:
    """k-means in Wasserstein-1 space: a window is its sorted returns, a centre the median of each rank.

    Lloyd's iterations from k-means++ centres; of the restarts the one of least total distance (Horvath, Issa and
    Muguruza 2021).
    """
    x, y = (np.sort(windows(path.returns), axis=1) for path in (fitted, scored))
    atoms, rng = x[::STEP], np.random.default_rng(seed)

    def distance(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
        return np.stack([np.abs(points - centre).mean(axis=1) for centre in centres], axis=1)

    def run() -> tuple[float, np.ndarray]:
        first = atoms[rng.integers(len(atoms), size=1)]
        squared = distance(atoms, first)[:, 0] ** 2
        centres = np.concatenate([first, atoms[rng.choice(len(atoms), size=1, p=squared / squared.sum())]])
        for _ in range(100):
            nearest = distance(atoms, centres).argmin(axis=1)
            moved = np.stack([np.median(atoms[nearest == c], axis=0) for c in (0, 1)])
            if np.array_equal(moved, centres):
                break
            centres = moved
        return float(distance(atoms, centres).min(axis=1).sum()), centres

    _, best = min((run() for _ in range(RESTARTS)), key=lambda found: found[0])
    return distance(x, best).argmin(axis=1), distance(y, best).argmin(axis=1)


def gaussian_hmm(fitted: Path, scored: Path, seed: int) -> Labels:
    """Hmmlearn's hidden Markov model of two normal states, on returns in standard deviations of the fitted path.

    On raw returns, of size 1e-3, hmmlearn's floor of the variance and its prior decide the fit. The fitted path is
    labelled by the Viterbi path, which sees all of it; the scored one by the filtered probability, which sees every
    return so far and not the last 35 alone.
    """
    scale = fitted.returns.std()
    x, y = fitted.returns[:, None] / scale, scored.returns[:, None] / scale
    runs = [GaussianHMM(2, n_iter=100, tol=0.1, random_state=seed * HMM_STARTS + i).fit(x) for i in range(HMM_STARTS)]
    model = max(runs, key=lambda run: run.score(x))
    variance = model.covars_[:, 0, 0]
    log_density = -0.5 * ((y - model.means_[:, 0]) ** 2 / variance + np.log(variance))
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    filtered = np.empty(len(y), np.int64)
    prior = model.startprob_
    for t in range(len(y)):
        belief = density[t] * prior
        belief /= belief.sum()
        filtered[t] = belief[1] > belief[0]
        prior = belief @ model.transmat_
    return model.predict(x)[WINDOW - 1 :], filtered[WINDOW - 1 :]


def likelihood_ratio(market: Market, fitted: Path, scored: Path) -> Labels:
    """The ceiling: the true parameters' log likelihood ratio, summed over the window, above 0."""
    ratios = (rolling_sum(path.evidence, market.terms)[WINDOW - market.terms :] for path in (fitted, scored))
    x, y = ((ratio > 0).astype(np.int64) for ratio in ratios)
    return x, y


class Scaling(NamedTuple):
    """Of the rows that the RDE reads, fitted to one path."""

    unit: float  # robust standard deviation of the returns
    mean: np.ndarray  # (4,)
    spread: np.ndarray  # (4,)

    @classmethod
    def fit(cls, returns: np.ndarray) -> "Scaling":
        """Fit to returns (n,)."""
        unit = 1.4826 * float(np.median(np.abs(returns - np.median(returns))))
        rows = moment_rows(returns / unit)
        return cls(unit, rows.mean(axis=0), rows.std(axis=0))

    def rows(self, returns: np.ndarray) -> np.ndarray:
        """Standardised rows (n, 4) float32."""
        found: np.ndarray = ((moment_rows(returns / self.unit) - self.mean) / self.spread).astype(np.float32)
        return found

    def windows(self, returns: np.ndarray) -> np.ndarray:
        """The windows of rows that the RDE reads, (n - 34, 35, 4), each made of its own 35 returns alone."""
        found = np.ascontiguousarray(windows(self.rows(returns)))
        found[:, 0, 3] = -self.mean[3] / self.spread[3]  # a product of 0: its other factor is outside the window
        return found


def moment_rows(u: np.ndarray) -> np.ndarray:
    """Each return's value, square, cube and product with the return before, (n, 4).

    Their means over a window are its first moments and its lag-1 autocovariance. ``u`` in robust deviations is cut
    off at 4, so that a jump is one large return and not all of its window.
    """
    u = np.clip(u, -CLIP, CLIP)
    return np.column_stack([u, u**2, u**3, u * np.concatenate([[0.0], u[:-1]])])


def vectors(fitted: Path, scored: Path, params: RDEParams, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Regime vectors (n - 34, latent) of every window of both paths, by an RDE fitted to the first.

    It trains on the windows of the first 85 % of that path, and stops early on the rest. A row describes one return,
    so the window to foretell ends 35 returns later.
    """
    scaling = Scaling.fit(fitted.returns)
    every = scaling.windows(fitted.returns)
    cut = int(len(every) * (1 - SELECT))
    train, select = np.arange(cut - WINDOW), np.arange(cut, len(every), STEP)
    ends = train + WINDOW - 1, select + WINDOW - 1
    windows = Windows(scaling.rows(fitted.returns), WINDOW, WINDOW)
    known, later = windows.later(ends)
    model, _ = fit(
        lambda chosen: Examples(every[chosen], known[chosen]), len(train), Examples(every[select], later),
        params.taught_by(windows.evidence(ends[0])), RUNTIME, seed, Unsaved(),
    )  # fmt: skip
    x, y = (
        encode(model, part.__getitem__, np.arange(len(part))).vectors
        for part in (every, scaling.windows(scored.returns))
    )
    return x, y


def rde(found: tuple[np.ndarray, np.ndarray], seed: int) -> Labels:
    """Two archetypes, as the stage finds them, in the regime vectors of both paths."""
    x, y = found
    space = Space.fit(x, np.arange(len(x)), WINDOW, 2, seed)
    return space.nearest(x), space.nearest(y)


def rde_by_variance(found: tuple[np.ndarray, np.ndarray], seed: int) -> Labels:
    """2-means on the regime vectors as they are, where directions count by their variance and not by persistence."""
    x, y = (unsquashed(part) for part in found)
    return two_means(x, y, seed)


Method = Callable[[Path, Path, int], Labels]
OTHERS: dict[str, Method] = {
    "one_liner": one_liner,
    "moment_k_means": moment_k_means,
    "wasserstein_k_means": wasserstein_k_means,
    "gaussian_hmm": gaussian_hmm,
}
