from pathlib import Path

import numpy as np
import pytest

from algospace.env import DELAYS, PASS, Candidates, Windows
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows
from algospace.marl.exams import Material
from algospace.marl.params import MARLParams
from algospace.mrms.proposal import Proposal
from algospace.pipeline.config import load_params

FILE = Path(__file__).parents[2] / "params.yaml"
WINDOWS = FeatureParams(window_30m=3, window_5m=4, window_arbitrage=5, window_regime=2)
PER_SESSION = 10  # candidates, of a session of 60 bars
FIRST = 20240101  # session; they count on from there


@pytest.fixture(scope="session")
def made():
    """Candidates, one every six bars, where the last value of the structure rows tells the side that pays 1 R.

    In the signal's direction: above 0 the signal's own side pays, else the other; every third pays neither.
    """

    def make(n=240, seed=0, hold=3, neither=True):
        rng = np.random.default_rng(seed)
        bars = 6 * (n + 6)

        def draw(rows, k):
            return rng.normal(size=(rows, k)).astype(np.float32)

        rows = Rows(draw(bars // 6 + 1, 8), draw(bars // 6 + 1, 12), draw(bars, 7), draw(bars, 9), np.arange(bars) // 6)
        at = 6 * np.arange(6, n + 6) - 1
        direction = rng.choice([-1, 1], n).astype(np.int8)
        views = Windows(rows, WINDOWS, "cpu")
        seen = Material(
            Candidates(at, direction, np.zeros((n, 4), np.float32), *[None] * 5), *[np.zeros(n)] * 3, views
        ).observe(np.arange(n))
        up = seen["structure"][:, -1, 0].numpy() > 0
        pays = np.stack([up, ~up], axis=1)
        if neither:
            pays[::3] = False
        net_r = np.repeat(np.where(pays, 1.0, -1.0)[:, :, None], DELAYS, axis=2)
        entry = at[:, None, None] + 1 + np.arange(DELAYS) + np.zeros((n, 2, 1), np.int64)
        none, weights = np.zeros((n, 2)), np.zeros((n, 2, 3))
        proposal = Proposal(
            np.ones((n, 2), np.int64), none + 1, none + 4.0, none.astype(bool), none + 2.0, none + 0.5, none, weights
        )
        candidates = Candidates(
            at, direction, np.zeros((n, 4), np.float32), proposal, net_r, entry + hold - 1, entry, 0 * net_r + 0.1
        )
        labels = np.where(pays.any(axis=1), pays.argmax(axis=1) + 1, PASS)
        fires = np.ones(n, bool)
        return Material(candidates, FIRST + np.arange(n) // PER_SESSION, fires, np.arange(n) % 5 == 0, views, labels)

    return make


@pytest.fixture(scope="session")
def params():
    """The default's, for a small team; keyword arguments replace keys of the section."""
    default = load_params("marl", MARLParams, FILE)

    def change(**update):
        small = {"channels": (8, 8, 8), "stride": 1, "n_heads": 2, "message_dim": 4, "head_dim": 8, "critic_dim": 8}
        small |= {"ppo": default.ppo.model_copy(update={"num_envs": 8, "num_steps": 8, "total_timesteps": 128})}
        optimizer = default.pretraining.optimizer.model_copy(update={"epochs": 2, "samples_per_epoch": 64})
        small |= {"pretraining": default.pretraining.model_copy(update={"optimizer": optimizer})}
        small |= {"bootstrap_draws": 200, "random_draws": 200}
        return default.model_copy(update=small | update)

    return change
