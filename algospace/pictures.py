"""The report's pictures: equity, drawdown, decisions and regimes over time, and what the confidence is worth.

Those over time share one horizontal axis, the number of the bar, so that nights and weekends take no room.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from algospace.calibration import Reliability
from algospace.svg import GAIN, LOSS, MUTED, OPEN, RULE, SENTINELS, SERIES, Picture, drawing, picture

Curves = Mapping[str, tuple[NDArray[Any], NDArray[np.float64]]]
Times = NDArray[np.int64]

POINTS = 2000  # most points of a line
COLUMNS = 600  # most columns of the heat map
MARKS = 1000  # most markers of a kind
DAY = 86_400 * 10**9  # nanoseconds
LINES = {"solid": "none", "dashed": "7 3", "dotted": "2 2", "dashdot": "7 2 2 2"}  # the dashes of each in the legend
NEGATIVE, POSITIVE = (45, 110, 220), (225, 110, 25)  # ends of the heat map; its middle is the page itself


def nanoseconds(times: Any) -> Times:
    """Return UTC nanoseconds since 1970 of datetimes, or of integers that are that already."""
    nanos: Times = pd.DatetimeIndex(pd.to_datetime(times, utc=True)).as_unit("ns").asi8
    return nanos


def day_of(time: int) -> str:
    """Return the date of nanoseconds since 1970 as YYYY-MM-DD."""
    return str(np.datetime64(int(time) // DAY, "D"))


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def thinned(values: NDArray[np.float64], points: int) -> NDArray[np.intp]:
    """Return at most ``points`` (>= 4) rising indices that keep both ends and each stretch's extremes."""
    n = len(values)
    if n <= points:
        return np.arange(n)
    edges = np.linspace(0, n, points // 2, dtype=np.intp)  # leaves room for both ends
    kept = [0, n - 1]
    for first, last in pairwise(edges):
        kept += [first + int(np.argmin(values[first:last])), first + int(np.argmax(values[first:last]))]
    return np.unique(kept)


def equity(curves: Curves, bars: pd.DataFrame, watermark: str) -> Picture:
    """Draw the net return of each equity curve, in percent of its start."""
    returns = {name: (times, 100.0 * (e / e[0] - 1.0)) for name, (times, e) in curves.items() if len(e)}
    ends = ", ".join(f"{name} {_signed(values[-1])}\u00a0%" for name, (_, values) in returns.items())
    caption = f"Net return at the end: {ends}." if ends else "No equity was recorded."
    return _curves("Net return, %", returns, bars, watermark, caption)


def drawdowns(curves: Curves, bars: pd.DataFrame, watermark: str) -> Picture:
    """Draw the loss of each equity curve from its running peak, in percent of that peak, downwards."""
    losses = {
        name: (times, 100.0 * (e / np.maximum.accumulate(e) - 1.0)) for name, (times, e) in curves.items() if len(e)
    }
    worst = ", ".join(f"{name} {abs(values.min()):.2f}\u00a0%" for name, (_, values) in losses.items())
    caption = f"Deepest drawdown at any close: {worst}." if worst else "No equity was recorded."
    return _curves("Drawdown, %", losses, bars, watermark, caption)


def decisions(made: pd.DataFrame, bars: pd.DataFrame, watermark: str) -> Picture:
    """Draw the decisions over the closing price: side by shape, outcome by colour; refusals at the bottom."""
    accepted = made["accepted"].to_numpy(dtype=bool)
    side = made["direction"].to_numpy()
    net_r = made["net_r"].to_numpy(dtype=np.float64)
    price = made["price"].to_numpy(dtype=np.float64)
    long, short = accepted & (side > 0), accepted & (side < 0)
    gained, lost = accepted & (net_r > 0), accepted & (net_r <= 0)
    kinds = [  # name, rows, colour, glyph, marker
        ("gained, long", long & gained, GAIN, "▲", "^"),
        ("gained, short", short & gained, GAIN, "▼", "v"),
        ("lost, long", long & lost, LOSS, "▲", "^"),
        ("lost, short", short & lost, LOSS, "▼", "v"),
        ("no trade followed", accepted & np.isnan(net_r), OPEN, "◆", "d"),
        ("refused", ~accepted, MUTED, "|", "|"),
    ]
    legend = []
    if not len(bars):
        return Picture(Markup(), [], "There are no bars.")
    with drawing(3.8) as figure:
        axes = figure.subplots()
        caption = _draw_price(axes, bars)
        for name, rows, colour, glyph, marker in kinds:
            chosen = np.flatnonzero(rows)
            if not len(chosen):
                continue
            mark = Markup('<b style="color:var({})">{}</b>{} ({:,})')
            legend.append(mark.format(SENTINELS[colour], glyph, name, len(chosen)))
            drawn = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), MARKS)).astype(np.intp)]
            at = _positions(bars, nanoseconds(made["close_utc"].iloc[drawn]))
            if marker == "|":
                along = axes.get_xaxis_transform()  # height as a share of the axes
                axes.plot(at, np.full(len(at), 0.02), marker, color=colour, markersize=5, transform=along)
            else:
                axes.plot(at, price[drawn], marker, color=colour, markersize=6, markeredgewidth=0, alpha=0.85)
        count = [f"{int(rows.sum()):,}" for rows in (accepted, long, short, gained, lost, ~accepted)]
        caption += " {:,} decisions: {} accepted ({} long, {} short; {} gained, {} lost), {} refused.".format(
            len(made), *count
        )
        return picture(figure, "decisions", caption, legend, watermark)


