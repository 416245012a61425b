"""Windows that the models see, gathered on demand from row tables (never stored 96-fold).

Oldest row first, newest last, float32, about [-1, 1]. A 30-minute row enters once, at its close, so 48 rows span a
day and not four hours of repeats.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace.features import fitted as fitted_module
from algospace.features.fitted import Fitted
from algospace.features.params import FeatureParams
from algospace.features.prepared import RegimeRows
from algospace.features.table import FeatureTable
from algospace.synergy import Gate1Params

STRUCTURE = (
    "mlmi_value", "mlmi_signal", "nwrqk_value", "nwrqk_slope", "lvn_distance", "lvn_strength", "hour_sin", "hour_cos",
)  # fmt: skip
TACTICAL = (
    "fvg_bullish_active", "fvg_bearish_active", "fvg_nearest_level", "fvg_age", "fvg_mitigation_signal", "momentum_5",
    "volume_ratio",
)  # fmt: skip
# The regime rows, by ``indicators.mmd.kind``: MMD scores and moments, or the path's signature.
REGIME = {"mmd12": tuple(f"mmd_{i}" for i in range(12)), "sig155": tuple(f"sig_{i}" for i in range(155))}
# What a mirrored market (up is down) makes of a column: a sign, and for the tactical rows another column's value.
MIRROR_STRUCTURE = np.array([-1, -1, -1, -1, 1, 1, 1, 1], np.float32)
MIRROR_TACTICAL_FROM = np.array([1, 0, 2, 3, 4, 5, 6])
MIRROR_TACTICAL = np.array([1, 1, -1, 1, -1, -1, 1], np.float32)
MIRROR_SIDE = np.array([-1, -1, -1, -1, -1, 1, 1, -1, -1], np.float32)  # of the nine tactical side features


class Rows(NamedTuple):
    """Row tables of one feature table, float32 (NaN during warm-up)."""

    structure: np.ndarray  # (n30, 8)
    regime: np.ndarray  # (n30, 12), or 155 with sig155
    tactical: np.ndarray  # (n5, 7)
    side: np.ndarray  # (n5, 9)
    m30_row: np.ndarray  # (n5,) int64: newest 30-minute row at each 5-minute close, -1 before the first


def rows(table: FeatureTable, fitted: Fitted) -> Rows:
    """Scale a feature table's columns into the rows that windows are cut from."""
    return Rows(
        structure=structure_rows(table.m30),
        regime=fitted.regime(regime_rows(table.m30)),
        tactical=tactical_rows(table.m5),
        side=fitted.tactical(fitted_module.tactical_rows(table.m5)),
        m30_row=table.m5["m30_row"].to_numpy(np.int64),
    )


def prepared_rows(m5: pd.DataFrame, regime: RegimeRows, fitted: Fitted) -> Rows:
    """The row tables that windows are cut from, out of the prepared files."""
    return Rows(
        structure=regime.structure,
        regime=regime.rows,
        tactical=tactical_rows(m5),
        side=fitted.tactical(fitted_module.tactical_rows(m5)),
        m30_row=m5["m30_row"].to_numpy(np.int64),
    )


def regime_rows(m30: pd.DataFrame) -> np.ndarray:
    """The regime rows (n30, 12 or 155), unscaled: the path's signature where the table has it, else the MMD scores."""
    names = REGIME["sig155" if "sig_0" in m30 else "mmd12"]
    found: np.ndarray = m30[list(names)].to_numpy()
    return found


def structure_rows(m30: pd.DataFrame) -> np.ndarray:
    """The eight features of the Structure agent (n30, 8)."""
    price = m30["close"].to_numpy()
    # The hour of the exchange: New York for every calendar at hand.
    local = m30["close_utc"].dt.tz_convert("America/New_York").dt
    angle = 2 * np.pi * (local.hour + local.minute / 60).to_numpy() / 24
    distance = m30["lvn_distance_points"].to_numpy()
    columns = [
        (m30["mlmi_value"].to_numpy() - 50) / 50,
        m30["mlmi_signal"].to_numpy(),
        np.clip(100 * (m30["nwrqk_value"].to_numpy() - price) / price, -5, 5) / 5,
        np.clip(m30["nwrqk_slope"].to_numpy(), -2, 2) / 2,
        np.where(np.isnan(distance), 0.0, np.exp(-100 * np.abs(distance) / price)),
        np.nan_to_num(m30["lvn_nearest_strength"].to_numpy()) / 100,
        np.sin(angle),
        np.cos(angle),
    ]
    return np.column_stack(columns).astype(np.float32)


