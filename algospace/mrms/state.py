"""What M-RMS knows of an event: 30 numbers of the market, seen from each side, and ten of the account."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace.data.bars import Columns, local_hour, to_ms
from algospace.mrms.track import ACCOUNT, FRESH

SIDE = "with_signal"  # the feature that says from which side a state is seen:
SIDES = (1, -1)  # with the signal, against it: the second axis of every state and proposal
CONTEXT = (
    "type_1", "type_2", "type_3", "type_4", SIDE, "strength_mlmi", "strength_nwrqk", "strength_fvg",
    "bars_to_complete", "quality", "atr_share", "volume_ratio", "momentum", "rsi", "activity", "hour_sin", "hour_cos",
    "behind_distance", "behind_strength", "ahead_distance", "ahead_strength", "time_left",
)  # fmt: skip


class States(NamedTuple):
    """States of n events from both sides."""

    values: np.ndarray  # float32 (n, 2, features)
    names: tuple[str, ...]  # of the features

    def of(self, rows: np.ndarray | slice) -> "States":
        """The states of some events."""
        return self._replace(values=self.values[rows])

    def with_accounts(self, accounts: np.ndarray) -> "States":
        """The same events for other accounts, ten numbers each: (n, 10)."""
        values = self.values.copy()
        values[:, :, -len(ACCOUNT) :] = accounts[:, None]
        return self._replace(values=values)


def feature_names(latent: int) -> tuple[str, ...]:
    """Names of a state's features for regime vectors of ``latent`` numbers; with 8 they are 40."""
    return (*CONTEXT, *(f"regime_{i}" for i in range(latent)), *ACCOUNT)


def states(events: pd.DataFrame | Columns, regime: np.ndarray) -> States:
    """States of events for a fresh account; arguments as `context`."""
    seen = context(events, regime)
    fresh = np.broadcast_to(FRESH, (*seen.shape[:2], len(FRESH)))
    return States(np.concatenate([seen, fresh], axis=-1), feature_names(regime.shape[1]))


def context(events: pd.DataFrame | Columns, regime: np.ndarray) -> np.ndarray:
    """State of each event seen from each side: (events, 2, len(CONTEXT) + latent), float32.

    ``events`` are rows of the feature table (the columns `algospace.features.table.EVENT`), ``regime`` their regime
    vectors (events, latent).
    Directional entries are mirrored, so that "with me" is positive for long and short alike. Everything is known at
    the event's close.
    """
    price, atr = np.asarray(events["close"]), np.asarray(events["m30_atr"])
    kind = np.asarray(events["gate1_type"])
    close_ms = to_ms(events["close_utc"])
    angle = 2 * np.pi * local_hour(close_ms) / 24
    left = (to_ms(events["session_close_utc"]) - close_ms) / 1000
    ratio = np.asarray(events["volume_ratio"])
    # Momentum never bridges sessions: the first bars of one have none.
    momentum = _known(events["momentum_5"]) / 100 * price

    def level(name: str) -> tuple[np.ndarray, np.ndarray]:
        distance = np.abs(np.asarray(events[f"m30_lvn_{name}_price"]) - price) / atr
        strength = np.asarray(events[f"m30_lvn_{name}_strength"]) / 100
        return np.nan_to_num(np.exp(-distance)), np.nan_to_num(strength)

    support, resistance = level("support"), level("resistance")
    sides = []
    for with_signal in SIDES:
        side = with_signal * np.asarray(events["candidate_direction"])
        behind = [np.where(side > 0, s, r) for s, r in zip(support, resistance, strict=True)]
        ahead = [np.where(side > 0, r, s) for s, r in zip(support, resistance, strict=True)]
        columns = [
            *(kind == t for t in range(1, 5)),
            np.full(len(price), with_signal),
            *(_known(events[f"gate1_strength_{name}"]) for name in ("mlmi", "nwrqk", "fvg")),
            np.asarray(events["gate1_bars_to_complete"]) / 10,
            _known(events["gate1_quality"]),
            100 * atr / price,
            (ratio**2 - 1) / (ratio**2 + 1),
            side * np.clip(momentum / atr, -3, 3) / 3,
            side * (np.asarray(events["rsi_14"]) - 50) / 50,
            np.clip(np.asarray(events["activity"]), -2, 2),
            np.sin(angle),
            np.cos(angle),
            *behind,
            *ahead,
            left / (276 * 300),
        ]
        sides.append(np.column_stack([*columns, regime]))
    return np.stack(sides, axis=1).astype(np.float32)


def _known(column: pd.Series | np.ndarray) -> np.ndarray:
    """A column's numbers, 0 where there is none."""
    values = np.asarray(column)
    return np.where(np.isnan(values), 0.0, values)
