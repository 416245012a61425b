"""Draw the indicators over bars of train that `prepare` left: ``python .ci/feature_pictures.py DIRECTORY``."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from algospace import artefacts, plotting
from algospace.data.splits import TRAIN
from algospace.plotting import COLOURS

PREPARED = Path("data/prepared")
SESSIONS = 6  # drawn of the middle of train: by then every indicator has its past
SCORES = ("m30_mmd_0", "m30_mmd_1", "m30_mmd_2", "m30_mmd_3")  # four of the twelve

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


def draw(directory: Path) -> None:
    """Write ``indicators.png``: seven panels over the same bars."""
    m5 = drawn_rows()
    x = np.arange(len(m5))
    half_hours = m5["m30_close_utc"] != m5["m30_close_utc"].shift()
    m30, x30 = m5[half_hours], x[half_hours]
    mark = plotting.watermark(artefacts.read_json(PREPARED / "manifest.json")["source"])
    with plotting.drawn(directory / "indicators.png", 11, 17, mark) as figure:
        panels = figure.subplots(7, 1, sharex=True)
        kernel, mlmi, gaps, nodes, scores, busy, events = panels
        kernel.set_title("Heiken Ashi close and NW-RQK (30 minutes); triangles: its signals")
        kernel.plot(x30, m30["m30_ha_close"], color=COLOURS[6], linewidth=0.8)
        kernel.plot(x30, m30["m30_nwrqk_value"], color=BLUE)
        marks(kernel, x30, m30["m30_nwrqk_value"], m30["m30_nwrqk_signal"])
        mlmi.set_title("MLMI (30 minutes); triangles: its signals")
        mlmi.plot(x30, m30["m30_mlmi_value"], color=BLUE)
        mlmi.axhline(50, color=COLOURS[6], linewidth=0.8)
        marks(mlmi, x30, m30["m30_mlmi_value"], m30["m30_mlmi_signal"])
        gaps.set_title("Close and nearest fair value gap (5 minutes); triangles: mitigations")
        gaps.plot(x, m5["close"], color=COLOURS[6], linewidth=0.8)
        gaps.plot(x, m5["fvg_nearest_level"].where(m5["fvg_nearest_level"] > 0), ".", color=BLUE, markersize=2)
        marks(gaps, x, m5["close"], m5["fvg_mitigation_signal"])
        nodes.set_title("Close between low volume nodes (30 minutes): support below, resistance above")
        nodes.plot(x30, m30["m30_close"], color=COLOURS[6], linewidth=0.8)
        for name, colour in (("support", GREEN), ("resistance", RED)):
            price = m30[f"m30_lvn_{name}_price"]
            nodes.plot(x30, price.where(price > 0), color=colour, linewidth=1, drawstyle="steps-post")
        scores.set_title(f"The first {len(SCORES)} MMD scores (30 minutes)")
        for name, colour in zip(SCORES, COLOURS, strict=False):
            scores.plot(x30, m30[name], color=colour, linewidth=1, label=name)
        scores.legend(ncols=len(SCORES), loc="upper left")
        busy.set_title("Activity: volume against the usual at its time of the session, logarithm (5 minutes)")
        busy.plot(x, m5["activity"], color=BLUE)
        busy.axhline(0, color=COLOURS[6], linewidth=0.8)
        events.set_title("Gate 1: completed synergies, long and short, on the close (5 minutes)")
        events.plot(x, m5["close"], color=COLOURS[6], linewidth=0.8)
        marks(events, x, m5["close"], m5["gate1_direction"].where(m5["gate1_type"] != 0, 0))
        events.set_xlabel("5-minute bars")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
