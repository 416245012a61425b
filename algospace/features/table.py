"""The feature table: one row per closed 5-minute bar, with the newest closed 30-minute bar beside it.

A row may use 5-minute bars up to its own and 30-minute bars that closed at or before its close; nothing else. What
was fitted (the references of the MMD scores) comes from outside and is never fitted here.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace import synergy
from algospace.data import bars as bars_module
from algospace.data.contracts import Contract
from algospace.indicators import fvg, lvn, mlmi, mmd, nwrqk, technical
from algospace.indicators.params import IndicatorParams
from algospace.synergy import Gate1Params

M30 = 30  # minutes of the slower time frame
# Scalars beside the Tactical agent's window.
SIDE = (
    "rsi_14", "macd", "macd_signal", "bb_percent", "stoch_k", "adx_14", "volume_ratio", "ema_9_ratio", "ema_21_ratio",
)  # fmt: skip
# What the risk subsystem and the decision records read of a row.
EVENT = (
    "close_utc", "session_close_utc", "m30_close_utc", "open", "high", "low", "close", "m30_atr", "volume_ratio",
    "rsi_14", "momentum_5", "m30_lvn_support_price", "m30_lvn_support_strength", "m30_lvn_resistance_price",
    "m30_lvn_resistance_strength", "gate1_type", "gate1_direction", "gate1_bars_to_complete", "gate1_quality",
    "gate1_strength_mlmi", "gate1_strength_nwrqk", "gate1_strength_fvg", "candidate_direction",
)  # fmt: skip
SIGNALS = ("mlmi_sig", "nwrqk_sig", "fvg_sig")
TRACKER = ("stage", "first_kind", "second_kind", "age")


class FeatureTable(NamedTuple):
    """Features of both time frames.

    ``m5`` has a row per 5-minute bar and its column ``m30_row`` names the row of ``m30`` that was newest at its close
    (-1 before the first).
    """

    m5: pd.DataFrame
    m30: pd.DataFrame


def m30_table(bars: pd.DataFrame, contract: Contract, params: IndicatorParams) -> pd.DataFrame:
    """Resample to 30 minutes and compute that frame's indicators, but for the MMD scores."""
    m30 = bars_module.resample(bars, M30)
    o, h, l, c, v = (m30[name].to_numpy() for name in ("open", "high", "low", "close", "volume"))
    session, synthetic = m30["session_id"].to_numpy(), m30["is_synthetic"].to_numpy()
    ha = bars_module.heiken_ashi(o, h, l, c)
    m30["ha_open"], m30["ha_high"], m30["ha_low"], m30["ha_close"] = ha.open, ha.high, ha.low, ha.close
    m30["atr"] = technical.atr(h, l, c, params.atr)
    m30["mlmi_value"] = mlmi.mlmi(ha.close, c, params.mlmi)
    m30["nwrqk_value"] = nwrqk.nwrqk(ha.close, params.nwrqk)
    m30["nwrqk_slope_bp"], m30["nwrqk_slope"] = nwrqk.slope(m30["nwrqk_value"].to_numpy(), params.nwrqk.slope_window)
    top, bottom, last = (ha.high, ha.low, ha.close) if params.lvn.heiken_ashi else (h, l, c)
    nodes = lvn.lvn(top, bottom, last, c, v, session, synthetic, contract.tick * params.lvn.bin_ticks, params.lvn)
    return m30.assign(**{f"lvn_{name}": values for name, values in nodes._asdict().items()})


def add_mmd(m30: pd.DataFrame, path: np.ndarray, reference: mmd.MMDReference, params: IndicatorParams) -> pd.DataFrame:
    """Add the twelve columns ``mmd_0 .. mmd_11``: distances to the fitted references and five moments."""
    close, volume = m30["ha_close"].to_numpy(), m30["volume"].to_numpy()
    scores = mmd.mmd12(path, close, volume, reference, params.mmd.window)
    return m30.assign(**{f"mmd_{i}": scores[:, i] for i in range(scores.shape[1])})


def m30_path(m30: pd.DataFrame) -> np.ndarray:
    """Rows (n, 4) whose distribution the MMD scores compare (see `algospace.indicators.mmd.path`)."""
    columns = ("ha_open", "ha_high", "ha_low", "ha_close", "volume")
    return mmd.path(*(m30[name].to_numpy() for name in columns))


