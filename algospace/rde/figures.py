"""What the latent carries: figures on windows that trained nothing."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from algospace.performance import stationary_bootstrap_interval
from algospace.rde.examples import Examples
from algospace.rde.model import RegimeVAE

Floats = NDArray[np.float64]

DRAWS = 500  # of an interval's bootstrap
MOST_POINTS = 2000  # of a silhouette: it compares all pairs
PENALTY = 10.0  # of a probe's squared weights, its inputs standardised


def reconstruction(model: RegimeVAE, windows: np.ndarray, train_mean: np.ndarray) -> dict[str, float]:
    """Reconstruction R^2 of windows (n, window, features) against the train mean of each feature, and active units.

    A unit is active when the variance of its mu over the windows is above 0.01 (Burda et al. 2016).
    """
    with torch.no_grad():
        x = torch.from_numpy(windows).to(next(model.parameters()).device)
        mu, _ = model.encode(x)
        residual = float(((model.decode(mu) - x) ** 2).sum())
    baseline = float(((windows - train_mean) ** 2).sum())
    return {"reconstruction_r2": 1 - residual / baseline, "active_units": float((mu.var(dim=0) > 0.01).sum())}


@torch.no_grad()
def forecast_r2(model: RegimeVAE, examples: Examples) -> float | None:
    """R^2 of the forecast of the later windows, over all features, against train's means; None where there is none."""
    known = np.isfinite(examples.later).all(axis=1)
    if not known.any():
        return None
    x, later = (torch.from_numpy(array[known]) for array in examples)
    mu, _ = model.encode(x)
    return 1 - float(((model.forecast(mu) - later) ** 2).sum() / (later**2).sum())


def mean_step(vectors: np.ndarray, consecutive: np.ndarray) -> float:
    """Mean distance of a regime vector from the one a bar before; ``consecutive`` (n,) says where there is one."""
    return float(np.linalg.norm(np.diff(vectors, axis=0), axis=1)[consecutive[1:]].mean())


def probe(
    train: tuple[np.ndarray, pd.DataFrame], judged: tuple[np.ndarray, pd.DataFrame], mean_block: float, seed: int
) -> dict[str, float | None]:
    """R^2, with its 95 % interval, of a linear probe from inputs (n, d) to targets, a column each.

    The probe is a ridge regression fitted on ``train``; R^2 on ``judged`` is against train's mean of the target. The
    interval resamples blocks of ``mean_block`` windows on average, since neighbours share most of their future. None
    where there is nothing to learn from or to judge.
    """
    found: dict[str, float | None] = {}
    if not len(train[0]) or not len(judged[0]):
        return {f"{name}_{figure}": None for name in train[1] for figure in ("r2", "r2_low", "r2_high")}
    scaler = StandardScaler().fit(train[0])
    for name in train[1]:
        y = train[1][name].to_numpy()
        ridge = Ridge(PENALTY).fit(scaler.transform(train[0]), y)
        truth = judged[1][name].to_numpy()
        error = (truth - ridge.predict(scaler.transform(judged[0]))) ** 2
        total = (truth - y.mean()) ** 2

        def r2(chosen: Floats, error: Floats = error, total: Floats = total) -> Floats:
            at = chosen.astype(np.int64)
            share: Floats = error[at].sum(axis=-1) / total[at].sum(axis=-1)
            return 1 - share

        low, high = stationary_bootstrap_interval(np.arange(len(truth), dtype=np.float64), r2, mean_block, DRAWS, seed)
        found |= {f"{name}_r2": 1 - float(error.sum() / total.sum()), f"{name}_r2_low": low, f"{name}_r2_high": high}
    return found


def silhouettes(places: np.ndarray, labels: Sequence[int] | np.ndarray, k: int, seed: int) -> dict[str, float | None]:
    """Silhouette of the archetypes' labels (n,), and of a Gaussian mixture's of as many parts, at places (n, latent).

    None where all vectors have one label: there is nothing to tell apart.
    """
    thin = np.linspace(0, len(places) - 1, min(len(places), MOST_POINTS)).astype(np.int64)
    chosen = places[thin]
    mixture = GaussianMixture(k, random_state=seed, reg_covar=1e-4).fit(chosen)
    return {
        name: float(silhouette_score(chosen, found)) if len(set(found)) > 1 else None
        for name, found in (("silhouette", np.asarray(labels)[thin]), ("mixture_silhouette", mixture.predict(chosen)))
    }
