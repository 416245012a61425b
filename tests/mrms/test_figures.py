"""The figures of the stage and of the walk-forward shift, by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from algospace import market
from algospace.data.contracts import CONTRACTS
from algospace.market import MarketParams
from algospace.mrms import model as ensemble
from algospace.mrms.figures import figures
from algospace.mrms.outcomes import Lessons, outcome_table
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal
from algospace.mrms.state import States, feature_names
from algospace.mrms.walk_forward import shift

STOPS, REWARDS = (1.5, 3.0), (1.0, 2.0)  # in ATR of 10 points
WIN, FALL = [4800.0, 4800.0, 4870.0, 4870.0], [4800.0, 4800.0, 4730.0, 4730.0]  # closes: through every target
SESSIONS = (WIN, FALL, FALL)
BARS = 4  # of a session
NAMES = feature_names(0)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def params(section):
    grids = {"stop_grid": STOPS, "reward_risk_grid": REWARDS, "bootstrap_draws": 200, "random_draws": 300}
    return section("mrms", MRMSParams).model_copy(update=grids)


@pytest.fixture
def venue(section):
    """Three sessions: one rises, two fall, each from one price; without costs."""
    close = np.concatenate(SESSIONS)
    open_ = np.r_[4800.0, close[:-1]]
    open_[::BARS] = 4800.0
    last = np.repeat(np.arange(BARS - 1, len(close), BARS), BARS)
    none = np.zeros(len(close), bool)
    bars = market.Bars(open_, np.maximum(open_, close), np.minimum(open_, close), close, ~none, last, none)
    rules, contract = section("market", MarketParams), CONTRACTS["MES"]
    return market.Venue(bars, last, contract, market.Costs.of(contract, 0.0), rules)


@pytest.fixture
def exam(venue, params):
    """A long event at the first bar of each session."""
    unknown = dict.fromkeys(
        (f"m30_lvn_{a}_{b}" for a in ("support", "resistance") for b in ("price", "strength")), np.nan
    )
    rows = np.arange(0, BARS * len(SESSIONS), BARS)
    events = pd.DataFrame({"row": rows, "candidate_direction": 1, "close": 4800.0, "m30_atr": 10.0} | unknown)
    states = States(np.zeros((len(rows), 2, len(NAMES)), np.float32), NAMES)
    return Lessons(events, states, outcome_table(venue, events, params))


def proposal(units, stop_atr, reward_risk):
    """Proposals (events, 2) of which the figures read the size and the cell."""
    units, stop_atr, reward_risk = (np.array(part) for part in (units, stop_atr, reward_risk))
    whole, none = np.ones(units.shape), np.zeros(units.shape, bool)
    return Proposal(units, stop_atr, 10.0 * stop_atr, none, reward_risk, whole, whole, whole)


@pytest.fixture
def undecided(params):
    """An ensemble of at most two units that holds every choice as likely as the next, and its agents alike."""
    model = ensemble.new(NAMES, 2, params).eval()
    with torch.no_grad():
        for weight in model.coordinator[-1].parameters():
            weight.zero_()
    return model


def test_the_figures_by_hand(exam, venue, params, undecided):
    # With the signal 2 R, -1 R, -1 R at reward-risk 2; against it -1 R, 1 R, 1 R at reward-risk 1, at either stop.
    given = proposal([[1, 0], [0, 1], [2, 1]], [[1.5, 3.0]] * 3, [[2.0, 1.0]] * 3)
    train_r = np.zeros((4, 2, 2, 2))
    train_r[..., 1, 0] = 0.1  # stop 3 ATR, reward-risk 1
    found = figures(undecided, given, exam, train_r, venue, params, seed=0)
    sqrt_half = 0.5**0.5  # downside: three of six trades lose 1 R
    expected = {
        "events": 3, "mean_units": 5 / 6, "units_0_share": 2 / 6, "units_1_share": 3 / 6, "units_2_share": 1 / 6,
        "mean_stop_atr": 2.25, "mean_reward_risk": 1.5, "at_level_rate": 0,
        "best_train_stop_atr": 3.0, "best_train_reward_risk": 1.0,
        "proposed_mean_r": 1 / 6, "proposed_sortino": 1 / 6 / sqrt_half, "proposed_profit_factor": 4 / 3,
        "proposed_win_rate": 0.5, "proposed_max_drawdown_r": 2.0,  # 0, 2, 1, 0
        # Against the signal at reward-risk 2: -1 R, 2 R, 2 R.
        "plain_mean_r": 0.5, "plain_sortino": 0.5 / sqrt_half, "plain_profit_factor": 2.0, "plain_win_rate": 0.5,
        "plain_max_drawdown_r": 2.0,
        "best_train_mean_r": 0.0, "best_train_sortino": 0.0, "best_train_profit_factor": 1.0,
        "best_train_win_rate": 0.5, "best_train_max_drawdown_r": 2.0,  # 0, 1, 0, -1
        "sized_mean_r": (2 - 0 - 2 - 0 + 1 + 1) / 6,
        # Every cell alike: a win is worth 1.5 R.
        "soft_mean_r": 0.25, "soft_sortino": 0.25 / sqrt_half, "soft_gap": (0.25 - 1 / 6) / sqrt_half,
        "mean_ensemble_confidence": (1 / 3 + 1 / 2 + 1 / 2) / 3,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    for name in ("proposed_mean_r", "proposed_sortino", "plain_mean_r", "best_train_sortino", "sized_mean_r"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"], name


def test_chance_draws_cells_and_units_alike(exam, venue, params, undecided):
    given = proposal([[0, 0]] * 3, [[1.5, 1.5]] * 3, [[1.0, 1.0]] * 3)
    found = figures(undecided, given, exam, exam.net_r, venue, params, seed=0)
    # One of 300 draws has a standard deviation of 0.14 R (three wins of 1 or 2 R in six trades), sized 0.5 R.
    assert found["random_mean_r"] == pytest.approx(0.25, abs=0.03)
    assert found["random_sized_mean_r"] == pytest.approx(0.25, abs=0.12)  # one unit on average
    assert found["random_win_rate"] == 0.5
    assert found["random_max_drawdown_r"] == 2.0  # two losses of 1 R after the win, whatever the cell
    assert (found["sized_mean_r"], found["units_0_share"]) == (0.0, 1.0)


def test_the_shift_by_hand(params):
    ours = proposal([[1, 0], [2, 1]], [[1.5, 1.5], [3.0, 3.0]], [[1.0, 2.0], [1.0, 2.0]])
    theirs = proposal([[1, 0], [0, 0]], [[1.5, 3.0], [3.0, 3.0]], [[1.0, 2.0], [1.0, 1.0]])
    assert shift(ours, theirs, params) == {
        "out_of_fold_mean_units": 1.0,
        "out_of_fold_mean_stop_atr": 2.25,
        "out_of_fold_mean_reward_risk": 1.5,
        "final_mean_units": 0.25,
        "final_mean_stop_atr": 2.625,
        "final_mean_reward_risk": 1.25,
        "equal_cell_rate": 0.5,
        "equal_units_rate": 0.5,
        # Shares of the four cells: 1/4 each here; 1/4, 0, 1/2, 1/4 there.
        "cell_total_variation": 0.25,
    }
