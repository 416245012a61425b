"""Proposals: units, stop and target for any event and side, and the size that an account may take of one."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace import market, nets, performance
from algospace.data.bars import Columns
from algospace.errors import InputError
from algospace.mrms.fit import require_finite
from algospace.mrms.model import AGENTS, RiskEnsemble, require_features
from algospace.mrms.params import AdjustmentParams
from algospace.mrms.state import SIDES, States
from algospace.mrms.stops import stop_distances
from algospace.mrms.track import Track, risk_vector


class Proposal(NamedTuple):
    """What M-RMS proposes: arrays whose first axes are (events, 2), with and against the signal."""

    units: np.ndarray  # int64
    stop_atr: np.ndarray  # stop in 30-minute ATR, a value of the grid
    stop: np.ndarray  # stop distance in price; a node may have moved it
    at_level: np.ndarray  # bool: a node moved it
    reward_risk: np.ndarray
    confidence: np.ndarray  # probability of the proposed number of units
    ensemble_confidence: np.ndarray  # of the three agents, weighed by the coordinator
    weights: np.ndarray  # (events, 2, 3) of the agents

    def of(self, rows: np.ndarray | slice) -> "Proposal":
        """The proposals for some events."""
        return Proposal(*(part[rows] for part in self))

    @classmethod
    def joined(cls, parts: list["Proposal"]) -> "Proposal":
        """Proposals for events that come one after the other."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        """A row per event: its row number and every number of both sides, as `from_table` reads them."""
        columns: dict[str, Any] = {"row": rows}
        for name, side, part, number in _columns():
            array = getattr(self, part)[:, side]
            columns[name] = array if number is None else array[:, number]
        return pd.DataFrame(columns)

    @classmethod
    def from_table(cls, table: pd.DataFrame, rows: np.ndarray) -> "Proposal":
        """The proposals of a `table` for the events at ``rows``; `InputError` when it lacks one."""
        table = table.set_index("row").reindex(rows)
        missing = np.flatnonzero(table["units_with"].isna().to_numpy())
        if len(missing):
            raise InputError(f"proposals: expected one for row {rows[missing[0]]}, found none")
        parts: dict[str, list[list[np.ndarray]]] = {part: [[], []] for part in cls._fields}
        for name, side, part, _ in _columns():
            parts[part][side].append(table[name].to_numpy())
        arrays = {part: np.stack([np.stack(side, -1) for side in sides], axis=1) for part, sides in parts.items()}
        return cls(**{part: array if part == "weights" else array[..., 0] for part, array in arrays.items()})


def _columns() -> list[tuple[str, int, str, int | None]]:
    """Name of a column, side, part of the proposal, number within a vector."""
    vectors: dict[str, list[tuple[str, int | None]]] = {
        "weights": [(f"weight_{agent}", i) for i, agent in enumerate(AGENTS)],
    }
    return [
        (f"{name}_{label}", side, part, number)
        for side, label in enumerate(("with", "against"))
        for part in Proposal._fields
        for name, number in vectors.get(part, [(part, None)])
    ]


def propose(model: RiskEnsemble, states: States, events: pd.DataFrame | Columns, tick: float) -> Proposal:
    """Proposals for events: the most probable units, stop and target of each.

    Parameters
    ----------
    states, events
        The events' states, and the rows of the feature table they were made of.
    tick
        Of the contract: stop distances are whole ticks.

    Raises
    ------
    InputError
        For states of another shape, of other features (the first is named) or that are not finite.
    """
    shape = states.values.shape[:2]
    if not shape[0]:
        require_features(states.names, tuple(model.config["features"]))
        none, whole = np.empty((0, 2)), np.empty((0, 2), np.int64)
        weights = np.empty((0, 2, len(AGENTS)), np.float32)
        return Proposal(whole, none, none, none.astype(bool), none, none, none, weights)
    units, stop, target, weights, confidence, *_ = ask(model, states)
    stop_atr = np.array(model.config["stops"])[stop.argmax(1)].reshape(shape)
    side = np.array(SIDES) * np.asarray(events["candidate_direction"])[:, None]
    distance, at_level = stop_distances(events, side, stop_atr, model.config["stops"][-1], model.lvn, tick)
    return Proposal(
        units.argmax(1).reshape(shape),
        stop_atr,
        distance,
        at_level,
        np.array(model.config["rewards"])[target.argmax(1)].reshape(shape),
        units.max(1).astype(np.float64).reshape(shape),
        confidence.astype(np.float64).reshape(shape),
        weights.reshape(*shape, -1),
    )


def ask(model: RiskEnsemble, states: States) -> list[np.ndarray]:
    """The `Output` of the ensemble for both sides of each state, rows (2 events, ...); errors as `propose`."""
    require_features(states.names, tuple(model.config["features"]))
    if states.values.ndim != 3 or states.values.shape[1:] != (2, len(states.names)):
        raise InputError(f"mrms: expected states (n, 2, {len(states.names)}), found {states.values.shape}")
    require_finite(states)
    return nets.infer(model, states.values.reshape(-1, len(states.names)))


def code(proposal: Proposal) -> np.ndarray:
    """Both sides' risk vectors (n, 8): units / 5, stop / 3 ATR, reward-risk / 5, confidence."""
    parts = (proposal.units, proposal.stop_atr, proposal.reward_risk, proposal.confidence)
    vectors = risk_vector(*parts)
    return np.concatenate([vectors[:, side] for side in range(2)], axis=1)


