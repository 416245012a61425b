"""The linear forecast of brackets, and the linear answer that the risk agents begin with."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge

from algospace import forecast
from algospace.mrms import fit
from algospace.mrms import model as ensemble
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import States, feature_names
from algospace.pipeline.config import load_params

NAMES = feature_names(2)
DEFAULT = load_params("mrms", MRMSParams, Path(__file__).parents[1] / "params.yaml")
PARAMS = DEFAULT.model_copy(update={"stop_grid": (1.0, 2.0), "reward_risk_grid": (1.5, 2.0, 3.0), "hidden_dim": 8})
GOOD, DULL = (0, 1), (1, 2)  # cells of the grid


def test_a_forecast_is_a_ridge_regression():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 5)) + 2.0, rng.normal(size=(400, 3)) + 1.0
    peer = Ridge(alpha=forecast.PENALTY).fit(x, y)
    np.testing.assert_allclose(forecast.Forecast.fit(x, y)(x), peer.predict(x), atol=1e-12)


def test_no_forecast_knows_the_outcomes_near_it():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(500, 4)), rng.normal(size=(500, 3))
    other = y.copy()
    other[195:305] += 100.0  # the third of five parts and the embargo on either side of it
    before, after = forecast.out_of_sample(x, y), forecast.out_of_sample(x, other)
    np.testing.assert_array_equal(before[200:300], after[200:300])
    assert np.abs(before[:195] - after[:195]).min() > 1e-6


def market(edge, n=3000, seed=0):
    """Lessons in which one cell earns ``edge`` R where the first feature is up and loses it where it is down.

    Another cell loses a little everywhere, so that it is the better one for whoever must always trade.
    """
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 2, len(NAMES)), np.float32)
    x[..., 0] = rng.choice([-1.0, 1.0], (n, 1))
    x[..., 1:3] = rng.normal(size=(n, 2, 2))
    x[..., NAMES.index("with_signal")] = [1.0, -1.0]
    r = rng.normal(-0.3, 1.0, (n, 2, 2, 3)).astype(np.float32)
    r[:, :, *GOOD] = rng.normal(-0.1 + edge * x[..., 0], 1.0)
    r[:, :, *DULL] = rng.normal(-0.05, 1.0, (n, 2))
    events = pd.DataFrame({"gate1_type": np.ones(n, int)})
    return Lessons(events, States(x, NAMES), r)


def begun(lessons, side=0):
    torch.manual_seed(0)
    model = ensemble.new(NAMES, 5, PARAMS).eval()
    model.scale_to(torch.from_numpy(lessons.states.values).flatten(0, 1))
    fit.start_from_the_best_linear_answer(model, lessons, PARAMS)
    with torch.no_grad():
        return model(torch.from_numpy(lessons.states.values[:, side]))


def cell(output):
    stop, target = output.stop.argmax(1), output.target.argmax(1)
    assert (stop == stop[0]).all()
    assert (target == target[0]).all()
    return int(stop[0]), int(target[0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_begins_with_the_bracket_that_pays_where_it_is_traded(seed):
    given = market(0.5, seed=seed)
    found = begun(given)
    assert cell(found) == GOOD
    units, up = found.units.argmax(1).numpy(), given.states.values[:, 0, 0] > 0
    assert (units[up] > 0).mean() > 0.95
    assert (units[~up] == 0).mean() > 0.95


def test_a_size_is_asked_for_on_the_side_that_pays():
    """Where the signal is right it pays to go with it and never to go against it, whatever the market."""
    given = market(0.5)
    rng, seen = np.random.default_rng(5), given.states.values[:, 0, 0]
    for side, pays in enumerate((0.5, 0.0)):
        given.net_r[:, side, *GOOD] = rng.normal(-0.3 + pays * seen, 1.0)
    up = seen > 0
    asked = [begun(given, side).units.argmax(1).numpy() > 0 for side in range(2)]
    assert asked[0][up].mean() > 0.95
    assert asked[0][~up].mean() < 0.05
    assert asked[1].mean() < 0.05


def test_of_candidates_that_are_no_synergies_it_learns_nothing_of_brackets():
    """The same outcomes on candidates, and synergies where nothing can be foreseen: the gates decide on these."""
    earning, dull = market(0.5), market(0.0)
    events = pd.concat([earning.events * 0, dull.events])
    states = States(np.concatenate([earning.states.values, dull.states.values]), NAMES)
    found = begun(Lessons(events, states, np.concatenate([earning.net_r, dull.net_r])))
    assert cell(found) == DULL


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_anything_to_foresee_it_begins_with_the_best_for_all_and_no_size(seed):
    found = begun(market(0.0, seed=seed))
    assert cell(found) == DULL
    assert (found.units.argmax(1) == 0).all()


def test_a_size_is_kellys():
    """Where trades earn 0.4 R and their mean square is 1.16, growth is greatest at 2.2 units (second order)."""
    given = market(0.0)
    r = given.net_r.copy()
    r[:, :, *GOOD] = np.random.default_rng(2).normal(0.4, 1.0, r.shape[:2])
    params = PARAMS.model_copy(update={"unit_risk": 0.04, "kelly_fraction": 0.25})  # a bet of 0.16 a unit
    model = ensemble.new(NAMES, 5, params).eval()
    fit.start_from_the_best_linear_answer(model, given._replace(net_r=r), params)
    units = model(torch.from_numpy(given.states.values[:, 0])).units.argmax(1).numpy()
    assert np.median(units) == round(0.4 / (0.16 * 1.16))