def tactical_rows(m5: pd.DataFrame) -> np.ndarray:
    """The seven features of the Tactical agent (n5, 7)."""
    price = m5["close"].to_numpy()
    level, age = m5["fvg_nearest_level"].to_numpy(), m5["fvg_age"].to_numpy()
    ratio = m5["volume_ratio"].to_numpy()
    columns = [
        m5["fvg_bullish_active"].to_numpy(),
        m5["fvg_bearish_active"].to_numpy(),
        np.where(np.isnan(level), 0.0, np.clip(100 * (level - price) / price, -2, 2) / 2),
        # Without a gap the age feature is 0: exp(0) = 1 would say "brand new".
        np.where(np.isnan(level), 0.0, np.exp(-np.maximum(age, 0) / 10)),
        m5["fvg_mitigation_signal"].to_numpy(),
        # Momentum never bridges sessions: the first bars of one have none.
        np.nan_to_num(np.clip(m5["momentum_5"].to_numpy() / 5, -1, 1)),
        # tanh(ln r), written so that a bar without volume gives -1.
        (ratio**2 - 1) / (ratio**2 + 1),
    ]
    return np.column_stack(columns).astype(np.float32)


def complete(rows: Rows, params: FeatureParams) -> np.ndarray:
    """Bool (n5,): every window that ends at the row is whole and finite."""
    return Completeness(params).update(rows)


class Completeness:
    """`complete` of rows that come one after the other: how many finite ones end here."""

    def __init__(self, params: FeatureParams) -> None:
        self.params = params
        self._structure, self._regime = np.zeros(1, np.int64), np.zeros(1, np.int64)  # runs up to the newest m30 row
        self._m30_row = -1  # number of that row
        self._steps = 0

    def update(self, rows: Rows) -> np.ndarray:
        """Return the flags of the next rows."""
        params = self.params
        structure = np.append(self._structure[-1:], finite_run(rows.structure, self._structure[-1]))
        regime = np.append(self._regime[-1:], finite_run(rows.regime, self._regime[-1]))
        at = rows.m30_row - self._m30_row  # 0: the newest of the rows before
        self._structure, self._regime, self._m30_row = structure, regime, self._m30_row + len(rows.structure)
        m30_ready = (structure[at] >= params.window_30m) & (regime[at] >= params.window_regime)
        step_ready = (structure[at] > 0) & np.isfinite(rows.tactical).all(axis=1)
        steps = _run_length(step_ready, self._steps)
        self._steps = int(steps[-1]) if steps.size else self._steps
        side = np.isfinite(rows.side).all(axis=1)
        whole: np.ndarray = m30_ready & side & (steps >= max(params.window_arbitrage, params.window_5m))
        return whole


def finite_run(values: np.ndarray, before: int = 0) -> np.ndarray:
    """How many rows in a row, up to each, are finite; ``before`` were so in front of the first."""
    return _run_length(np.isfinite(values).all(axis=1), before)


def _run_length(flags: np.ndarray, before: int = 0) -> np.ndarray:
    """How many true values in a row end at each position."""
    position = np.arange(1, len(flags) + 1)
    run: np.ndarray = position - np.maximum.accumulate(np.where(flags, -before, position))
    return run


def gate1_code(m5: pd.DataFrame, ends: np.ndarray, direction: np.ndarray, params: Gate1Params) -> np.ndarray:
    """Gate 1 as the agents see it (len(ends), 24), float32, mirrored so that the signal's direction is up.

    Completed type (4), which signals fire now and whether they agree (3), strengths (3), the tracker of the signal's
    direction: stage (2), first and second kind (6), age (1), then bars to complete, quality and the direction (3); how
    volatile the market is (log of the 30-minute ATR in per cent of the price) and how busy (tanh of the log of the
    volume ratio).
    """
    at = m5.iloc[ends]
    long = direction > 0

    def tracker(name: str) -> np.ndarray:
        values: np.ndarray = np.where(long, at[f"gate1_{name}_long"], at[f"gate1_{name}_short"])
        return values

    signals = at[["mlmi_sig", "nwrqk_sig", "fvg_sig"]].to_numpy() * direction[:, None]
    strengths = at[["strength_mlmi_now", "strength_nwrqk_now", "strength_fvg_now"]].to_numpy()
    ratio = at["volume_ratio"].to_numpy()
    columns = [
        at["gate1_type"].to_numpy()[:, None] == np.arange(1, 5),
        signals,
        strengths * (signals != 0),
        tracker("stage")[:, None] == np.arange(1, 3),
        tracker("first_kind")[:, None] == np.arange(1, 4),
        tracker("second_kind")[:, None] == np.arange(1, 4),
        np.maximum(tracker("age"), 0)[:, None] / params.window,
        at["gate1_bars_to_complete"].to_numpy()[:, None] / params.window,
        at["gate1_quality"].fillna(0.0).to_numpy()[:, None],
        direction[:, None],
        np.log(100 * at["m30_atr"].to_numpy() / at["close"].to_numpy())[:, None],
        ((ratio**2 - 1) / (ratio**2 + 1))[:, None],
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


GATE1_CODE = 24
