"""Matplotlib figures as inline SVG that follow the page's light or dark colours.

Matplotlib draws in sentinel colours, which are then replaced by the page's CSS variables; text stays text.
The bytes depend on the data alone: fixed hash salt, no date, default style whatever the user's matplotlibrc.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from matplotlib import style
from matplotlib.figure import Figure

INCHES = 6.4  # width; 72 points to the inch, and the text is sized for a phone
SENTINELS = {
    "#010203": "--ink",
    "#010204": "--muted",
    "#010205": "--rule",
    "#010206": "--gain",
    "#010207": "--loss",
    "#010208": "--open",
    **{f"#01021{k}": f"--series-{k}" for k in range(5)},
}
INK, MUTED, RULE, GAIN, LOSS, OPEN, *SERIES = SENTINELS
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 13,  # as the page writes it on a phone
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": MUTED,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.formatter.useoffset": False,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "text.color": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.constrained_layout.use": True,
    "path.simplify": False,
}


@dataclass(frozen=True)
class Picture:
    """An inline SVG, whose ``aria-label`` is the caption, and the marks of its legend."""

    svg: Markup  # empty where there is nothing to draw
    legend: list[Markup]
    caption: str


@contextmanager
def drawing(height: float) -> Iterator[Figure]:
    """Give a figure of the page's width and ``height`` inches to draw on, in the house style."""
    with style.context(["default", STYLE]):
        yield Figure(figsize=(INCHES, height))


def picture(figure: Figure, salt: str, caption: str, legend: list[Markup], watermark: str) -> Picture:
    """Turn a figure into an inline SVG: page colours, no addresses, no ids that two pictures (of two salts) share."""
    if watermark:
        mark = figure.text(0.5, 0.5, watermark, color=MUTED, alpha=0.18, size=30, weight="bold", rotation=18)
        mark.set(horizontalalignment="center", verticalalignment="center", gid="watermark")
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    stream = io.StringIO()
    with style.context({"svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    head, body = stream.getvalue().split("<svg", 1)[1].split(">", 1)
    view_box = re.findall(r'viewBox="[^"]+"', head)[0]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace('<g id="watermark"', '<g class="watermark"')
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r"\n\s*", "\n", body).strip()
    for colour, variable in SENTINELS.items():
        body = body.replace(colour, f"var({variable})")
    svg = Markup(f'<svg {view_box} role="img" aria-label="{escape(caption)}">{body}')
    return Picture(svg, legend, caption)