def regimes(vectors: pd.DataFrame, bars: pd.DataFrame, watermark: str) -> Picture:
    """Draw the closing price above a heat map of the last regime vector known at each bar's close."""
    names = [name for name in vectors.columns if name.startswith("regime_")]
    values = vectors[names].to_numpy(dtype=np.float64)
    closes = nanoseconds(bars["close_utc"])
    row = np.searchsorted(nanoseconds(vectors["close_utc"]), closes, side="right") - 1
    shown = np.full((len(bars), len(names)), np.nan)
    shown[row >= 0] = values[row[row >= 0]]
    known = np.isfinite(shown).all(axis=1)
    size = np.abs(shown[known])
    scale = float(np.quantile(size, 0.98)) if size.size else 0.0
    legend = []
    if not len(bars):
        return Picture(Markup(), [], "There are no bars.")
    with drawing(4.6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        caption = _draw_price(upper, bars)
        _date_axis(lower, bars)
        upper.tick_params(labelbottom=False)
        lower.grid(False)
        lower.set_title("Regime vector")
        lower.set_yticks(range(len(names)), [name.removeprefix("regime_") for name in names])
        if scale > 0:
            image = _heat(shown, scale)
            lower.imshow(
                image,
                aspect="auto",
                interpolation="none",
                extent=(-0.5, len(bars) - 0.5, len(names) - 0.5, -0.5),
            )
            legend = [Markup('−{0:.2g}<span class="ramp"></span>+{0:.2g}').format(scale)]
            caption += f" Regime coordinates from {_signed(shown[known].min())} to {_signed(shown[known].max())}."
        if not known.all():
            caption += f" {int((~known).sum()):,} of {len(bars):,} bars have no regime vector."
        return picture(figure, "regimes", caption, legend, watermark)


def reliability(found: Reliability, watermark: str) -> Picture:
    """Draw how often what the confidence promised happened, with 95 % intervals, beside the diagonal."""
    if not len(found.counts):
        return Picture(Markup(), [], "No candidate was judged.")
    with drawing(3.6) as figure:
        axes = figure.subplots()
        axes.set_title("Share that gained")
        axes.set_xlabel("Calibrated confidence")
        ends = [min(found.stated.min(), found.low.min()), max(found.stated.max(), found.high.max())]
        axes.plot(ends, ends, color=MUTED, linestyle="dashed", linewidth=1.0)
        axes.vlines(found.stated, found.low, found.high, color=RULE, linewidth=3.0)
        size = 4 + 10 * np.sqrt(found.counts / found.counts.max())
        for x, y, points in zip(found.stated, found.found, size, strict=True):
            axes.plot([x], [y], "o", color=SERIES[0], markersize=points, markeredgewidth=0)
        total = int(found.counts.sum())
        caption = (
            f"{total:,} candidates by their confidence, larger dots hold more: stated from "
            f"{found.stated.min():.2f} to {found.stated.max():.2f}, found from {found.found.min():.2f} to "
            f"{found.found.max():.2f}. A perfect confidence lies on the dashed line."
        )
        legend = [
            Markup('<b style="color:var({})">{}</b>{}').format(SENTINELS[colour], glyph, name)
            for colour, glyph, name in ((SERIES[0], "●", "found"), (MUTED, "╌", "perfect"))
        ]
        return picture(figure, "reliability", caption, legend, watermark)


def _heat(values: NDArray[np.float64], scale: float) -> NDArray[np.uint8]:
    """Colour the mean of each stretch of bars: opacity by size, hue by sign; unknown is transparent."""
    first = np.linspace(0, len(values), min(len(values), COLUMNS), endpoint=False, dtype=np.intp)
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0.0), first, axis=0)
    mean = (total / np.maximum(np.add.reduceat(known.astype(np.int64), first, axis=0), 1)).T
    image = np.empty((*mean.shape, 4), dtype=np.uint8)
    image[..., :3] = np.where(mean[..., None] < 0, NEGATIVE, POSITIVE)
    image[..., 3] = np.rint(255 * np.minimum(np.abs(mean) / scale, 1.0))
    return image


