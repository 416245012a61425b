"""Regimes found without labels in five simulated markets: the RDE with clustering beside what others do.

Every method is fitted, unsupervised, to one path of 20 years, and that path's truth names its two labels, the best of
both ways. Otherwise the truth scores, and does nothing else.

Causal figures: the fitted method, frozen, labels a second, independent path. The label of a return comes from the 35
returns that END at it (a hidden Markov model filters all before it as well). Delay: returns from a switch to the first
correct label, 0 when it was right already; a regime that was never found counts its whole length.

Published figures, as Horvath, Issa and Muguruza (arXiv 2110.11848) have them: fitted and scored on the same path;
windows of 35 every 7 returns, and a return takes the majority of the windows that cover it, which looks 34 returns
ahead (a hidden Markov model: its Viterbi path).

A figure is a mean over paths, with the 95 % interval of Student's t.
"""

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from _measure import main
from _regime_markets import MARKETS, STEP, WINDOW, Market
from _regime_methods import OTHERS, Labels, likelihood_ratio, rde, rde_by_variance, vectors
from scipy.stats import t as student
from threadpoolctl import threadpool_limits

from algospace.pipeline.config import load_params
from algospace.rde.params import RDEParams

PATHS, QUICK_PATHS = 8, 2  # pairs of a fitted and a scored path, a market
EPOCHS, QUICK_EPOCHS = 25, 10
LEARNING_RATE = 0.002
FIRST_SEED = 1000  # the method was designed on paths of other seeds
# Sizes and losses are those of params.yaml. A token holds 5 returns, since 4 do not divide 35. Fewer epochs than
# there, at twice the step.
PARAMS = load_params("rde", RDEParams, File(__file__).parents[1] / "params.yaml")


def vote(labels: np.ndarray) -> np.ndarray:
    """Label of each return (n,) by the majority of the windows, one in 7, that cover it; a tie is label 0.

    ``labels`` (n - 34,) of all windows. A last return that no window covers takes the last window's label.
    """
    n = len(labels) + WINDOW - 1
    votes = np.zeros((n + 1, 2))
    starts = np.arange(0, len(labels), STEP)
    np.add.at(votes, (starts, labels[starts]), 1)
    np.add.at(votes, (starts + WINDOW, labels[starts]), -1)
    votes = np.cumsum(votes, axis=0)[:n]
    covered = votes.sum(axis=1) > 0
    return np.where(covered, votes[:, 1] > votes[:, 0], labels[starts[-1]]).astype(np.int64)


def regime_accuracies(regimes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of each regime's returns that carry its label, (2,)."""
    return np.array([np.mean(labels[regimes == regime] == regime) for regime in (0, 1)])


def swapped(regimes: np.ndarray, labels: np.ndarray) -> int:
    """1 when the labels say more about the regimes the other way round, else 0: the best of the two permutations."""
    return int(regime_accuracies(regimes, labels).mean() < 0.5)


def delays(regimes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns from each switch of the regime to the first correct label before the next switch.

    0 when the label at the switch is right already; the regime's length when none is.
    """
    bounds = np.concatenate([np.flatnonzero(np.diff(regimes)) + 1, [len(regimes)]])
    found = []
    for start, stop in itertools.pairwise(bounds):
        right = labels[start:stop] == regimes[start]
        found.append(int(right.argmax()) if right.any() else int(stop - start))
    return np.array(found)


def score(
    fitted_regimes: np.ndarray, published: np.ndarray, regimes: np.ndarray, causal: np.ndarray
) -> dict[str, float]:
    """Figures of one method: labels of the fitted path's returns, and of the scored path's from the 35th on."""
    swap = swapped(fitted_regimes, published)
    published, causal, regimes = published ^ swap, causal ^ swap, regimes[WINDOW - 1 :]
    accuracies = regime_accuracies(regimes, causal)
    return {
        "balanced_accuracy": float(accuracies.mean()),
        "accuracy_regime_0": float(accuracies[0]),
        "accuracy_regime_1": float(accuracies[1]),
        "accuracy": float(np.mean(regimes == causal)),
        "delay": float(delays(regimes, causal).mean()),
        "published_accuracy": float(np.mean(fitted_regimes == published)),
        "published_balanced_accuracy": float(regime_accuracies(fitted_regimes, published).mean()),
    }


def pair(market: Market, seed: int, epochs: int) -> dict[str, dict[str, float]]:
    """Figures of every method on one pair of paths: seeds 2 s (fitted) and 2 s + 1 (scored)."""
    fitted, scored = market.path(2 * seed), market.path(2 * seed + 1)
    params = PARAMS.model_copy(
        update={
            "patch": 5, "beta_warmup_epochs": epochs // 4,
            "optimizer": PARAMS.optimizer.model_copy(update={"epochs": epochs, "learning_rate": LEARNING_RATE}),
        }
    )  # fmt: skip
    found = vectors(fitted, scored, params, seed)
    plain, strong = (vectors(fitted, scored, params.model_copy(update={"forecast": w}), seed) for w in (0.0, 1.0))
    labels: dict[str, Labels] = {name: method(fitted, scored, seed) for name, method in OTHERS.items()}
    labels |= {
        "rde": rde(found, seed),
        "rde_without_persistence": rde_by_variance(found, seed),
        "rde_without_forecast": rde(plain, seed),
        "rde_without_both": rde_by_variance(plain, seed),
        "rde_forecast_weight_1": rde(strong, seed),
        "likelihood_ratio": likelihood_ratio(market, fitted, scored),
    }
    figures = {}
    for name, (own, causal) in labels.items():
        # A Viterbi path has seen everything already; its first 34 labels are not windows', so they are left out.
        published = own if name == "gaussian_hmm" else vote(own)
        figures[name] = score(fitted.regimes[-len(published) :], published, scored.regimes, causal)
    return figures


def interval(values: list[float]) -> list[float]:
    """95 % interval of a mean, Student's t."""
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return [round(float(np.mean(values) + sign * half), 4) for sign in (-1, 1)]


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    """A row a market and method."""
    torch.set_num_threads(1)
    paths, epochs = (QUICK_PATHS, QUICK_EPOCHS) if quick else (PATHS, EPOCHS)
    for market in MARKETS:
        with threadpool_limits(limits=1):
            pairs = [pair(market, seed, epochs) for seed in range(FIRST_SEED, FIRST_SEED + paths)]
        for method, first in pairs[0].items():
            row: dict[str, Any] = {"benchmark": "regimes", "market": market.name, "method": method, "paths": paths}
            for figure in first:
                values = [found[method][figure] for found in pairs]
                row |= {figure: round(float(np.mean(values)), 4), f"{figure}_interval": interval(values)}
            yield partial(dict, row)


if __name__ == "__main__":
    main(__doc__ or "", rows)
