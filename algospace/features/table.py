"""The feature table: one row per closed 5-minute bar, with the newest closed 30-minute bar beside it.

A row may use 5-minute bars up to its own and 30-minute bars that closed at or before its close; nothing else. What
was fitted (the references of the MMD scores) comes from outside and is never fitted here.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace import synergy
from algospace.data import bars as bars_module
from algospace.data.bars import SegmentStream, to_ms
from algospace.data.continuous import Continuous
from algospace.data.contracts import Contract
from algospace.indicators import fvg, lvn, mmd, signature, technical
from algospace.indicators.params import IndicatorParams
from algospace.signals import HalfHourStream, OnceStream
from algospace.synergy import Gate1Params

CHUNK_ROWS = 10_000  # bars computed at a time: it bounds the memory and changes no bit
NOT_JOINED = ("start_utc", "session_id", "session_close_utc", "contract_id", "is_synthetic")  # of a 30-minute row
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
LEVELS = ("nearest_price", "distance_points", "support_price", "resistance_price")  # of the LVN columns, in points
TRACKER = ("stage", "first_kind", "second_kind", "age")


class FeatureTable(NamedTuple):
    """Features of both time frames.

    ``m5`` has a row per 5-minute bar and its column ``m30_row`` names the row of ``m30`` that was newest at its close
    (-1 before the first).
    """

    m5: pd.DataFrame
    m30: pd.DataFrame


class M30Stream:
    """The indicators of 30-minute bars that come one after the other."""

    def __init__(
        self, contract: Contract, params: IndicatorParams, gate1: Gate1Params, reference: mmd.MMDReference
    ) -> None:
        self.params = params
        self._continuous = Continuous()
        self._ha = bars_module.HeikenAshiStream()
        self._atr = technical.ATR(params.atr)
        self._slow = HalfHourStream(params, gate1)
        self._lvn = lvn.Stream(contract.tick * params.lvn.bin_ticks, params.lvn)
        self._path, self._mmd = mmd.PathStream(), mmd.Stream(reference, params.mmd.window)
        self._signature = None
        if params.mmd.kind == "sig155":
            self._signature = signature.Signature(params.mmd.window, reference.center, reference.scale)

    def update(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Add the indicators to the next bars of `algospace.data.bars.SCHEMA`."""
        factor, (o, h, l, c) = self._continuous.update(bars)
        v, session, synthetic = (bars[name].to_numpy() for name in ("volume", "session_id", "is_synthetic"))
        ha = self._ha.update(o, h, l, c)
        slow = self._slow.update(ha.close, c)
        top, bottom, last = (ha.high, ha.low, ha.close) if self.params.lvn.heiken_ashi else (h, l, c)
        nodes = self._lvn.update(top, bottom, last, c, v, session, synthetic)
        path = self._path.update(*ha, v)
        scores = self._mmd.update(path, ha.close, v)
        columns = {f"ha_{name}": prices / factor for name, prices in ha._asdict().items()}
        columns["atr"] = self._atr.update(h, l, c) / factor
        columns |= slow._replace(nwrqk_value=slow.nwrqk_value / factor)._asdict()
        columns |= {f"lvn_{name}": v / factor if name in LEVELS else v for name, v in nodes._asdict().items()}
        columns |= {f"mmd_{i}": scores[:, i] for i in range(scores.shape[1])}
        if self._signature:
            levels = self._signature.update(path)
            columns |= {f"sig_{i}": levels[:, i] for i in range(levels.shape[1])}
        return pd.concat([bars, pd.DataFrame(columns, index=bars.index)], axis=1)


