"""Pictures of the regime space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from algospace import plotting
from algospace.data.splits import REPORT, SELECT
from algospace.features.prepared import RegimeRows
from algospace.plotting import COLOURS, date_axis, drawn
from algospace.rde import space
from algospace.rde.engine import Engine
from algospace.rde.measures import HalfHours, measures
from algospace.rde.space import Quality

MOST_POINTS = 1200  # of a latent picture: t-SNE compares all pairs
RIBBON_POINTS = 3000  # of a price line


def write_all(
    directory: Path,
    engine: Engine,
    table: RegimeRows,
    bars: HalfHours,
    judged: Quality,
    length: int,
    seed: int,
    mark: str,
) -> None:
    """Write the stage's pictures: losses, the latent space, the ribbon under the price, the map of the dimensions."""
    plotting.losses(directory / "losses.png", engine.fit.history, engine.fit.best_epoch, mark)
    plotting.losses(directory / "communication_losses.png", engine.layer_fit.history, engine.layer_fit.best_epoch, mark)
    ends, vectors = table.window_end, engine.final.vectors
    known = ends < len(bars.close)  # before the test split
    volatility = measures(bars, ends[known], length)["volatility"].to_numpy()
    kinds = engine.space.nearest(vectors)
    latent(directory / "latent.png", vectors[known], volatility, kinds[known], engine.archetypes, seed, mark)
    times = pd.DatetimeIndex(pd.to_datetime(bars.close_utc[ends[known]], unit="ms", utc=True))
    ribbon(directory / "ribbon.png", times, bars.close[ends[known]], judged.archetype[known], engine.archetypes, mark)
    validation = (table.split == SELECT) | (table.split == REPORT)
    found = measures(bars, ends[validation], length)
    names = [f"regime {i}: {meaning.name}" for i, meaning in enumerate(engine.meanings)]
    r = [space.correlations(y, found.to_numpy()) for y in space.unsquashed(vectors[validation]).T]
    map_of_dimensions(directory / "map.png", pd.DataFrame(r, index=names, columns=found.columns), mark)


def latent(
    path: Path,
    vectors: np.ndarray,
    volatility: np.ndarray,
    archetype: np.ndarray,
    names: Sequence[str],
    seed: int,
    mark: str,
) -> None:
    """Draw regime vectors (n, latent) in two principal coordinates and by t-SNE, by time, volatility and archetype."""
    thin = np.linspace(0, len(vectors) - 1, min(len(vectors), MOST_POINTS)).astype(np.int64)
    chosen = vectors[thin].astype(np.float64)
    centred = chosen - chosen.mean(axis=0)
    _, _, axes_of = np.linalg.svd(centred, full_matrices=False)
    with threadpool_limits(1):  # another thread count gives other bits
        embedded = TSNE(2, perplexity=min(30.0, (len(chosen) - 1) / 3), init="pca", random_state=seed).fit_transform(
            chosen
        )
    places = {"principal coordinates": centred @ axes_of[:2].T, "t-SNE": embedded}
    colours = {"time": thin, "log volatility": volatility[thin]}
    with drawn(path, 10.5, 7, mark) as figure:
        grid = figure.subplots(2, 3)
        for row, (title, place) in zip(grid, places.items(), strict=True):
            for axes, (name, value) in zip(row, colours.items(), strict=False):
                axes.scatter(*place.T, c=value, s=5, cmap="viridis", linewidths=0)
                axes.set_title(f"{title}, by {name}")
            for k, name in enumerate(names):
                here = archetype[thin] == k
                row[2].scatter(*place[here].T, color=COLOURS[k % len(COLOURS)], s=5, linewidths=0, label=name)
            row[2].set_title(f"{title}, by archetype")
        grid[1, 2].legend(markerscale=3, fontsize=7)
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])


def ribbon(
    path: Path, times: pd.DatetimeIndex, close: np.ndarray, archetype: np.ndarray, names: Sequence[str], mark: str
) -> None:
    """Draw the close (n,) coloured by the nearest archetype (n,) of each half hour, with the same as a ribbon below."""
    thin = np.linspace(0, len(close) - 1, min(len(close), RIBBON_POINTS)).astype(np.int64)
    kinds = archetype[thin]
    with drawn(path, 10.5, 4.2, mark) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(8, 1))
        upper.plot(close[thin], color="#999999", linewidth=0.6)
        for k in range(len(names)):
            at = np.flatnonzero(kinds == k)
            upper.scatter(at, close[thin][at], s=2, color=COLOURS[k % len(COLOURS)], linewidths=0)
        palette = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS], np.uint8)
        lower.imshow(
            palette[kinds % len(COLOURS)][None], aspect="auto", interpolation="none",
            extent=(-0.5, len(thin) - 0.5, 0, 1),
        )  # fmt: skip
        lower.set_yticks([])
        lower.grid(False)
        date_axis(lower, times[thin])
        upper.set_title("Close by nearest archetype")
        dots = [Line2D([], [], marker="o", linestyle="", color=COLOURS[k % len(COLOURS)]) for k in range(len(names))]
        upper.legend(dots, [f"{name} ({(archetype == k).mean():.0%})" for k, name in enumerate(names)], fontsize=8)


def map_of_dimensions(path: Path, r: pd.DataFrame, mark: str) -> None:
    """Draw the correlations of each dimension (rows) with each measure (columns)."""
    with drawn(path, 8, 0.45 * len(r) + 1.2, mark) as figure:
        axes = figure.subplots()
        axes.imshow(r.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axes.grid(False)
        axes.set_xticks(range(r.shape[1]), [name.replace("_", " ") for name in r], rotation=30, ha="right")
        axes.set_yticks(range(len(r)), r.index)
        for (i, j), value in np.ndenumerate(r.to_numpy()):
            axes.text(j, i, f"{value:+.2f}".replace("-", "−"), ha="center", va="center", fontsize=8)
        axes.set_title("Correlation of the regime vector's dimensions with what the window was like (validation)")
