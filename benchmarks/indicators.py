"""How many bars a second each indicator takes, beside a plain reference in the same run.

The reference is the obvious way in NumPy or plain Python, and it does the same or less: MLMI's searches neighbours
only, FVG's follows bullish gaps only, LVN's makes profiles without nodes and strength. The tactical set's is TA-Lib
itself, compiled, which cannot be resumed. Single thread; kernels are compiled before the clock starts.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from _measure import main, seconds

from algospace.indicators import activity, fvg, lvn, mlmi, mmd, nwrqk, signature, technical
from algospace.indicators.params import IndicatorParams
from algospace.pipeline.config import load_params

PARAMS = load_params("indicators", IndicatorParams, Path(__file__).parents[1] / "params.yaml")
GOALS = {
    "nwrqk": 1_000_000, "mlmi": 200_000, "fvg": 2_000_000, "lvn": 50_000, "mmd12": 10_000, "sig155": 250_000,
    "tactical": None, "activity": None,
}  # fmt: skip


def market(n: int, per_session: int) -> SimpleNamespace:
    """A random market on a tick grid of 0.25 around 4,800."""
    rng = np.random.default_rng(3)
    close = np.round(4800 * np.exp(np.cumsum(6e-4 * rng.standard_t(4, n))) * 4) / 4
    open_ = np.r_[close[:1], close[:-1]]
    high = np.maximum(open_, close) + 0.25 * rng.integers(0, 8, n)
    low = np.minimum(open_, close) - 0.25 * rng.integers(0, 8, n)
    return SimpleNamespace(
        open=open_, high=high, low=low, close=close, volume=np.floor(rng.lognormal(8, 0.6, n)),
        session=np.arange(n) // per_session, synthetic=np.zeros(n, bool), ha_close=(open_ + high + low + close) / 4,
    )  # fmt: skip


def row(name: str, n: int, run: Callable[[], Any], naive: Callable[[], Any], naive_n: int, repeats: int) -> Any:
    def measure() -> dict[str, Any]:
        run()
        rate = n / seconds(run, repeats)
        slow = naive_n / seconds(naive, 1)
        return {
            "benchmark": name, "bars": n, "bars_per_second": round(rate), "naive_bars_per_second": round(slow, 1),
            "ratio": round(rate / slow, 1), "goal": GOALS[name],
        }  # fmt: skip

    measure.__name__ = name
    return measure


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    repeats, n = (3, 50_000) if quick else (9, 200_000)
    b, p = market(n, 46), PARAMS
    weights = (1 + np.arange(81.0) ** 2 / (2 * p.nwrqk.alpha * p.nwrqk.h**2)) ** -p.nwrqk.alpha

    def naive_nwrqk() -> list[float]:
        return [
            float(weights[: t + 1][:81] @ b.ha_close[t::-1][:81] / weights[: t + 1][:81].sum()) for t in range(5000)
        ]

    yield row("nwrqk", n, lambda: nwrqk.nwrqk(b.ha_close, p.nwrqk), naive_nwrqk, 5000, repeats)

    m = 50_000
    slow_rsi, fast_rsi = technical.rsi(b.ha_close[:m], p.mlmi.rsi_slow), technical.rsi(b.ha_close[:m], p.mlmi.rsi_fast)

    def naive_mlmi() -> list[float]:
        """The query alone, over as many points as the last bar knows."""
        points = np.column_stack([slow_rsi, fast_rsi])[100:m:8]
        return [float(np.argsort(((points - points[t]) ** 2).sum(axis=1))[: p.mlmi.k].sum()) for t in range(300)]

    yield row("mlmi", m, lambda: mlmi.mlmi(b.ha_close[:m], b.close[:m], p.mlmi), naive_mlmi, 300, repeats)

    atr = technical.atr(b.high, b.low, b.close, 14)

    def naive_fvg() -> list[tuple[float, float]]:
        gaps: list[tuple[float, float]] = []
        for t in range(2, 20_000):
            if b.low[t] > b.high[t - 2] and b.close[t - 1] > b.high[t - 2] and b.low[t] - b.high[t - 2] >= atr[t] / 4:
                gaps.append((b.high[t - 2], t))
            gaps = [gap for gap in gaps if b.low[t] > gap[0] and t - gap[1] <= p.fvg.max_age]
        return gaps

    yield row(
        "fvg", n,
        lambda: fvg.fvg(b.high, b.low, b.close, b.volume, atr, b.session, b.synthetic, p.fvg, p.volume_window),
        naive_fvg, 20_000, repeats,
    )  # fmt: skip

    width, window = 1.0, 20 * 46

    def naive_lvn() -> list[int]:
        """The profile of each window and its low bins, without their strength."""
        found = []
        for t in range(window, window + 20):
            low, high, volume = (x[t - window : t] for x in (b.low, b.high, b.volume))
            edges = np.arange(np.floor(low.min() / width), np.ceil(high.max() / width) + 1) * width
            profile = np.zeros(edges.size)
            for l, h, v in zip(low, high, volume, strict=True):
                inside = (edges >= l) & (edges < max(h, l + width))
                profile[inside] += v / max(inside.sum(), 1)
            found.append(int((profile < 0.3 * profile.max()).sum()))
        return found

    yield row(
        "lvn", n,
        lambda: lvn.lvn(b.high, b.low, b.close, b.close, b.volume, b.session, b.synthetic, width, p.lvn),
        naive_lvn, 20, repeats,
    )  # fmt: skip

    w = 10_000 if quick else 40_000
    z = mmd.path(b.open[:w], b.high[:w], b.low[:w], b.ha_close[:w], b.volume[:w])
    reference = mmd.fit(z, np.arange(w) < 8000, p.mmd, seed=0)
    x = (z - reference.center) / reference.scale

    def naive_mmd() -> list[float]:
        scores = []
        for t in range(200, 205):
            a = x[t - p.mmd.window + 1 : t + 1]
            for y in reference.points:
                k = [
                    np.mean(
                        [
                            np.exp(-((u[:, None] - v) ** 2).sum(-1) / (2 * (s * reference.median_distance) ** 2))
                            for s in reference.kernel_scales
                        ],
                        axis=0,
                    )
                    for u, v in ((a, a), (y, y), (a, y))
                ]
                scores.append(float(k[0].mean() + k[1].mean() - 2 * k[2].mean()))
        return scores

    yield row(
        "mmd12", w, lambda: mmd.mmd12(z, b.ha_close[:w], b.volume[:w], reference, p.mmd.window), naive_mmd, 5, repeats
    )

    steps = np.random.default_rng(0).normal(size=(n, 5))

    def naive_signature() -> list[float]:
        ends = []
        for t in range(20, 520):
            s1, s2, s3 = np.zeros(5), np.zeros((5, 5)), np.zeros((5, 5, 5))
            for d in steps[t - 20 : t]:
                s3 += np.multiply.outer(s2 + np.multiply.outer(s1 / 2 + d / 6, d), d)
                s2 += np.multiply.outer(s1 + d / 2, d)
                s1 += d
            ends.append(float(s3.sum()))
        return ends

    yield row("sig155", n, lambda: signature.signatures(steps, 20), naive_signature, 500, repeats)

    columns = (b.open, b.high, b.low, b.close, b.volume)

    def talib_set() -> list[Any]:
        import talib

        o, h, l, c, v = columns
        return [
            talib.EMA(c, 9), talib.EMA(c, 21), talib.EMA(c, 50), talib.SMA(c, 20), talib.MACD(c), talib.RSI(c, 14),
            talib.BBANDS(c, 20, 2.0, 2.0), talib.STOCH(h, l, c, 14), talib.ATR(h, l, c), talib.ADX(h, l, c),
            talib.OBV(c, v), talib.AD(h, l, c, v), talib.MOM(c, 10), talib.ROC(c, 10), talib.CDLHAMMER(o, h, l, c),
            talib.CDLDOJI(o, h, l, c), talib.CDLENGULFING(o, h, l, c),
        ]  # fmt: skip

    yield row(
        "tactical", n, lambda: technical.tactical(*columns, p.volume_window, p.momentum_bars), talib_set, n, repeats
    )

    five_minutes = 300_000
    start = np.arange(n) * five_minutes

    def naive_activity() -> list[float]:
        usual: dict[int, tuple[int, float]] = {}
        mean, values = 0.0, []
        for t in range(20_000):
            x = float(np.log(b.volume[t]))
            seen, level = usual.get(t % 46, (0, 0.0))
            if seen:
                mean += (x - level - mean) / p.activity.bars
            usual[t % 46] = (seen + 1, level + (x - level) / min(seen + 1, p.activity.sessions))
            values.append(mean)
        return values

    yield row(
        "activity", n, lambda: activity.activity(b.volume, start, b.session, b.synthetic, p.activity),
        naive_activity, 20_000, repeats,
    )  # fmt: skip


if __name__ == "__main__":
    main(__doc__ or "", rows)
