import numpy as np
import pytest
import torch

from algospace import market
from algospace.env import AGAINST, PASS, WITH
from algospace.errors import InputError
from algospace.marl import engine, exams, pretraining
from algospace.marl.params import PretrainingParams
from algospace.params import RuntimeParams
from algospace.training import Unsaved

CONTEXT, NET_R = np.zeros((2, 4), np.float32), np.zeros((2, 2))
RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)

pytestmark = pytest.mark.usefixtures("one_thread")


def optimizer(params, **update):
    return params().pretraining.optimizer.model_copy(update={"batch_size": 64, "learning_rate": 0.01} | update)


def pretrain(made, params, name="structure", seed=0, n=2000, **update):
    team = engine.new_team(params(dropout=0.1), CONTEXT, NET_R, seed)
    rules = optimizer(params, epochs=20, samples_per_epoch=4096, patience=20, **update)
    return team, pretraining.pretrain(team, name, made(n), made(400, 1), rules, RUNTIME, seed, Unsaved())


@pytest.fixture(scope="module")
def seeing(made, params):
    return pretrain(made, params)


def test_labels_by_hand():
    """Four bars a candidate: the price goes up, down, or nowhere, or leaps over both barriers of either side."""
    flat = [100.0, 100.0, 100.0, 100.0]
    paths = np.array([[100, 101, 102, 103], [100, 99, 98, 97], flat, flat], np.float64)
    close = paths.ravel()
    high, low = close + 0.1, close - 0.1
    high[13], low[13] = 110.0, 90.0  # the stop counts first, so that neither side wins
    n = len(close)
    end = np.repeat(np.arange(4, n + 1, 4) - 1, 4)
    bars = market.Bars(close.copy(), high, low, close, np.ones(n, bool), end, np.zeros(n, bool))
    costs = market.Costs(tick=0.25, point_value=5.0, slippage=0.0, commission=0.0)
    rules = PretrainingParams.model_construct(stop_atr=1.5, reward_risk=2.0)
    at, atr = np.arange(0, n, 4), np.full(4, 0.5)
    found = exams.triple_barrier(bars, at, np.ones(4), atr, costs, 100, rules)
    assert found.tolist() == [WITH, AGAINST, PASS, PASS]
    assert exams.triple_barrier(bars, at, -np.ones(4), atr, costs, 100, rules).tolist() == [AGAINST, WITH, PASS, PASS]


def test_it_sees_what_the_window_shows(made, params, seeing):
    """Two thirds of the labels are told by the window; whether a candidate is one of the others is chance."""
    _, trained = seeing
    exam = made(600, 2)
    found = pretraining.figures(trained, "structure", made(2000), exam, 200, 0)
    assert found["majority_cross_entropy"] == pytest.approx(np.log(3), abs=0.02)
    # Of the best possible: a third pays neither side, else the window tells.
    best = np.log(3) - 2 / 3 * np.log(2)
    assert found["cross_entropy"] < best + 0.15
    assert found["gain_low"] > 0.25
    assert found["logistic_cross_entropy"] < found["majority_cross_entropy"] - 0.2  # a line sees the sign of a value


def test_the_side_that_pays_is_the_one_it_names(made, seeing):
    exam = made(300, 3, neither=False)
    p = pretraining.probabilities(seeing[1].classifier, exam)
    assert (p[:, [WITH, AGAINST]].argmax(1) + 1 == exam.labels).mean() > 0.9


def test_the_trunk_is_the_teams_and_nothing_else_is_touched(made, params, seeing):
    team, _ = seeing
    fresh = engine.new_team(params(dropout=0.1), CONTEXT, NET_R, 0).state_dict()
    changed = {name for name, value in team.state_dict().items() if not torch.equal(value, fresh[name])}
    assert changed
    assert all(name.startswith("trunks.structure.") for name in changed)


def test_what_is_learnt_later_does_not_change_its_figures(made, params):
    team, trained = pretrain(made, params, n=200)
    exam = made(100, 2)
    before = pretraining.probabilities(trained.classifier, exam)
    with torch.no_grad():
        for weight in team.parameters():
            weight += 1.0
    assert np.array_equal(pretraining.probabilities(trained.classifier, exam), before)


def test_one_class_leaves_nothing_to_regress_on(made, params):
    lessons = made(200)._replace(labels=np.full(200, WITH))
    _, trained = pretrain(made, params, n=200)
    found = pretraining.figures(trained, "structure", lessons, made(100, 2), 200, 0)
    assert found["logistic_cross_entropy"] is None
    assert found["gain_low"] <= found["gain"] <= found["gain_high"]


def test_the_tactical_agent_learns_with_its_side_features(made, params):
    """Learnt by heart: the rows that stop it are those that train."""
    team = engine.new_team(params(dropout=0.1), CONTEXT, NET_R, 0)
    fresh = {name: value.clone() for name, value in team.state_dict().items()}
    rules = optimizer(params, epochs=20, samples_per_epoch=4096, patience=20)
    pretraining.pretrain(team, "tactical", made(200), made(200), rules, RUNTIME, 0, Unsaved())
    changed = {name for name, value in team.state_dict().items() if not torch.equal(value, fresh[name])}
    assert all(name.startswith(("trunks.tactical.", "join_side.")) for name in changed)
    assert "join_side.weight" in changed


def test_noise_gains_nothing(made, params):
    """The tactical windows say nothing of the side that pays: what chance taught is not kept."""
    team, trained = pretrain(made, params, "tactical")
    found = pretraining.figures(trained, "tactical", made(2000), made(600, 2), 200, 0)
    assert found["gain"] == pytest.approx(0.0, abs=0.02)
    if trained.best_epoch == -1:
        fresh = engine.new_team(params(dropout=0.1), CONTEXT, NET_R, 0).state_dict()
        assert all(torch.equal(value, fresh[name]) for name, value in team.state_dict().items())


def test_what_is_worse_than_the_shares_of_the_classes_is_not_kept(made, params):
    """Labels of the selecting half that contradict those of train: no epoch is good there."""
    team = engine.new_team(params(dropout=0.1), CONTEXT, NET_R, 0)
    fresh = {name: value.clone() for name, value in team.state_dict().items()}
    lessons, select = made(2000), made(400, 1)
    select = select._replace(labels=np.array([PASS, AGAINST, WITH])[select.labels])
    rules = optimizer(params, epochs=5, samples_per_epoch=4096, patience=20)
    trained = pretraining.pretrain(team, "structure", lessons, select, rules, RUNTIME, 0, Unsaved())
    assert trained.best_epoch == -1
    assert all(torch.equal(value, fresh[name]) for name, value in team.state_dict().items())
    found = pretraining.figures(trained, "structure", lessons, select, 200, 0)
    assert found["gain"] == pytest.approx(0.0, abs=1e-6)


def test_the_seed_decides_every_weight(made, params):
    first, second, other = (pretrain(made, params, seed=seed, n=200)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_no_candidates_are_refused(made, params):
    team = engine.new_team(params(), CONTEXT, NET_R, 0)
    empty = made(20).of(np.arange(0))
    with pytest.raises(InputError, match="expected candidates in train and in select, found 0 and 20"):
        pretraining.pretrain(team, "structure", empty, made(20), optimizer(params), RUNTIME, 0, Unsaved())