PROPOSAL_CODE = 8


class Size(NamedTuple):
    """How a number of units came about."""

    asked: int  # of the position agent, for the account as it is
    performance: float  # factor of the track record
    restraint: float  # factor of the communication layer, at most 1
    adjusted: int  # what both factors leave, at most the limit
    affordable: int  # what the limit per trade allows
    units: int  # the lesser of both


def performance_factor(track: Track, params: AdjustmentParams) -> float:
    """How the record of the account scales a size; 1 below ``params.min_trades`` trades."""
    if len(track.pnl) < params.min_trades:
        return 1.0
    win_rate, factor = performance.win_rate(track.pnl), performance.profit_factor(track.pnl)
    if win_rate > params.raise_win_rate and factor > params.raise_profit_factor:
        return params.raise_factor
    if win_rate < params.cut_win_rate or factor < params.cut_profit_factor:
        return params.cut_factor
    return 1.0


def size(
    asked: int,
    stop: float,
    equity: float,
    track: Track,
    point_value: float,
    adjustment: AdjustmentParams,
    limits: market.LimitParams,
    restraint: float = 1.0,
) -> Size:
    """Units of a proposal that an account may take.

    The position agent's units, times the factors of the record and of the communication layer, to the nearest (a half
    goes down, but not the last unit), then the hard limits, which nothing overrides. Whatever is not a finite, positive
    number makes the size 0. Limits that forbid any entry are the account's (`market.Account.breaches`).

    Parameters
    ----------
    asked, stop, equity
        Units that the position agent proposes, stop distance in price, equity in USD.
    track
        The account's closed trades.
    restraint
        Factor of the communication layer; more than 1 counts as 1.
    """
    factor = performance_factor(track, adjustment)
    restraint = min(restraint, 1.0)
    product = asked * factor * restraint
    if not (np.isfinite([product, stop, equity, restraint]).all() and min(stop, equity) > 0 and restraint >= 0):
        return Size(asked, factor, restraint, 0, 0, 0)
    # One unit of what was asked stays: an account whose factors stopped all trading could never mend its record.
    least = min(asked, 1) if product > 0 else 0
    adjusted = int(min(max(np.ceil(product - 0.5), least), limits.max_units))
    affordable = market.affordable_units(equity, stop, point_value, limits)
    return Size(asked, factor, restraint, adjusted, affordable, min(adjusted, affordable))
