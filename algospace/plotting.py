"""Pictures of the training stages: PNG files whose bytes depend on the data alone."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algospace import artefacts

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def drawn(path: Path, width: float, height: float, watermark: str) -> Iterator[Figure]:
    """Give a figure to draw on and write it, atomically; ``watermark`` (may be empty) goes across it."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), dpi=110)
        yield figure
        if watermark:
            figure.text(
                0.5, 0.5, watermark, color="#000000", alpha=0.10, size=26, weight="bold", rotation=20, ha="center",
                va="center",
            )  # fmt: skip
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    artefacts.write_bytes(path, stream.getvalue())


def watermark(source: Mapping[str, Any]) -> str:
    """What a picture of this source must say across it."""
    return "SYNTHETIC DATA" if source["kind"] == "synthetic" else ""


def losses(path: Path, history: Sequence[Mapping[str, float]], best_epoch: int, mark: str) -> None:
    """Draw every scalar of a training history by epoch, train and validation of one name together."""
    names = list(dict.fromkeys(key.split("/")[-1] for row in history for key in row))
    with drawn(path, 3.4 * len(names), 2.8, mark) as figure:
        for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
            for colour, half in zip(COLOURS, ("train", "validation"), strict=False):
                values = [row[f"{half}/{name}"] for row in history if f"{half}/{name}" in row]
                if values:
                    axes.plot(range(1, len(values) + 1), values, color=colour, label=half)
            axes.axvline(best_epoch + 1, color="#7f7f7f", linestyle="dotted", label="best epoch")
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.legend()


def date_axis(axes: Axes, times: pd.DatetimeIndex) -> None:
    """Number the x axis by row and label four of the rows with their date: nights and weekends take no room."""
    at = np.unique(np.linspace(0, len(times) - 1, 4).astype(np.intp))
    axes.set_xticks(at, [times[k].strftime("%Y-%m-%d") for k in at])
    axes.set_xlim(-0.5, len(times) - 0.5)
