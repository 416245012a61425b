"""How often Gate 1 fires under given thresholds, counted without computing the other features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from algospace import synergy
from algospace.indicators.params import IndicatorParams
from algospace.signals import SignalStream
from algospace.synergy import Gate1, Gate1Params

WINDOWS = (10, 20, 30)  # bars from the first signal to the last: the product brief's, between, the notebooks'


def census(
    bars: pd.DataFrame, indicators: IndicatorParams, gate1: Gate1Params, windows: Sequence[int] = WINDOWS
) -> dict[str, Any]:
    """Count signals by kind, bars with a signal, and synergies by type, direction and month for several windows."""
    found = SignalStream(indicators, gate1).update(bars)
    events = found.mlmi, found.nwrqk, found.fvg
    session = bars["session_id"].to_numpy()
    weightless = np.zeros(len(bars))
    counts: dict[str, Any] = {
        "signals": dict(zip(("mlmi", "nwrqk", "fvg"), (int(np.count_nonzero(e)) for e in events), strict=True)),
        "signal_bars": int(np.any(events, axis=0).sum()),
    }
    for window in windows:
        params = gate1.model_copy(update={"window": window})
        gate = synergy.detect(found.mlmi, found.nwrqk, found.fvg, weightless, weightless, weightless, session, params)
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