def _positions(bars: pd.DataFrame, times: Times) -> NDArray[np.intp]:
    return np.searchsorted(nanoseconds(bars["close_utc"]), times)


def _draw_price(axes: Axes, bars: pd.DataFrame) -> str:
    """Draw the close and return a sentence about it."""
    close = bars["close"].to_numpy(dtype=np.float64)
    axes.set_title("Close")
    axes.yaxis.set_major_formatter("{x:,g}")
    _date_axis(axes, bars)
    at = thinned(close, POINTS)
    axes.plot(at, close[at], color=MUTED, linewidth=0.9)
    days = nanoseconds(bars["close_utc"])
    return (
        f"Close over {len(bars):,} bars from {day_of(days[0])} to {day_of(days[-1])}: first {close[0]:,.8g}, "
        f"last {close[-1]:,.8g}, lowest {close.min():,.8g}, highest {close.max():,.8g}."
    )


def _date_axis(axes: Axes, bars: pd.DataFrame) -> None:
    axes.set_xlim(-0.5, max(len(bars), 1) - 0.5)
    at = np.unique(np.linspace(0, len(bars) - 1, min(len(bars), 4)).astype(np.intp))
    days = nanoseconds(bars["close_utc"])
    axes.set_xticks(at, [day_of(days[k]) for k in at])
    labels = axes.get_xticklabels()
    if len(labels) > 1:
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")


def _curves(title: str, curves: Curves, bars: pd.DataFrame, watermark: str, caption: str) -> Picture:
    legend = []
    if not curves or not len(bars):
        return Picture(Markup(), [], caption)
    with drawing(3.2) as figure:
        axes = figure.subplots()
        axes.set_title(title)
        _date_axis(axes, bars)
        for k, (name, (times, values)) in enumerate(curves.items()):
            at = thinned(values, POINTS)
            colour, (line, dashes) = SERIES[k % len(SERIES)], list(LINES.items())[k % len(LINES)]
            # the first curve is the one that is judged: widest, and drawn over the others
            axes.plot(
                _positions(bars, nanoseconds(times)[at]),
                values[at],
                color=colour,
                linestyle=line,
                linewidth=1.4 if k else 2.0,
                zorder=10 - min(k, 7),
            )
            mark = Markup('<svg viewBox="0 0 24 4" aria-hidden="true"><path d="M0 2H24" {}/></svg>{}')
            look = Markup('style="stroke:var({})" stroke-width="2.5" stroke-dasharray="{}"')
            legend.append(mark.format(look.format(SENTINELS[colour], dashes), name))
        return picture(figure, title, caption, legend, watermark)
