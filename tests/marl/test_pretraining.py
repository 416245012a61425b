import numpy as np
import pytest
import torch

from algospace.env import AGAINST, PASS, WITH
from algospace.errors import InputError
from algospace.marl import engine, pretraining
from algospace.params import RuntimeParams
from algospace.training import Unsaved

RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)

pytestmark = pytest.mark.usefixtures("one_thread")


def optimizer(params, **update):
    return params().pretraining.optimizer.model_copy(update={"batch_size": 64, "learning_rate": 0.01} | update)


def pretrain(made, params, name="structure", seed=0, n=2000, **update):
    team = engine.new_team(params(dropout=0.1), 4, seed)
    rules = optimizer(params, epochs=20, samples_per_epoch=4096, patience=20, **update)
    return team, pretraining.pretrain(team, name, made(n), made(400, 1), rules, RUNTIME, seed, Unsaved())


@pytest.fixture(scope="module")
def seeing(made, params):
    return pretrain(made, params)


def test_labels_by_hand(made):
    candidates = made(4).candidates
    net_r = np.zeros((4, 2, 5))
    net_r[:, :, 0] = [[0.5, 0.2], [0.1, 0.3], [-0.1, -0.2], [0.0, 0.0]]
    net_r[:, :, 1] = 9.0  # what waiting would have paid is no label
    assert pretraining.labels(candidates._replace(net_r=net_r)).tolist() == [WITH, AGAINST, PASS, PASS]


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
    assert (p[:, [WITH, AGAINST]].argmax(1) + 1 == pretraining.labels(exam.candidates)).mean() > 0.9


def test_the_trunk_is_the_teams_and_nothing_else_is_touched(made, params, seeing):
    team, trained = seeing
    fresh = engine.new_team(params(dropout=0.1), 4, 0).state_dict()
    changed = {name for name, value in team.state_dict().items() if not torch.equal(value, fresh[name])}
    assert changed
    assert all(name.startswith("trunks.structure.") for name in changed)
    assert trained.classifier.parts[0] is team.trunks["structure"]


def test_the_tactical_agent_learns_with_its_side_features(made, params):
    team, _ = pretrain(made, params, "tactical", n=200)
    fresh = engine.new_team(params(dropout=0.1), 4, 0).state_dict()
    changed = {name for name, value in team.state_dict().items() if not torch.equal(value, fresh[name])}
    assert all(name.startswith(("trunks.tactical.", "join_side.")) for name in changed)
    assert "join_side.weight" in changed


def test_noise_gains_nothing(made, params):
    """The tactical windows say nothing of the side that pays."""
    _, trained = pretrain(made, params, "tactical")
    found = pretraining.figures(trained, "tactical", made(2000), made(600, 2), 200, 0)
    assert found["gain"] < 0.02


def test_the_seed_decides_every_weight(made, params):
    first, second, other = (pretrain(made, params, seed=seed, n=200)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_no_candidates_are_refused(made, params):
    team = engine.new_team(params(), 4, 0)
    empty = made(20).of(np.arange(0))
    with pytest.raises(InputError, match="expected candidates in train and in select, found 0 and 20"):
        pretraining.pretrain(team, "structure", empty, made(20), optimizer(params), RUNTIME, 0, Unsaved())
