"""Windows that the models see, gathered on demand from row tables (never stored 96-fold).

Oldest row first, newest last, float32, about [-1, 1]. A 30-minute row enters once, at its close, so 48 rows span a
day and not four hours of repeats.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from algospace.data.bars import Columns, local_hour, to_ms
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


Table: TypeAlias = pd.DataFrame | Columns


class Rows(NamedTuple):
    """Row tables of one feature table, float32 (NaN during warm-up)."""

    structure: np.ndarray  # (n30, 8)
    regime: np.ndarray  # (n30, 12), or 155 with sig155
    tactical: np.ndarray  # (n5, 7)
    side: np.ndarray  # (n5, 9)
    m30_row: np.ndarray  # (n5,) int64: newest 30-minute row at each 5-minute close, -1 before the first


def rows(table: FeatureTable, fitted: Fitted) -> Rows:
    """Scale a feature table's columns into the rows that windows are cut from."""
    return rows_of(table.m5, table.m30, fitted)


def rows_of(m5: Table, m30: Table, fitted: Fitted) -> Rows:
    """`rows` of the two tables, which may be `algospace.data.bars.Columns`."""
    if len(m30["close_utc"]):
        structure, regime = structure_rows(m30), fitted.regime(regime_rows(m30))
    else:  # five bars of six
        structure, regime = (np.empty((0, n), np.float32) for n in (len(STRUCTURE), len(fitted.regime.center)))
    return Rows(
        structure=structure,
        regime=regime,
        tactical=tactical_rows(m5),
        side=fitted.tactical(fitted_module.tactical_rows(m5)),
        m30_row=np.asarray(m5["m30_row"], np.int64),
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


def regime_rows(m30: Table) -> np.ndarray:
    """The regime rows (n30, 12 or 155), unscaled: the path's signature where the table has it, else the MMD scores."""
    names = REGIME["sig155" if "sig_0" in m30 else "mmd12"]
    found: np.ndarray = np.column_stack([np.asarray(m30[name]) for name in names])
    return found


def structure_rows(m30: Table) -> np.ndarray:
    """The eight features of the Structure agent (n30, 8)."""
    price = np.asarray(m30["close"])
    angle = 2 * np.pi * local_hour(to_ms(m30["close_utc"])) / 24
    distance = np.asarray(m30["lvn_distance_points"])
    columns = [
        (np.asarray(m30["mlmi_value"]) - 50) / 50,
        np.asarray(m30["mlmi_signal"]),
        np.clip(100 * (np.asarray(m30["nwrqk_value"]) - price) / price, -5, 5) / 5,
        np.clip(np.asarray(m30["nwrqk_slope"]), -2, 2) / 2,
        np.where(np.isnan(distance), 0.0, np.exp(-100 * np.abs(distance) / price)),
        np.nan_to_num(np.asarray(m30["lvn_nearest_strength"])) / 100,
        np.sin(angle),
        np.cos(angle),
    ]
    return np.column_stack(columns).astype(np.float32)


def tactical_rows(m5: Table) -> np.ndarray:
    """The seven features of the Tactical agent (n5, 7)."""
    price = np.asarray(m5["close"])
    level, age = np.asarray(m5["fvg_nearest_level"]), np.asarray(m5["fvg_age"])
    ratio = np.asarray(m5["volume_ratio"])
    columns = [
        np.asarray(m5["fvg_bullish_active"]),
        np.asarray(m5["fvg_bearish_active"]),
        np.where(np.isnan(level), 0.0, np.clip(100 * (level - price) / price, -2, 2) / 2),
        # Without a gap the age feature is 0: exp(0) = 1 would say "brand new".
        np.where(np.isnan(level), 0.0, np.exp(-np.maximum(age, 0) / 10)),
        np.asarray(m5["fvg_mitigation_signal"]),
        # Momentum never bridges sessions: the first bars of one have none.
        np.nan_to_num(np.clip(np.asarray(m5["momentum_5"]) / 5, -1, 1)),
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


class RowHistory:
    """The rows that windows of later bars will need: as many as the longest windows, however many there have been."""

    def __init__(self, params: FeatureParams) -> None:
        self._m5 = max(params.window_5m, params.window_arbitrage) - 1
        self._m30 = max(params.window_30m, params.window_regime) - 1
        self._kept: Rows | None = None  # its ``m30_row`` counts from the first kept 30-minute row

    def join(self, rows: Rows, m30_rows: int) -> tuple[Rows, int]:
        """Put what was kept before the next rows; return both as one, and how many 5-minute rows were put before.

        ``m30_rows`` is the number of 30-minute rows before ``rows``; the result's ``m30_row`` counts its own.
        """
        if self._kept is None:
            joined, front = rows, 0
        else:
            known = len(self._kept.structure)
            own = rows._replace(m30_row=rows.m30_row - m30_rows + known)
            joined, front = Rows(*map(np.concatenate, zip(self._kept, own, strict=True))), len(self._kept.tactical)
        first = max(len(joined.tactical) - self._m5, 0)
        reach = joined.m30_row[first:].min(initial=len(joined.structure))
        first_m30 = max(min(int(reach), len(joined.structure) - 1) - self._m30, 0)
        self._kept = Rows(
            joined.structure[first_m30:].copy(),
            joined.regime[first_m30:].copy(),
            joined.tactical[first:].copy(),
            joined.side[first:].copy(),
            joined.m30_row[first:] - first_m30,
        )
        return joined, front


def finite_run(values: np.ndarray, before: int = 0) -> np.ndarray:
    """How many rows in a row, up to each, are finite; ``before`` were so in front of the first."""
    return _run_length(np.isfinite(values).all(axis=1), before)


def _run_length(flags: np.ndarray, before: int = 0) -> np.ndarray:
    """How many true values in a row end at each position."""
    position = np.arange(1, len(flags) + 1)
    run: np.ndarray = position - np.maximum.accumulate(np.where(flags, -before, position))
    return run


def gate1_code(m5: Table, ends: np.ndarray, direction: np.ndarray, params: Gate1Params) -> np.ndarray:
    """Gate 1 as the agents see it (len(ends), 24), float32, mirrored so that the signal's direction is up.

    Completed type (4), which signals fire now and whether they agree (3), strengths (3), the tracker of the signal's
    direction: stage (2), first and second kind (6), age (1), then bars to complete, quality and the direction (3); how
    volatile the market is (log of the 30-minute ATR in per cent of the price) and how busy (`indicators.activity`).
    """
    long = direction > 0

    def at(*names: str) -> np.ndarray:
        return np.column_stack([np.asarray(m5[name])[ends] for name in names])

    def tracker(name: str) -> np.ndarray:
        long_and_short = at(f"gate1_{name}_long", f"gate1_{name}_short")
        return np.where(long, long_and_short[:, 0], long_and_short[:, 1])

    signals = at("mlmi_sig", "nwrqk_sig", "fvg_sig") * direction[:, None]
    strengths = at("strength_mlmi_now", "strength_nwrqk_now", "strength_fvg_now")
    quality = at("gate1_quality")
    columns = [
        at("gate1_type") == np.arange(1, 5),
        signals,
        strengths * (signals != 0),
        tracker("stage")[:, None] == np.arange(1, 3),
        tracker("first_kind")[:, None] == np.arange(1, 4),
        tracker("second_kind")[:, None] == np.arange(1, 4),
        np.maximum(tracker("age"), 0)[:, None] / params.window,
        at("gate1_bars_to_complete") / params.window,
        np.where(np.isnan(quality), 0.0, quality),
        direction[:, None],
        np.log(100 * at("m30_atr") / at("close")),
        at("activity"),
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


GATE1_CODE = 24
