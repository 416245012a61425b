"""The three signals that Gate 1 waits for: events of MLMI, NW-RQK and FVG, without the other features."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from algospace.data.bars import HeikenAshiStream, IntArray, Resampler, SegmentStream, columns
from algospace.data.continuous import Continuous
from algospace.indicators import fvg, mlmi, nwrqk, technical
from algospace.indicators.arrays import Codes, Floats, Tail
from algospace.indicators.params import IndicatorParams
from algospace.synergy import Gate1Params


class Signals(NamedTuple):
    """Events on the 5-minute grid, int8 arrays (n,) of -1, 0, +1, and the risk unit that is known there."""

    mlmi: Codes
    nwrqk: Codes
    fvg: Codes
    m30_atr: Floats  # of the newest 30-minute bar that has closed, price units; NaN before the first has one


class HalfHours(NamedTuple):
    """MLMI and NW-RQK after each 30-minute bar, and their events, arrays (n,)."""

    mlmi_value: Floats
    nwrqk_value: Floats
    nwrqk_slope_bp: Floats
    nwrqk_slope: Floats
    mlmi_signal: Codes
    nwrqk_signal: Codes


class HalfHourStream:
    """The two slow signals of 30-minute bars that come one after the other."""

    def __init__(self, indicators: IndicatorParams, gate1: Gate1Params) -> None:
        self.gate1 = gate1
        self._mlmi, self._nwrqk = mlmi.Stream(indicators.mlmi), nwrqk.Stream(indicators.nwrqk)
        self._slope = nwrqk.SlopeStream(indicators.nwrqk.slope_window)
        self._mlmi_rows, self._nwrqk_rows = Tail(1), Tail(2)  # what an event looks back on

    def update(self, ha_close: Floats, close: Floats) -> HalfHours:
        """Return values and events of the next bars, given their Heiken Ashi and their own closes."""
        value, curve = self._mlmi.update(ha_close, close), self._nwrqk.update(ha_close)
        slope_bp, slope = self._slope.update(curve)
        (values,) = self._mlmi_rows.join(value)
        curves, slopes = self._nwrqk_rows.join(curve, slope)
        return HalfHours(
            value,
            curve,
            slope_bp,
            slope,
            mlmi.events(values, self.gate1.mlmi_dead_band)[self._mlmi_rows.front :],
            nwrqk.events(curves, slopes, self.gate1.nwrqk_min_slope)[self._nwrqk_rows.front :],
        )


class OnceStream:
    """Says at which 5-minute bar a half hour is news: the first traded one of its session that sees it as the newest.

    That is the bar which closes with it, unless this is a filled one (known only when the next one is) or the session
    pauses before. A half hour that ends its session is news to none: nothing crosses a session.
    """

    def __init__(self) -> None:
        self._seen = -1  # newest half hour at the last traded bar

    def update(
        self, m30_row: IntArray, m30_session: IntArray, session: IntArray, is_synthetic: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Mark the next bars (n,), given the number of the newest half hour at each (-1: none) and its session."""
        news = np.zeros(m30_row.size, np.bool_)
        traded = ~is_synthetic
        seen = m30_row[traded]
        before = np.append(self._seen, seen)[: seen.size]
        news[traded] = (seen > before) & (m30_session == session)[traded]
        self._seen = int(seen[-1]) if seen.size else self._seen
        return news


class SignalStream:
    """The three signals alone of bars that come one after the other, without the other features.

    They are those of `algospace.features.table`; `OnceStream` says when a 30-minute signal is an event.
    """

    def __init__(self, indicators: IndicatorParams, gate1: Gate1Params) -> None:
        self._m5_prices, self._m30_prices = Continuous(), Continuous()
        self._resampler, self._ha = Resampler(), HeikenAshiStream()
        self._slow = HalfHourStream(indicators, gate1)
        self._segments, self._once = SegmentStream(), OnceStream()
        self._m30_rows = 0  # half hours so far; of the last one: session, signals, ATR
        self._newest: tuple[int, int, int, float] = (-1, 0, 0, np.nan)
        self._m30_atr, self._m5_atr = technical.ATR(indicators.atr), technical.ATR(indicators.atr)
        self._fvg = fvg.Stream(indicators.fvg, indicators.volume_window)

    def update(self, bars: pd.DataFrame) -> Signals:
        """Return the signals of the next bars of `algospace.data.bars.SCHEMA`."""
        m5 = columns(bars)
        factor, (_, h, l, c) = self._m5_prices.update(m5)
        atr = self._m5_atr.update(h, l, c) / factor
        session, synthetic = m5["session_id"], m5["is_synthetic"]
        gaps = self._fvg.update(
            m5["high"], m5["low"], m5["close"], m5["volume"], atr, self._segments.update(m5), synthetic
        )

        m30 = self._resampler.update(m5)
        factor, (o, h, l, c) = self._m30_prices.update(m30)
        ha = self._ha.update(o, h, l, c)
        slow = self._slow.update(ha.close, c)
        newest = np.searchsorted(m30["close_utc"], m5["close_utc"], side="right")  # 0: one from before
        atr = self._m30_atr.update(h, l, c) / factor
        found: list[np.ndarray] = [m30["session_id"], slow.mlmi_signal, slow.nwrqk_signal, atr]
        known = [np.append(last, column) for last, column in zip(self._newest, found, strict=True)]
        m30_session, crossings, turns, m30_atr = (column[newest] for column in known)
        news = self._once.update(self._m30_rows + newest - 1, m30_session, session, synthetic)
        self._m30_rows += len(slow.mlmi_signal)
        self._newest = (int(known[0][-1]), int(known[1][-1]), int(known[2][-1]), float(known[3][-1]))
        crossings, turns = (np.where(news, signal, 0).astype(np.int8) for signal in (crossings, turns))
        return Signals(crossings, turns, gaps.mitigation_signal, m30_atr)