class FeatureStream:
    """The feature table of 5-minute bars that come one after the other, or in chunks of any size.

    Row t depends on bars 0..t only, for a fixed ``reference``; the bits do not depend on how the bars were cut into
    chunks, and what is remembered does not grow with their number.
    """

    def __init__(
        self, contract: Contract, indicators: IndicatorParams, gate1: Gate1Params, reference: mmd.MMDReference
    ) -> None:
        self.gate1 = gate1
        self._resampler = bars_module.Resampler()
        self._m30 = M30Stream(contract, indicators, gate1, reference)
        self._newest: pd.DataFrame | None = None  # last 30-minute row, at its number
        self._continuous = Continuous()
        self._atr = technical.ATR(indicators.atr)
        self._tactical = technical.Tactical(indicators.volume_window, indicators.momentum_bars)
        self._fvg = fvg.Stream(indicators.fvg, indicators.volume_window)
        self._segments, self._once = SegmentStream(), OnceStream()
        self._synergy = synergy.Stream(gate1)

    def update(self, bars: pd.DataFrame) -> FeatureTable:
        """Return the rows of the next bars of `algospace.data.bars.SCHEMA`, and the 30-minute rows they complete."""
        done = 0 if self._newest is None else int(self._newest.index[0]) + 1
        m30 = self._m30.update(self._resampler.update(bars))
        m30.index = pd.RangeIndex(done, done + len(m30))
        known = m30 if self._newest is None else pd.concat([self._newest, m30])
        if len(known):
            self._newest = known.iloc[-1:]

        factor, (o, h, l, c) = self._continuous.update(bars)
        v, session, synthetic = (bars[name].to_numpy() for name in ("volume", "session_id", "is_synthetic"))
        atr = self._atr.update(h, l, c) / factor
        high, low, close = (bars[name].to_numpy() for name in ("high", "low", "close"))
        segment = self._segments.update(bars)  # a gap outlives neither its session nor a pause
        gaps = self._fvg.update(high, low, close, v, atr, segment, synthetic)
        tactical = self._tactical.update(o, h, l, c, v, session)
        columns: dict[str, Any] = {"atr_5m": atr}
        columns |= {name: x / factor if name in technical.PRICES else x for name, x in tactical.items()}
        columns |= {f"fvg_{name}": values for name, values in gaps._asdict().items()}
        at = np.searchsorted(to_ms(known["close_utc"]), to_ms(bars["close_utc"]), side="right") - 1
        columns["m30_row"] = at + (known.index[0] if len(known) else 0)
        slow = _joined(known).reindex(columns["m30_row"]).set_index(bars.index)
        m5 = pd.concat([bars, pd.DataFrame(columns, index=bars.index), slow], axis=1)
        m30_session = np.append(known["session_id"].to_numpy(), -1)[at]  # -1: of no half hour
        news = self._once.update(columns["m30_row"], m30_session, session, synthetic)
        return FeatureTable(self._add_gate1(m5, news), m30)

    def _add_gate1(self, m5: pd.DataFrame, news: np.ndarray) -> pd.DataFrame:
        """Add events, Gate 1 and candidates; ``news`` marks the bars at which a 30-minute signal is an event."""
        events = [
            np.where(news, m5["m30_mlmi_signal"].fillna(0), 0).astype(np.int8),
            np.where(news, m5["m30_nwrqk_signal"].fillna(0), 0).astype(np.int8),
            m5["fvg_mitigation_signal"].to_numpy().astype(np.int8),
        ]
        strengths = [
            np.clip((m5["m30_mlmi_value"].fillna(50.0) - 50).abs() / 50, 0, 1).to_numpy(),
            np.clip(m5["m30_nwrqk_slope"].fillna(0.0).abs() / 2, 0, 1).to_numpy(),
            np.clip(
                (m5["fvg_mitigation_size"] / m5["close"]).fillna(0.0) / self.gate1.fvg_strength_size, 0, 1
            ).to_numpy(),
        ]
        (mlmi_event, nwrqk_event, fvg_event), (mlmi_now, nwrqk_now, fvg_now) = events, strengths
        gate = self._synergy.update(
            mlmi_event, nwrqk_event, fvg_event, mlmi_now, nwrqk_now, fvg_now, m5["session_id"].to_numpy()
        )
        columns = dict(zip(SIGNALS, events, strict=True))
        columns |= dict(zip(("strength_mlmi_now", "strength_nwrqk_now", "strength_fvg_now"), strengths, strict=True))
        for name, values in gate._asdict().items():
            if name in TRACKER:
                for side, label in enumerate(("long", "short")):
                    columns[f"gate1_{name}_{label}"] = values[:, side]
            else:
                columns[f"gate1_{name}"] = values
        # A candidate is a traded bar with a signal, time left to trade and an ATR to place a stop by; its direction is
        # that of the signals' majority, of the first of them (MLMI, NW-RQK, FVG) when they cancel.
        total = np.sign(sum(event.astype(np.int64) for event in events))
        first = np.select([event != 0 for event in events], events, 0)
        direction = np.where(gate.type != 0, gate.direction, np.where(total != 0, total, first)).astype(np.int8)
        tradable = ((m5["session_close_utc"] > m5["close_utc"]) & m5["m30_atr"].notna()).to_numpy()
        columns["candidate_direction"] = np.where(tradable, direction, 0).astype(np.int8)
        return pd.concat([m5, pd.DataFrame(columns, index=m5.index)], axis=1)


def _joined(m30: pd.DataFrame) -> pd.DataFrame:
    """The columns ``m30_*`` of 30-minute rows; numbers as float64, since before the first row there is none."""
    kept = m30.drop(columns=[name for name in m30 if name in NOT_JOINED or name.startswith("sig_")])
    return kept.astype(dict.fromkeys(kept.select_dtypes("number"), np.float64)).add_prefix("m30_")


def beside_itself(m30: pd.DataFrame) -> pd.DataFrame:
    """A row per 30-minute bar with its own columns ``m30_*``: what there is of the table without 5-minute bars."""
    return pd.concat([m30[list(bars_module.SCHEMA)], _joined(m30)], axis=1)


def build(
    bars: pd.DataFrame,
    contract: Contract,
    indicators: IndicatorParams,
    gate1: Gate1Params,
    reference: mmd.MMDReference,
    chunk_rows: int = CHUNK_ROWS,
) -> FeatureTable:
    """Compute every feature of a bars table at once: a fresh `FeatureStream` fed with all of it.

    The first n rows of the result are the table of the first n bars.
    """
    stream = FeatureStream(contract, indicators, gate1, reference)
    parts = [stream.update(chunk) for chunk in chunks(bars, chunk_rows)]
    return FeatureTable(*(pd.concat(frames) for frames in zip(*parts, strict=True)))


def chunks(bars: pd.DataFrame, rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
    """Cut a table into runs of so many rows; one without rows is one empty run."""
    for start in range(0, max(len(bars), 1), rows):
        yield bars.iloc[start : start + rows]
