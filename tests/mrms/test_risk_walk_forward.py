"""Folds of train and the proposals that their models make for them."""

import numpy as np
import pandas as pd
import pytest
from savers import RUNTIME

from algospace import market, training
from algospace.data.contracts import CONTRACTS
from algospace.errors import InputError
from algospace.market import MarketParams
from algospace.mrms import method
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import propose
from algospace.mrms.state import States, feature_names
from algospace.mrms.walk_forward import folds, walk_forward

pytestmark = pytest.mark.usefixtures("one_thread")


def event_rows(rows, lasting=3):
    rows = np.asarray(rows)
    close = pd.Timestamp("2024-01-02", tz="UTC") + pd.to_timedelta(rows * 5, unit="min")
    return pd.DataFrame({"row": rows, "close_utc": close, "label_end_utc": close + pd.Timedelta(minutes=5 * lasting)})


def test_folds_never_learn_from_what_they_propose_for():
    events = event_rows(np.arange(0, 3000, 5), lasting=40)
    found = folds(events, 3, embargo_m30=2, embargo_m5=7)
    assert np.array_equal(np.concatenate([fold.block for fold in found]), np.arange(600))
    rows = events["row"].to_numpy()
    first, *later = found
    assert rows[first.lessons].min() > rows[first.block].max() + 12
    assert first.lessons.max() == found[1].block.max()
    for fold in later:
        begins = events["close_utc"].iloc[fold.block[0]]
        assert (events["label_end_utc"].iloc[fold.lessons] < begins).all()
        assert rows[fold.lessons].max() < rows[fold.block].min() - 12
        assert fold.lessons.min() == 0
        assert len(fold.lessons) > 150


def test_an_embargo_that_eats_the_lessons_is_refused():
    with pytest.raises(InputError, match=r"mrms.folds: expected events for 3 blocks with an embargo of 600 bars"):
        folds(event_rows(np.arange(0, 300, 5)), 3, 100, 7)


N, EPOCHS = 90, 2


@pytest.fixture
def venue(section):
    """Rules and costs; the models learn from tables of outcomes and read no bar."""
    nothing = np.empty(0)
    bars = market.Bars(*[nothing] * len(market.Bars._fields))
    rules, contract = section("market", MarketParams), CONTRACTS["MES"]
    return market.Venue(bars, nothing, contract, market.Costs.of(contract, 1.0), rules)


@pytest.fixture
def params(section):
    default = section("mrms", MRMSParams)
    optimizer = {"batch_size": 16, "epochs": 9, "samples_per_epoch": 64, "learning_rate": 0.05}
    update = {"stop_grid": (0.5, 1.0), "reward_risk_grid": (1.0, 2.0, 3.0), "hidden_dim": 8}
    return default.model_copy(update=update | {"optimizer": default.optimizer.model_copy(update=optimizer)})


def lessons(changed=slice(0)):
    """Events ten bars apart whose outcomes are noise; those of the ``changed`` events are other noise."""
    names, rng = feature_names(0), np.random.default_rng(0)
    unknown = dict.fromkeys(
        (f"m30_lvn_{a}_{b}" for a in ("support", "resistance") for b in ("price", "strength")), np.nan
    )
    columns = {"candidate_direction": 1, "close": 4800.0, "m30_atr": 10.0, "gate1_type": 0}
    events = event_rows(10 * np.arange(N)).assign(**columns | unknown)
    states = States(rng.normal(size=(N, 2, len(names))).astype(np.float32), names)
    net_r = rng.normal(size=(N, 2, 2, 3)).astype(np.float32)
    net_r[changed] = rng.normal(size=net_r[changed].shape)
    return Lessons(events, states, net_r)


def out_of_fold(given, venue, params):
    parts = folds(given.events, 3, embargo_m30=2, embargo_m5=7)
    return walk_forward(given, given, parts, EPOCHS, venue, params, RUNTIME, 5, lambda name: training.Unsaved()), parts


def test_each_block_is_proposed_for_by_the_model_of_its_fold(venue, params):
    given = lessons()
    found, parts = out_of_fold(given, venue, params)
    run = params.model_copy(update={"optimizer": params.optimizer.model_copy(update={"epochs": EPOCHS})})
    for fold in parts:
        model, history = method.train("one", given.of(fold.lessons), None, venue, run, RUNTIME, 5, training.Unsaved())
        assert len(history.history) == EPOCHS
        block = given.of(fold.block)
        for a, b in zip(propose(model, block.states, block.events, venue.costs.tick), found, strict=True):
            assert np.array_equal(a, b[fold.block])


def test_no_proposal_knows_an_outcome_of_its_own_block_or_a_later_one(venue, params):
    whole, parts = out_of_fold(lessons(), venue, params)
    last, _ = out_of_fold(lessons(changed=parts[2].block), venue, params)
    assert np.array_equal(last.weights, whole.weights)  # nobody learns from the last block
    assert np.array_equal(last.confidence, whole.confidence)
    second, _ = out_of_fold(lessons(changed=parts[1].block), venue, params)
    same = (second.confidence == whole.confidence).all(1)
    assert same[parts[1].block].all()
    # The last block learns from it, as it may, and so does the first, which has no other.
    assert not same[parts[0].block].any()
    assert not same[parts[2].block].any()
