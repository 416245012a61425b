"""What every bracket of the grid would have earned: the material to learn from."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace import market
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import SIDES, States, states
from algospace.mrms.stops import stop_distances


class Lessons(NamedTuple):
    """Events in time order and what became of them: to learn from, or to be judged on."""

    events: pd.DataFrame
    states: States
    net_r: np.ndarray  # (events, 2, stops, rewards) float32

    @classmethod
    def new(cls, events: pd.DataFrame, regime: np.ndarray, venue: market.Venue, params: MRMSParams) -> "Lessons":
        """States for a fresh account, outcomes of every cell; ``regime`` are the events' regime vectors."""
        return cls(events, states(events, regime), outcome_table(venue, events, params))

    def of(self, rows: np.ndarray) -> "Lessons":
        """The lessons of some events."""
        return Lessons(self.events.iloc[rows], self.states.of(rows), self.net_r[rows])


def outcome_table(venue: market.Venue, events: pd.DataFrame, params: MRMSParams) -> np.ndarray:
    """Net R of every cell: (events, 2, stops, rewards), float32 (see `grid_brackets`)."""
    return grid_brackets(venue, events, params)[0].net_r.astype(np.float32)


def grid_brackets(venue: market.Venue, events: pd.DataFrame, params: MRMSParams) -> tuple[market.Outcome, np.ndarray]:
    """Run every cell of the grid by `market.bracket`, with the next open.

    Stops hang where `stop_distances` puts them, behind nodes too. It reads the bars after the event: a target to
    learn from, never an input. Returns outcomes (events, 2, stops, rewards) and stop distances in price (events, 2,
    stops).
    """
    rows = events["row"].to_numpy().reshape(-1, 1, 1, 1)
    side = (np.array(SIDES) * events["candidate_direction"].to_numpy()[:, None])[:, :, None, None]
    stops = np.array(params.stop_grid).reshape(1, 1, -1, 1)
    distance, _ = stop_distances(events, side, stops, params.stop_grid[-1], params.lvn, venue.costs.tick)
    outcome = market.bracket(
        venue.bars, rows, side, distance, np.array(params.reward_risk_grid), np.zeros(1, np.int64), venue.costs,
        venue.params.max_bars,
    )  # fmt: skip
    return outcome, distance[..., 0]


def cells(params: MRMSParams, stop_atr: np.ndarray, reward_risk: np.ndarray) -> np.ndarray:
    """Number of each cell of the grid, row by row; the multiples must be values of the grid."""
    stop = np.searchsorted(params.stop_grid, stop_atr)
    number: np.ndarray = stop * len(params.reward_risk_grid) + np.searchsorted(params.reward_risk_grid, reward_risk)
    return number


def realised(net_r: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Net R (events, 2) of the cells (events, 2) out of an outcome table, float64."""
    flat = net_r.reshape(*net_r.shape[:2], -1)
    return np.take_along_axis(flat, cell[..., None], axis=2)[..., 0].astype(np.float64)
