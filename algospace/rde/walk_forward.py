"""Regime vectors of train rows by models that have not seen them, so that what learns from them is not flattered."""

from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from algospace import training


def blocks(ends: np.ndarray, folds: int, length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(windows to fit on, windows to encode) of each fold, as positions in train's window ends (n,), ascending.

    No window to fit on shares a row with one to encode: windows are ``length`` rows long. A row sums up bars before it,
    so that of the nearest ones the first rows look back on the same bars.
    """
    plan = []
    for seen, part in training.walk_forward_blocks(len(ends), folds):
        first, last = ends[part[0]], ends[part[-1]]
        apart = (ends[seen] <= first - length) | (ends[seen] >= last + length)
        plan.append((seen[apart], part))
    return plan


def shift(out_of_fold: np.ndarray, final: np.ndarray, later: np.ndarray) -> dict[str, Any]:
    """How far train's vectors (n, latent) lie from what the final model gives: to train itself and to later rows.

    The root mean square difference on the same rows, in standard deviations of the final vectors; and the mean over
    dimensions of the Kolmogorov-Smirnov distance to the vectors of later rows (m, latent), out of fold and in sample.
    """

    def distance(vectors: np.ndarray) -> float:
        return float(np.mean([ks_2samp(a, b).statistic for a, b in zip(vectors.T, later.T, strict=True)]))

    return {
        "rms_difference": float(np.sqrt((((out_of_fold - final) / final.std(axis=0)) ** 2).mean())),
        "ks_out_of_fold_to_later": distance(out_of_fold),
        "ks_in_sample_to_later": distance(final),
    }
