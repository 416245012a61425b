"""Proposals: units, stop and target for any event and side."""

from typing import NamedTuple

import numpy as np

from algospace import nets
from algospace.errors import InputError
from algospace.mrms.model import RiskEnsemble


class Proposal(NamedTuple):
    """What M-RMS proposes: arrays of shape (events, 2), the second axis with and against the signal."""

    units: np.ndarray  # int64
    stop_atr: np.ndarray  # stop distance in 30-minute ATR
    reward_risk: np.ndarray
    confidence: np.ndarray  # probability of the proposed number of units


def propose(model: RiskEnsemble, contexts: np.ndarray) -> Proposal:
    """Proposals for contexts (events, 2, n): the most probable units, stop and target of each.

    Raises `InputError` for contexts of another width or with NaN.
    """
    if contexts.shape[-1] != model.config["n_context"]:
        raise InputError(f"mrms: expected {model.config['n_context']} context features, found {contexts.shape[-1]}")
    if not np.isfinite(contexts).all():
        raise InputError("mrms: expected finite contexts, found NaN or inf")
    shape = contexts.shape[:2]
    if not len(contexts):
        empty = np.empty(shape)
        return Proposal(empty.astype(np.int64), empty, empty, empty)
    units, stop, target = nets.infer(model, contexts.reshape(-1, contexts.shape[-1]))
    chosen = units.argmax(1)
    return Proposal(
        chosen.reshape(shape),
        np.array(model.config["stops"])[stop.argmax(1)].reshape(shape),
        np.array(model.config["rewards"])[target.argmax(1)].reshape(shape),
        units.max(1).astype(np.float64).reshape(shape),
    )
