"""What every bracket of the grid would have earned: the material to learn from."""

import numpy as np
import pandas as pd

from algospace import market
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import SIDES


def outcome_table(
    bars: market.Bars, events: pd.DataFrame, costs: market.Costs, params: MRMSParams, max_bars: int
) -> np.ndarray:
    """Net R of every cell: (events, 2, stops, rewards), float32, by `market.bracket` with the next open.

    It reads the bars after the event: a target to learn from, never an input.
    """
    n, stops, rewards = len(events), np.array(params.stop_grid), np.array(params.reward_risk_grid)
    side = np.array(SIDES) * events["candidate_direction"].to_numpy()[:, None]
    distance = market.stop_distance(events["m30_atr"].to_numpy()[:, None], stops, costs.tick)
    outcome = market.bracket(
        bars,
        events["row"].to_numpy().reshape(n, 1, 1, 1),
        side.reshape(n, 2, 1, 1),
        distance.reshape(n, 1, -1, 1),
        rewards.reshape(1, 1, 1, -1),
        np.zeros((1, 1, 1, 1), np.int64),
        costs,
        max_bars,
    )
    return outcome.net_r.astype(np.float32)
