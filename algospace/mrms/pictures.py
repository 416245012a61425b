"""Pictures of the risk subsystem."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator
from scipy.stats import norm

from algospace import plotting
from algospace.mrms.communication import MEMORY, TrackNet, advise, histories
from algospace.mrms.engine import Engine
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal
from algospace.mrms.track import Track
from algospace.plotting import COLOURS, drawn

LEVELS = np.arange(0.05, 1.0, 0.05)  # of the coverage picture
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue (Rec. 709)


def write_all(directory: Path, engine: Engine, taught: Lessons, params: MRMSParams, mark: str) -> None:
    """Write the stage's pictures: of outcomes on train (``taught``), else of the reporting half of validation."""
    plotting.losses(directory / "losses.png", engine.fit.history, engine.fit.best_epoch, mark)
    plotting.losses(directory / "communication_losses.png", engine.layer_fit.history, engine.layer_fit.best_epoch, mark)
    surface(directory / "outcomes.png", taught.net_r, params, mark)
    distributions(directory / "proposals.png", engine.final["report"], params, mark)
    track = engine.tracks["report"]
    if len(track.pnl):
        calibration(directory / "calibration.png", engine.layer, track, mark)
        streaks(directory / "streaks.png", engine.layer, track, mark)


def surface(path: Path, net_r: np.ndarray, params: MRMSParams, mark: str) -> None:
    """Draw mean net R and Sortino of every cell of an outcome table (events, 2, stops, rewards), by side."""
    with drawn(path, 10.5, 6.4, mark) as figure:
        grid = figure.subplots(2, 2)
        for side, name in enumerate(("with the signal", "against it")):
            r = net_r[:, side].astype(np.float64)
            mean = r.mean(axis=0)
            downside = np.sqrt((np.minimum(r, 0) ** 2).mean(axis=0))
            shown = {"mean net R": mean, "Sortino": mean / np.maximum(downside, 1e-9)}
            for axes, (title, values) in zip(grid[side], shown.items(), strict=True):
                limit = float(np.abs(values).max()) or 1.0
                image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", origin="lower")
                axes.grid(False)
                axes.set_title(f"{title}, {name} (train)")
                axes.set_xticks(range(len(params.reward_risk_grid)), params.reward_risk_grid)
                axes.set_yticks(range(len(params.stop_grid)), params.stop_grid)
                axes.set_xlabel("reward over risk")
                axes.set_ylabel("stop, ATR")
                dark = image.cmap(image.norm(values))[..., :3] @ LUMINANCE < 0.5
                for (i, j), value in np.ndenumerate(values):
                    text, colour = f"{value:+.2f}".replace("-", "−"), "white" if dark[i, j] else "black"
                    axes.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)


def distributions(path: Path, proposal: Proposal, params: MRMSParams, mark: str) -> None:
    """Draw how often each size, stop and target is proposed, by side."""
    units = tuple(range(int(proposal.units.max()) + 1))
    parts = {
        "units": (proposal.units, units),
        "stop, ATR": (proposal.stop_atr, params.stop_grid),
        "reward over risk": (proposal.reward_risk, params.reward_risk_grid),
    }
    with drawn(path, 10.5, 3, mark) as figure:
        for axes, (title, (values, grid)) in zip(figure.subplots(1, 3), parts.items(), strict=True):
            for side, name in enumerate(("with the signal", "against it")):
                share = [(values[:, side] == x).mean() for x in grid]
                axes.bar(np.arange(len(grid)) + 0.4 * side - 0.2, share, 0.4, color=COLOURS[side], label=name)
            axes.set_xticks(range(len(grid)), grid, fontsize=7)
            axes.set_ylim(0, 1.05)
            axes.set_title(f"{title}: share of proposals")
        axes.legend()


def calibration(path: Path, layer: TrackNet, track: Track, mark: str) -> None:
    """Draw the communication layer's coverage of Gaussian intervals, and its probabilities beside what happened."""
    trades, count = histories(track, layer.config["length"])
    advice = advise(layer, trades[:-1], count[:-1])
    error = np.abs(track.outcome[:, 2:4] - advice.mean[:, 6:8]) / advice.uncertainty[:, 6:8]
    with drawn(path, 8, 3.6, mark) as figure:
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.plot([0, 1], [0, 1], color="#7f7f7f", linestyle="dotted")
            axes.set_xlabel("stated")
            axes.set_ylabel("found")
        for k, name in enumerate(("net R", "duration")):
            left.plot(
                LEVELS, [(error[:, k] <= norm.ppf(0.5 + x / 2)).mean() for x in LEVELS], color=COLOURS[k], label=name
            )
        left.set_title("Coverage of intervals")
        for k, name in enumerate(("hits the stop", "hits the target")):
            probability, happened = advice.mean[:, 4 + k], track.outcome[:, k]
            groups = np.array_split(np.argsort(probability, kind="stable"), min(8, len(probability)))
            points = [(probability[g].mean(), happened[g].mean()) for g in groups]
            right.plot(*np.array(points).T, marker="o", markersize=4, color=COLOURS[k], label=name)
        right.set_title("Probability")
        left.legend()
        right.legend()


def streaks(path: Path, layer: TrackNet, track: Track, mark: str) -> None:
    """Draw what a growing losing streak does to the layer's size factor and to its uncertainty about net R.

    The losses are copies of the track's median losing trade, after as many alternating trades as the memory holds.
    """
    lost = track.outcome[:, 2] < 0
    if lost.all() or not lost.any():
        return
    codes = np.concatenate([track.risk, track.outcome], axis=1).astype(np.float32)
    won, loss = (np.median(codes[which], axis=0) for which in (~lost, lost))
    length = layer.config["length"]
    kept = min(length, 2 * MEMORY)
    steps = np.arange(0, min(MEMORY, kept) + 1)
    trades = np.zeros((len(steps), length, codes.shape[1]), np.float32)
    for row, streak in enumerate(steps):
        turns = [won if i % 2 == 0 else loss for i in range(kept - streak)]
        trades[row, :kept] = np.stack([*turns, *[loss] * int(streak)])
    advice = advise(layer, trades, np.full(len(steps), kept))
    with drawn(path, 8, 3, mark) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(steps, advice.factor, color=COLOURS[0], marker="o", markersize=3)
        left.set_ylim(0, 1.05)
        left.set_title("Factor on the size")
        right.plot(steps, advice.uncertainty[:, 6], color=COLOURS[1], marker="o", markersize=3)
        right.set_title("Standard deviation of the next net R")
        for axes in (left, right):
            axes.set_xlabel("losses in a row")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
