"""Proposals for train rows from models that have not seen them: what size they bear, how they differ from the final's.

What trains on the frozen experts' outputs must not see better ones on train than it will see later (domain.md A12).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace import market, training
from algospace.errors import InputError
from algospace.mrms import method
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.objective import LEAST_WEALTH
from algospace.mrms.outcomes import Lessons, cells, realised
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal, propose
from algospace.mrms.state import States
from algospace.params import RuntimeParams


class Fold(NamedTuple):
    """A block of train events and the events that its model is fitted on: numbers of events, ascending."""

    block: np.ndarray
    lessons: np.ndarray


def folds(events: pd.DataFrame, count: int, embargo: int) -> list[Fold]:
    """Cut train events into ``count`` contiguous blocks, each with lessons that do not touch it.

    Block k learns from the blocks before it: events whose labels end before the block begins and that lie an embargo
    before it (``embargo`` 5-minute bars). Nothing lies before the
    first block, so it learns from the second, an embargo after its last event: out-of-fold, but not the past.

    Raises
    ------
    InputError
        When a block or its lessons hold fewer than two events.
    """
    rows = events["row"].to_numpy()
    found = []
    for k, (lessons, block) in enumerate(training.walk_forward_blocks(len(rows), count)):
        if len(block):
            ended = (events["label_end_utc"].iloc[lessons] < events["close_utc"].iloc[block[0]]).to_numpy()
            before = ended & (rows[lessons] < rows[block[0]] - embargo)
            lessons = lessons[before | (rows[lessons] > rows[block[-1]] + embargo)]
        if min(len(block), len(lessons)) < 2:
            raise InputError(
                f"mrms.folds: expected events for {count} blocks with an embargo of {embargo} bars between them, "
                f"found {len(block)} in block {k + 1} and {len(lessons)} to learn from"
            )
        found.append(Fold(block, lessons))
    return found


def walk_forward(
    lessons: Lessons,
    parts: list[Fold],
    epochs: int,
    venue: market.Venue,
    params: MRMSParams,
    runtime: RuntimeParams,
    seed: int,
    part: training.Part,
) -> list[RiskEnsemble]:
    """Train the model of each fold.

    ``lessons`` are the train events as the networks learn from them. A fold's model trains for ``epochs``, the number
    that was best for the final model: its block is no place to stop by. After few epochs it is near the fixed answer
    of its own lessons, whose cell may differ from the final model's. ``part`` opens the saved state of a fold.
    """
    models = []
    for number, fold in enumerate(parts):
        run = _budget(params, epochs, len(fold.lessons) / len(lessons.events))
        taught, own = lessons.of(fold.lessons), part(f"fold_{number}")
        models.append(method.train(f"mrms fold {number}", taught, None, venue, run, runtime, seed, own)[0])
    return models


def _budget(params: MRMSParams, epochs: int, share: float) -> MRMSParams:
    """As many passes over a share of the events as the final model makes over all: more learn them by heart."""
    samples, steps = (
        max(1, round(share * n)) for n in (params.optimizer.samples_per_epoch, params.ppo.total_timesteps)
    )
    optimizer = params.optimizer.model_copy(update={"epochs": epochs, "samples_per_epoch": samples})
    return params.model_copy(
        update={"optimizer": optimizer, "ppo": params.ppo.model_copy(update={"total_timesteps": steps})}
    )


def out_of_fold(
    models: list[RiskEnsemble], parts: list[Fold], train: Lessons, seen: States, events: pd.DataFrame, tick: float
) -> Proposal:
    """Proposals for bars of train, each from the model of the fold in whose block it lies.

    ``seen`` are the states of ``events``, in time order: the events of ``train`` themselves, or others between them. A
    block goes on to the next one's first event.
    """
    first = train.events["row"].to_numpy()[[fold.block[0] for fold in parts]]
    block = np.maximum(np.searchsorted(first, events["row"], side="right") - 1, 0)
    return Proposal.joined(
        [propose(model, seen.of(block == k), events[block == k], tick) for k, model in enumerate(models)]
    )


def borne_units(record: Proposal, lessons: Lessons, session: np.ndarray, params: MRMSParams) -> int:
    """Most units a trade that the record of out-of-fold proposals bears: Kelly on a lower bound of their growth.

    A network that found nothing still asks for a size where its lessons happened to win. What it asked for on events
    that it had not seen tells the two apart.

    Parameters
    ----------
    record
        Proposals for the events of ``lessons`` by models that have not seen them.
    session
        Number of the session of every row of the 5-minute table: trades of one session are no independent evidence.

    Returns
    -------
    int
        The limit m on what was asked that has the greatest mean growth minus ``params.evidence`` standard errors, of
        the trades that are decided on in the end: completed synergies, with the signal, where a size was asked for.
        A limit of 0 grows by 0 for certain, so that without evidence of an edge, or with fewer than two sessions of
        trades, it is 0.

    Notes
    -----
    Growth as in `algospace.mrms.objective`: log(1 + b u r) / b of u = min(asked, m) units, b the bet of one unit.
    Standard errors are clustered by session (Liang and Zeger 1986), times G / (G - 1) of G sessions.
    """
    asked = record.units[:, 0]
    taken = (asked > 0) & (lessons.events["gate1_type"].to_numpy() != 0)
    r = realised(lessons.net_r, cells(params, record.stop_atr, record.reward_risk))[taken, 0]
    _, cluster = np.unique(session[lessons.events["row"].to_numpy()[taken]], return_inverse=True)
    sessions = int(cluster.max(initial=-1)) + 1
    if sessions < 2:
        return 0
    bet = params.unit_risk / params.kelly_fraction
    bounds = [0.0]
    for most in range(1, int(asked.max()) + 1):
        growth = np.log(np.maximum(1 + bet * np.minimum(asked[taken], most) * r, LEAST_WEALTH)) / bet
        off = np.bincount(cluster, growth - growth.mean())
        error = np.sqrt((off**2).sum() * sessions / (sessions - 1)) / len(growth)
        bounds.append(growth.mean() - params.evidence * error)
    return int(np.argmax(bounds))


def shift(out_of_fold: Proposal, final: Proposal, params: MRMSParams) -> dict[str, float]:
    """How the out-of-fold proposals for train rows differ from the final model's for the same rows."""
    figures: dict[str, float] = {}
    for name, part in (("out_of_fold", out_of_fold), ("final", final)):
        figures |= {
            f"{name}_mean_units": float(part.units.mean()),
            f"{name}_mean_stop_atr": float(part.stop_atr.mean()),
            f"{name}_mean_reward_risk": float(part.reward_risk.mean()),
        }
    ours, theirs = (cells(params, part.stop_atr, part.reward_risk) for part in (out_of_fold, final))
    n_cells = len(params.stop_grid) * len(params.reward_risk_grid)
    shares = [np.bincount(cell.ravel(), minlength=n_cells) / cell.size for cell in (ours, theirs)]
    figures["equal_cell_rate"] = float((ours == theirs).mean())
    figures["equal_units_rate"] = float((out_of_fold.units == final.units).mean())
    figures["cell_total_variation"] = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return figures
