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
from algospace.data.bars import Columns, SegmentStream
from algospace.data.continuous import Continuous
from algospace.data.contracts import Contract
from algospace.indicators import activity, fvg, lvn, mmd, signature, technical
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
    "close_utc", "session_close_utc", "m30_close_utc", "close", "m30_atr", "volume_ratio", "activity", "rsi_14",
    "momentum_5", "m30_lvn_support_price", "m30_lvn_support_strength", "m30_lvn_resistance_price",
    "m30_lvn_resistance_strength", "gate1_type", "gate1_direction", "gate1_bars_to_complete", "gate1_quality",
    "gate1_strength_mlmi", "gate1_strength_nwrqk", "gate1_strength_fvg", "candidate_direction",
)  # fmt: skip
SIGNALS = ("mlmi_sig", "nwrqk_sig", "fvg_sig")
LEVELS = ("nearest_price", "distance_points", "support_price", "resistance_price")  # of the LVN columns, in points
# Columns of a half hour in price units.
PRICED = (
    *bars_module.PRICES, "ha_open", "ha_high", "ha_low", "ha_close", "atr", "nwrqk_value",
    *(f"lvn_{name}" for name in LEVELS),
)  # fmt: skip
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

    def update(self, bars: Columns) -> dict[str, np.ndarray]:
        """Add the indicators to the next bars of `algospace.data.bars.SCHEMA`."""
        factor, (o, h, l, c) = self._continuous.update(bars)
        v, session, synthetic = (bars[name] for name in ("volume", "session_id", "is_synthetic"))
        ha = self._ha.update(o, h, l, c)
        slow = self._slow.update(ha.close, c)
        top, bottom, last = (ha.high, ha.low, ha.close) if self.params.lvn.heiken_ashi else (h, l, c)
        nodes = self._lvn.update(top, bottom, last, c, v, session, synthetic)
        path = self._path.update(*ha, v)
        scores = self._mmd.update(path, ha.close, v)
        columns: dict[str, Any] = {name: bars[name] for name in bars_module.SCHEMA}
        columns |= {f"ha_{name}": prices / factor for name, prices in ha._asdict().items()}
        columns["atr"] = self._atr.update(h, l, c) / factor
        columns |= slow._replace(nwrqk_value=slow.nwrqk_value / factor)._asdict()
        columns |= {f"lvn_{name}": v / factor if name in LEVELS else v for name, v in nodes._asdict().items()}
        columns |= {f"mmd_{i}": scores[:, i] for i in range(scores.shape[1])}
        if self._signature:
            levels = self._signature.update(path)
            columns |= {f"sig_{i}": levels[:, i] for i in range(levels.shape[1])}
        return columns


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
        self._no_m30 = self._m30.update(bars_module.NO_BARS)  # what five bars of six complete
        self._m30_rows = 0
        # Columns, session and contract of the newest half hour; before the first there is nothing.
        none = {
            name: np.full(1, bars_module.NO_TIME if name.endswith("_utc") else np.nan) for name in _joined(self._no_m30)
        }
        self._newest = none, np.array([-1]), np.array([-1])
        self._continuous = Continuous()
        self._factors: dict[int, float] = {}  # of the last two contracts
        self._atr = technical.ATR(indicators.atr)
        self._tactical = technical.Tactical(indicators.volume_window, indicators.momentum_bars)
        self._activity = activity.Stream(indicators.activity)
        self._fvg = fvg.Stream(indicators.fvg, indicators.volume_window)
        self._segments, self._once = SegmentStream(), OnceStream()
        self._synergy = synergy.Stream(gate1)

    def update(self, bars: pd.DataFrame) -> FeatureTable:
        """Return the rows of the next bars of `algospace.data.bars.SCHEMA`, and the 30-minute rows they complete."""
        first = self._m30_rows
        m5, m30 = self.compute(bars_module.columns(bars))
        return FeatureTable(
            bars_module.frame(m5, bars.index), bars_module.frame(m30, pd.RangeIndex(first, self._m30_rows))
        )

    def compute(self, bars: Columns) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the columns of both tables of an `update`: all its work, without the frames' cost."""
        longer = self._resampler.update(bars)
        m30 = self._m30.update(longer) if longer["close_utc"].size else self._no_m30
        # What is known: the newest half hour of before, in row 0, and the new ones.
        joined, m30_session, m30_contract = self._newest
        before = self._m30_rows - 1
        at = np.zeros(bars["close_utc"].size, np.int64)
        if longer["close_utc"].size:
            joined = {name: np.concatenate([joined[name], x]) for name, x in _joined(m30).items()}
            m30_session = np.concatenate([m30_session, m30["session_id"]])
            m30_contract = np.concatenate([m30_contract, m30["contract_id"]])
            at = np.searchsorted(m30["close_utc"], bars["close_utc"], side="right")
            self._m30_rows += longer["close_utc"].size
            self._newest = {name: x[-1:] for name, x in joined.items()}, m30_session[-1:], m30_contract[-1:]
        factor, (o, h, l, c) = self._continuous.update(bars)
        v, session, synthetic = (bars[name] for name in ("volume", "session_id", "is_synthetic"))
        atr = self._atr.update(h, l, c) / factor
        segment = self._segments.update(bars)  # a gap outlives neither its session nor a pause
        gaps = self._fvg.update(bars["high"], bars["low"], bars["close"], v, atr, segment, synthetic)
        tactical = self._tactical.update(o, h, l, c, v, session)
        columns: dict[str, Any] = {name: bars[name] for name in bars_module.SCHEMA}
        columns["atr_5m"] = atr
        columns |= {name: x / factor if name in technical.PRICES else x for name, x in tactical.items()}
        columns["activity"] = self._activity.update(v, bars["start_utc"], session, synthetic)
        columns |= {f"fvg_{name}": values for name, values in gaps._asdict().items()}
        columns["m30_row"] = at + before
        columns |= {name: x[at] for name, x in joined.items()}
        self._exchange(columns, m30_contract[at], factor)
        news = self._once.update(columns["m30_row"], m30_session[at], session, synthetic)
        self._add_gate1(columns, news)
        return columns, m30

    def _exchange(self, m5: dict[str, Any], m30_contract: np.ndarray, factor: np.ndarray) -> None:
        """Tell the last half hour of a contract in prices of the next one, whose first half hour has not closed yet."""
        contract = m5["contract_id"]
        for number in np.unique(contract):
            self._factors[int(number)] = float(factor[(contract == number).argmax()])
        old = (m30_contract >= 0) & (m30_contract != contract)
        if old.any():
            ratio = np.array([self._factors[int(number)] for number in m30_contract[old]]) / factor[old]
            for name in PRICED:
                m5[f"m30_{name}"][old] *= ratio
        self._factors = dict(list(self._factors.items())[-2:])

    def _add_gate1(self, m5: dict[str, Any], news: np.ndarray) -> None:
        """Add events, Gate 1 and candidates; ``news`` marks the bars at which a 30-minute signal is an event."""
        events = [
            np.where(news, _known(m5["m30_mlmi_signal"]), 0).astype(np.int8),
            np.where(news, _known(m5["m30_nwrqk_signal"]), 0).astype(np.int8),
            m5["fvg_mitigation_signal"].astype(np.int8),
        ]
        strengths = [
            np.clip(np.abs(_known(m5["m30_mlmi_value"], 50.0) - 50) / 50, 0, 1),
            np.clip(np.abs(_known(m5["m30_nwrqk_slope"])) / 2, 0, 1),
            np.clip(_known(m5["fvg_mitigation_size"] / m5["close"]) / self.gate1.fvg_strength_size, 0, 1),
        ]
        (mlmi, nwrqk, gap), (mlmi_now, nwrqk_now, gap_now) = events, strengths
        gate = self._synergy.update(mlmi, nwrqk, gap, mlmi_now, nwrqk_now, gap_now, m5["session_id"])
        m5 |= dict(zip(SIGNALS, events, strict=True))
        m5 |= dict(zip(("strength_mlmi_now", "strength_nwrqk_now", "strength_fvg_now"), strengths, strict=True))
        for name, values in gate._asdict().items():
            if name in TRACKER:
                for side, label in enumerate(("long", "short")):
                    m5[f"gate1_{name}_{label}"] = values[:, side]
            else:
                m5[f"gate1_{name}"] = values
        # A candidate is a traded bar with a signal, time left to trade and an ATR to place a stop by; its direction is
        # that of the signals' majority, of the first of them (MLMI, NW-RQK, FVG) when they cancel.
        total = np.sign(mlmi + nwrqk + gap)
        first = np.where(mlmi != 0, mlmi, np.where(nwrqk != 0, nwrqk, gap))
        direction = np.where(gate.type != 0, gate.direction, np.where(total != 0, total, first))
        tradable = (m5["session_close_utc"] > m5["close_utc"]) & ~np.isnan(m5["m30_atr"])
        m5["candidate_direction"] = np.where(tradable, direction, 0).astype(np.int8)


def _known(values: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """The values, and something neutral where there is none."""
    return np.where(np.isnan(values), otherwise, values)


def _joined(m30: Columns) -> dict[str, np.ndarray]:
    """The columns ``m30_*`` of the half hour before (none: NaN) and of these; numbers as float64, to have a NaN."""
    return {
        f"m30_{name}": values if name.endswith("_utc") else values.astype(np.float64, copy=False)
        for name, values in m30.items()
        if name not in NOT_JOINED and not name.startswith("sig_")
    }


def beside_itself(m30: Columns) -> pd.DataFrame:
    """A row per 30-minute bar with its own columns ``m30_*``: what there is of the table without 5-minute bars."""
    return bars_module.frame({name: m30[name] for name in bars_module.SCHEMA} | _joined(m30))


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
