"""Proposals for train rows from models that have not seen them, and how they differ from the final model's.

What trains on the frozen experts' outputs must not see better ones on train than it will see later (domain.md A12).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace import market, training
from algospace.data.bars import M5_MINUTES, M30_MINUTES
from algospace.errors import InputError
from algospace.mrms import method
from algospace.mrms.outcomes import Lessons, cells
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal, propose
from algospace.params import RuntimeParams


class Fold(NamedTuple):
    """A block of train events and the events that its model is fitted on: numbers of events, ascending."""

    block: np.ndarray
    lessons: np.ndarray


def folds(events: pd.DataFrame, count: int, embargo_m30: int, embargo_m5: int) -> list[Fold]:
    """Cut train events into ``count`` contiguous blocks, each with lessons that do not touch it.

    Block k learns from the blocks before it: events whose labels end before the block begins and that lie an embargo
    before it (the longer of ``embargo_m30`` 30-minute bars and ``embargo_m5`` 5-minute bars). Nothing lies before the
    first block, so it learns from the second, an embargo after its last event: out-of-fold, but not the past.

    Raises
    ------
    InputError
        When a block or its lessons hold fewer than two events.
    """
    rows = events["row"].to_numpy()
    embargo = max(M30_MINUTES // M5_MINUTES * embargo_m30, embargo_m5)
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
    train: Lessons,
    lessons: Lessons,
    parts: list[Fold],
    epochs: int,
    venue: market.Venue,
    params: MRMSParams,
    runtime: RuntimeParams,
    seed: int,
    part: training.Part,
) -> Proposal:
    """Proposals for the events of ``train``, each from the model of its fold.

    ``lessons`` are the same events as the networks learn from them. A fold's model trains for ``epochs``, the number
    that was best for the final model: its block is no place to stop by. After few epochs it is near the fixed answer
    of its own lessons, whose cell may differ from the final model's. ``part`` opens the saved state of a fold.
    """
    run = params.model_copy(update={"optimizer": params.optimizer.model_copy(update={"epochs": epochs})})
    found = []
    for number, fold in enumerate(parts):
        taught = lessons.of(fold.lessons)
        model, _ = method.train(
            f"mrms fold {number}", taught, None, venue, run, runtime, seed, part(f"fold_{number}")
        )  # fmt: skip
        block = train.of(fold.block)
        found.append(propose(model, block.states, block.events, venue.costs.tick))
    return Proposal.joined(found)


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
