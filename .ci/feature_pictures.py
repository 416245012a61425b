"""Draw the indicators over bars of train that `prepare` left: ``python .ci/feature_pictures.py DIRECTORY``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from algospace import artefacts, plotting
from algospace.data.splits import TRAIN
from algospace.plotting import COLOURS

PREPARED = Path("data/prepared")
SESSIONS = 6  # drawn of the middle of train: by then every indicator has its past
TECHNICAL_BARS = 400  # drawn of TA-Lib's set
CANDLES = "Candles: 1 bullish, -1 bearish"
DISTANCES = tuple(f"m30_mmd_{i}" for i in range(7))
MOMENTS = tuple(f"m30_mmd_{i}" for i in range(7, 12))

BLUE, RED, GREEN = COLOURS[:3]


def drawn_rows() -> pd.DataFrame:
    """The sessions to draw, one row a 5-minute bar."""
    table = pd.read_parquet(PREPARED / "main_training_data.parquet")
    table = table[table["split"] == TRAIN]
    sessions = table["session_id"].unique()
    first = len(sessions) // 2
    chosen = sessions[first : first + SESSIONS]
    return table[table["session_id"].isin(chosen)].reset_index(drop=True)


def marks(axes: Axes, x: np.ndarray, at: pd.Series, signal: pd.Series) -> None:
    """A triangle up or down where a signal was raised."""
    for side, shape, colour in ((1, "^", GREEN), (-1, "v", RED)):
        raised = (signal == side).to_numpy()
        axes.plot(x[raised], at.to_numpy()[raised], shape, color=colour, markersize=6, linestyle="none")


def bars(axes: Axes, x: np.ndarray, low: pd.Series, high: pd.Series) -> None:
    """Each bar from its low to its high."""
    axes.vlines(x, low, high, color=COLOURS[6], linewidth=0.6)


def lines(axes: Axes, x: np.ndarray, table: pd.DataFrame, names: Sequence[str], style: str = "-") -> None:
    """Columns of a table, named beside the title."""
    for name, colour in zip(names, COLOURS, strict=False):
        axes.plot(x, table[name], style, color=colour, linewidth=1, markersize=4, label=name)
    axes.legend(
        ncols=len(names), loc="lower right", bbox_to_anchor=(1, 0.98), fontsize=8, frameon=False, columnspacing=1
    )


def draw_indicators(directory: Path, m5: pd.DataFrame, mark: str) -> None:
    """``indicators.png``: nine panels over the same bars."""
    x = np.arange(len(m5))
    half_hours = m5["m30_close_utc"] != m5["m30_close_utc"].shift()
    m30, x30 = m5[half_hours], x[half_hours]
    with plotting.drawn(directory / "indicators.png", 11, 21, mark) as figure:
        panels = figure.subplots(9, 1, sharex=True)
        kernel, mlmi, gaps, nodes, strength, distances, moments, busy, events = panels
        kernel.set_title("Heiken Ashi bars and NW-RQK (30 minutes); triangles: its signals")
        bars(kernel, x30, m30["m30_ha_low"], m30["m30_ha_high"])
        kernel.plot(x30, m30["m30_nwrqk_value"], color=BLUE)
        marks(kernel, x30, m30["m30_nwrqk_value"], m30["m30_nwrqk_signal"])
        mlmi.set_title("MLMI (30 minutes); triangles: its signals")
        mlmi.plot(x30, m30["m30_mlmi_value"], color=BLUE)
        mlmi.axhline(50, color=COLOURS[6], linewidth=0.8)
        marks(mlmi, x30, m30["m30_mlmi_value"], m30["m30_mlmi_signal"])
        gaps.set_title("Bars and nearest fair value gap (5 minutes); triangles: mitigations")
        bars(gaps, x, m5["low"], m5["high"])
        gaps.plot(x, m5["fvg_nearest_level"].where(m5["fvg_nearest_level"] > 0), ".", color=BLUE, markersize=2)
        marks(gaps, x, m5["close"], m5["fvg_mitigation_signal"])
        nodes.set_title("Bars between low volume nodes (30 minutes): support below, resistance above")
        bars(nodes, x30, m30["m30_low"], m30["m30_high"])
        for name, colour in (("support", GREEN), ("resistance", RED)):
            price = m30[f"m30_lvn_{name}_price"]
            nodes.plot(x30, price.where(price > 0), color=colour, linewidth=1, drawstyle="steps-post")
        strength.set_title("Strength of those nodes, 0 to 100")
        for name, colour in (("support", GREEN), ("resistance", RED)):
            strength.plot(x30, m30[f"m30_lvn_{name}_strength"], color=colour, linewidth=1, drawstyle="steps-post")
        distances.set_title("MMD (30 minutes): distances of the recent path to the seven reference regimes")
        lines(distances, x30, m30, DISTANCES)
        moments.set_title("MMD (30 minutes): moments of the recent path, each over its own spread here")
        spread = m30[list(MOMENTS)] - m30[list(MOMENTS)].mean()
        lines(moments, x30, spread / spread.std(), MOMENTS)
        busy.set_title("Activity: volume against the usual at its time of the session, logarithm (5 minutes)")
        busy.plot(x, m5["activity"], color=BLUE)
        busy.axhline(0, color=COLOURS[6], linewidth=0.8)
        events.set_title("Gate 1: completed synergies, long and short (5 minutes)")
        bars(events, x, m5["low"], m5["high"])
        marks(events, x, m5["close"], m5["gate1_direction"].where(m5["gate1_type"] != 0, 0))
        events.set_xlabel("5-minute bars")


def draw_technical(directory: Path, m5: pd.DataFrame, mark: str) -> None:
    """``technical.png``: TA-Lib's set over the newest of the same bars."""
    m5 = m5.tail(TECHNICAL_BARS).reset_index(drop=True)
    x = np.arange(len(m5))
    titles = {
        "Bars and averages": ("ema_9", "ema_21", "ema_50", "sma_20"),
        "Bars, Bollinger bands and pivots": ("bb_upper", "bb_middle", "bb_lower", "pivot", "r1", "s1"),
        "Moving average convergence and divergence": ("macd", "macd_signal", "macd_hist"),
        "Oscillators, 0 to 100": ("rsi_14", "stoch_k", "stoch_d", "adx_14"),
        "Ranges, points": ("atr_14", "atr_5m"),
        "Momentum, points": ("mom_10",),
        "Momentum, percent": ("roc_10", "momentum_5"),
        "Bollinger bands: their width over the middle": ("bb_width",),
        "Bollinger bands: the close between them, 0 to 1": ("bb_percent",),
        "Close over an average, less 1": ("ema_9_ratio", "ema_21_ratio", "sma_20_ratio"),
        "Returns and their volatility": ("returns", "volatility_20"),
        "Volume over its average": ("volume_ratio",),
        "On-balance volume, accumulation and distribution, from their start here": ("obv", "ad"),
        CANDLES: ("cdl_hammer", "cdl_doji", "cdl_engulfing"),
    }
    table = m5.assign(obv=m5["obv"] - m5["obv"].iloc[0], ad=m5["ad"] - m5["ad"].iloc[0])
    with plotting.drawn(directory / "technical.png", 11, 28, mark) as figure:
        for axes, (title, names) in zip(figure.subplots(len(titles), 1, sharex=True), titles.items(), strict=True):
            axes.set_title(title)
            if title.startswith("Bars"):
                bars(axes, x, m5["low"], m5["high"])
            if title == CANDLES:
                lines(axes, x, table[list(names)].where(table[list(names)] != 0), names, ".")
            else:
                lines(axes, x, table, names)
        axes.set_xlabel("5-minute bars")


def draw(directory: Path) -> None:
    """Write both pictures."""
    mark = plotting.watermark(artefacts.read_json(PREPARED / "manifest.json")["source"])
    m5 = drawn_rows()
    draw_indicators(directory, m5, mark)
    draw_technical(directory, m5, mark)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
