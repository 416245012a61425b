"""Pictures of the agents' training and of their exams."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.ticker import PercentFormatter

from algospace import training
from algospace.calibration import BINS, Reliability
from algospace.plotting import COLOURS, drawn

CURVES = {
    "charts/mean_reward_r": "Mean reward a step, R",
    "losses/explained_variance": "Variance of the returns that the critic explains",
    "losses/entropy": "Entropy of the actions, nats",
}


def write_all(directory: Path, histories: Mapping[int, training.History], confidence: Reliability, mark: str) -> None:
    """Write the stage's pictures.

    ``histories`` are those of every seed's updates; ``confidence`` is that of the calibrated team on the reporting half
    of validation.
    """
    learning(directory / "learning.png", histories, mark)
    reliability(directory / "reliability.png", confidence, mark)


def learning(path: Path, histories: Mapping[int, training.History], mark: str) -> None:
    """Draw how every seed's training went, update by update."""
    with drawn(path, 3.6 * len(CURVES), 2.8, mark) as figure:
        for axes, (key, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
            for colour, (seed, history) in zip(cycle(COLOURS), histories.items(), strict=False):
                axes.plot(range(1, len(history) + 1), [row[key] for row in history], color=colour, label=f"seed {seed}")
            axes.set_title(title)
            axes.set_xlabel("update")
        axes.legend()


def reliability(path: Path, given: Reliability, mark: str) -> None:
    """Draw how often what was stated came true, with 95 % intervals, above how many candidates each bin holds."""
    with drawn(path, 5, 5.6, mark) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color="#7f7f7f", linestyle="dotted", label="perfect")
        error = np.stack([given.found - given.low, given.high - given.found])
        upper.errorbar(
            given.stated, given.found, yerr=error, color=COLOURS[0], marker="o", markersize=4, capsize=2,
            linestyle="", label="found, with 95 % interval",
        )  # fmt: skip
        title = "Confidence of the team: P(net R > 0), stated and found"
        if given.ece is not None:
            title += f"\ncalibration error {given.ece:.3f} (of a perfect model: {given.floor:.3f})"
        upper.set_title(title)
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1)
        upper.set_ylabel("share with net R > 0")
        for axis in (upper.yaxis, lower.xaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        upper.legend(loc="upper left")
        lower.bar_label(lower.bar(given.stated, given.counts, 0.6 / BINS, color=COLOURS[0]), fontsize=7)
        lower.margins(y=0.25)
        lower.set_ylabel("candidates")
        lower.set_xlabel("stated, calibrated on the other half of validation")