def build(
    bars: pd.DataFrame,
    contract: Contract,
    indicators: IndicatorParams,
    gate1: Gate1Params,
    reference: mmd.MMDReference,
) -> FeatureTable:
    """Compute every feature of a bars table.

    Row t of the result depends on rows 0..t of ``bars`` only, for fixed ``reference``: the first n rows of the table
    are the table of the first n bars.
    """
    m30 = m30_table(bars, contract, indicators)
    m30 = add_mmd(m30, m30_path(m30), reference, indicators)
    m30["mlmi_signal"] = mlmi.events(m30["mlmi_value"].to_numpy(), gate1.mlmi_dead_band)
    m30["nwrqk_signal"] = nwrqk.events(
        m30["nwrqk_value"].to_numpy(), m30["nwrqk_slope"].to_numpy(), gate1.nwrqk_min_slope
    )

    m5 = bars.copy()
    o, h, l, c, v = (m5[name].to_numpy() for name in ("open", "high", "low", "close", "volume"))
    session, synthetic = m5["session_id"].to_numpy(), m5["is_synthetic"].to_numpy()
    m5["atr_5m"] = technical.atr(h, l, c, indicators.atr)
    lengths = indicators.volume_window, indicators.momentum_bars
    m5 = m5.assign(**technical.tactical(o, h, l, c, v, *lengths, session))
    gaps = fvg.fvg(h, l, c, v, m5["atr_5m"].to_numpy(), session, synthetic, indicators.fvg, indicators.volume_window)
    m5 = m5.assign(**{f"fvg_{name}": values for name, values in gaps._asdict().items()})

    m30_row = np.searchsorted(m30["close_utc"].to_numpy(), m5["close_utc"].to_numpy(), side="right") - 1
    m5["m30_row"] = m30_row
    kept = m30.drop(columns=["start_utc", "session_id", "session_close_utc", "contract_id", "is_synthetic"])
    joined = kept.reindex(m30_row).add_prefix("m30_").set_index(m5.index)
    return FeatureTable(_add_gate1(pd.concat([m5, joined], axis=1), gate1), m30)


def _add_gate1(m5: pd.DataFrame, params: Gate1Params) -> pd.DataFrame:
    # A 30-minute signal is an event once: at the 5-minute bar whose close is the 30-minute close.
    closes_m30 = (m5["m30_close_utc"] == m5["close_utc"]).to_numpy()
    events = [
        np.where(closes_m30, m5["m30_mlmi_signal"].fillna(0), 0).astype(np.int8),
        np.where(closes_m30, m5["m30_nwrqk_signal"].fillna(0), 0).astype(np.int8),
        m5["fvg_mitigation_signal"].to_numpy().astype(np.int8),
    ]
    strengths = [
        np.clip((m5["m30_mlmi_value"].fillna(50.0) - 50).abs() / 50, 0, 1).to_numpy(),
        np.clip(m5["m30_nwrqk_slope"].fillna(0.0).abs() / 2, 0, 1).to_numpy(),
        np.clip((m5["fvg_mitigation_size"] / m5["close"]).fillna(0.0) / params.fvg_strength_size, 0, 1).to_numpy(),
    ]
    gate = synergy.detect(
        events[0], events[1], events[2], strengths[0], strengths[1], strengths[2], m5["session_id"].to_numpy(), params
    )
    columns = dict(zip(SIGNALS, events, strict=True))
    columns |= dict(zip(("strength_mlmi_now", "strength_nwrqk_now", "strength_fvg_now"), strengths, strict=True))
    for name, values in gate._asdict().items():
        if name in TRACKER:
            for side, label in enumerate(("long", "short")):
                columns[f"gate1_{name}_{label}"] = values[:, side]
        else:
            columns[f"gate1_{name}"] = values
    # A candidate is a bar with a signal and time left to trade; its direction is that of the signals' majority,
    # of the first of them (MLMI, NW-RQK, FVG) when they cancel.
    total = np.sign(sum(event.astype(np.int64) for event in events))
    first = np.select([event != 0 for event in events], events, 0)
    direction = np.where(gate.type != 0, gate.direction, np.where(total != 0, total, first)).astype(np.int8)
    time_left = (m5["session_close_utc"] > m5["close_utc"]).to_numpy()
    columns["candidate_direction"] = np.where(time_left, direction, 0).astype(np.int8)
    return pd.concat([m5, pd.DataFrame(columns, index=m5.index)], axis=1)
