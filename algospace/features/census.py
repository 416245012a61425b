"""How often Gate 1 fires under given thresholds, counted without computing the other features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from algospace import synergy
from algospace.data import bars as bars_module
from algospace.data.bars import to_ms
from algospace.features.table import M30
from algospace.indicators import fvg, mlmi, nwrqk, technical
from algospace.indicators.params import IndicatorParams
from algospace.synergy import Gate1, Gate1Params

WINDOWS = (10, 20, 30)  # bars from the first signal to the last: the product brief's, between, the notebooks'


def signals(
    bars: pd.DataFrame, indicators: IndicatorParams, gate1: Gate1Params
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Events of MLMI, NW-RQK and FVG on the 5-minute grid, three int8 arrays (n,) of -1, 0, +1.

    Those of `algospace.features.table`: a 30-minute signal is an event at the 5-minute bar that closes with it.
    """
    h, l, c, v = (bars[name].to_numpy() for name in ("high", "low", "close", "volume"))
    session, synthetic = bars["session_id"].to_numpy(), bars["is_synthetic"].to_numpy()
    gaps = fvg.fvg(
        h, l, c, v, technical.atr(h, l, c, indicators.atr), session, synthetic, indicators.fvg, indicators.volume_window
    )
    m30 = bars_module.resample(bars, M30)
    ha = bars_module.heiken_ashi(*(m30[name].to_numpy() for name in bars_module.PRICES))
    curve = nwrqk.nwrqk(ha.close, indicators.nwrqk)
    _, slope = nwrqk.slope(curve, indicators.nwrqk.slope_window)
    value = mlmi.mlmi(ha.close, m30["close"].to_numpy(), indicators.mlmi)
    crossings, turns = np.zeros(len(bars), np.int8), np.zeros(len(bars), np.int8)
    closes, m30_closes = to_ms(bars["close_utc"]), to_ms(m30["close_utc"])
    at = np.searchsorted(closes, m30_closes)
    present = at < len(closes)
    present[present] &= closes[at[present]] == m30_closes[present]
    crossings[at[present]] = mlmi.events(value, gate1.mlmi_dead_band)[present]
    turns[at[present]] = nwrqk.events(curve, slope, gate1.nwrqk_min_slope)[present]
    return crossings, turns, gaps.mitigation_signal


def census(
    bars: pd.DataFrame, indicators: IndicatorParams, gate1: Gate1Params, windows: Sequence[int] = WINDOWS
) -> dict[str, Any]:
    """Count signals by kind, bars with a signal, and synergies by type, direction and month for several windows."""
    crossings, turns, mitigations = events = signals(bars, indicators, gate1)
    session = bars["session_id"].to_numpy()
    weightless = np.zeros(len(bars))
    counts: dict[str, Any] = {
        "signals": dict(zip(("mlmi", "nwrqk", "fvg"), (int(np.count_nonzero(e)) for e in events), strict=True)),
        "signal_bars": int(np.any(events, axis=0).sum()),
    }
    for window in windows:
        params = gate1.model_copy(update={"window": window})
        gate = synergy.detect(crossings, turns, mitigations, weightless, weightless, weightless, session, params)
        counts[f"window_{window}"] = by_type(gate) | {"months": by_month(gate, session)}
    return counts


def by_type(gate: Gate1) -> dict[str, int]:
    """Count synergies: all of them, then each type in each direction."""
    counts = {"synergies": int(np.count_nonzero(gate.type))}
    for kind in range(1, 5):
        for side, sign in (("long", 1), ("short", -1)):
            counts[f"type_{kind}_{side}"] = int(((gate.type == kind) & (gate.direction == sign)).sum())
    return counts


def by_month(gate: Gate1, session_id: np.ndarray) -> dict[str, int]:
    """Count synergies in each month of trading dates (YYYYMMDD) that has a bar."""
    month, fired = session_id // 100, gate.type != 0
    return {f"{m // 100}-{m % 100:02d}": int(fired[month == m].sum()) for m in np.unique(month).tolist()}
