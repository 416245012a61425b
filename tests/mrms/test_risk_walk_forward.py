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
from algospace.mrms.proposal import Proposal, propose
from algospace.mrms.state import States, feature_names
from algospace.mrms.walk_forward import borne_units, folds, out_of_fold, walk_forward

pytestmark = pytest.mark.usefixtures("one_thread")


def event_rows(rows, lasting=3):
    rows = np.asarray(rows)
    close = pd.Timestamp("2024-01-02", tz="UTC") + pd.to_timedelta(rows * 5, unit="min")
    return pd.DataFrame({"row": rows, "close_utc": close, "label_end_utc": close + pd.Timedelta(minutes=5 * lasting)})


def test_folds_never_learn_from_what_they_propose_for():
    events = event_rows(np.arange(0, 3000, 5), lasting=40)
    found = folds(events, 3, embargo=12)
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
        folds(event_rows(np.arange(0, 300, 5)), 3, 600)


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


def proposals_of(given, venue, params):
    parts = folds(given.events, 3, embargo=12)
    models = walk_forward(given, parts, EPOCHS, venue, params, RUNTIME, 5, lambda name: training.Unsaved())
    return out_of_fold(models, parts, given, given.states, given.events, venue.costs.tick), parts


def test_each_block_is_proposed_for_by_the_model_of_its_fold(venue, params):
    given = lessons()
    found, parts = proposals_of(given, venue, params)
    for fold in parts:
        # As many passes over its lessons as the final model makes over all.
        samples = round(params.optimizer.samples_per_epoch * len(fold.lessons) / N)
        budget = params.optimizer.model_copy(update={"epochs": EPOCHS, "samples_per_epoch": samples})
        run = params.model_copy(update={"optimizer": budget})
        model, history = method.train("one", given.of(fold.lessons), None, venue, run, RUNTIME, 5, training.Unsaved())
        assert len(history.history) == EPOCHS
        block = given.of(fold.block)
        for a, b in zip(propose(model, block.states, block.events, venue.costs.tick), found, strict=True):
            assert np.array_equal(a, b[fold.block])


def test_no_proposal_knows_an_outcome_of_its_own_block_or_a_later_one(venue, params):
    whole, parts = proposals_of(lessons(), venue, params)
    last, _ = proposals_of(lessons(changed=parts[2].block), venue, params)
    assert np.array_equal(last.weights, whole.weights)  # nobody learns from the last block
    assert np.array_equal(last.confidence, whole.confidence)
    second, _ = proposals_of(lessons(changed=parts[1].block), venue, params)
    same = (second.confidence == whole.confidence).all(1)
    assert same[parts[1].block].all()
    # The last block learns from it, as it may, and so does the first, which has no other.
    assert not same[parts[0].block].any()
    assert not same[parts[2].block].any()


def test_a_bar_between_events_has_the_model_of_its_block(venue, params):
    """Ten bars lie between two events; the last of a block goes on to the next one's first event."""
    given = lessons()
    parts = folds(given.events, 3, embargo=12)
    models = walk_forward(given, parts, EPOCHS, venue, params, RUNTIME, 5, lambda name: training.Unsaved())
    later = given.events.assign(row=given.events["row"] + 9)
    found = out_of_fold(models, parts, given, given.states, later, venue.costs.tick)
    of_events = out_of_fold(models, parts, given, given.states, given.events, venue.costs.tick)
    assert all(np.array_equal(a, b) for a, b in zip(found, of_events, strict=True))
    on_next = out_of_fold(models, parts, given, given.states, later.assign(row=later["row"] + 1), venue.costs.tick)
    differ = (on_next.confidence != found.confidence).any(1)
    assert np.flatnonzero(differ).tolist() == [parts[1].block[0] - 1, parts[2].block[0] - 1]


# What size the record bears


def record(asked, side=0):
    """Proposals of stop 1 ATR and reward-risk 2 that ask for so many units, all on one side."""
    n = len(asked)
    units = np.zeros((n, 2), np.int64)
    units[:, side] = asked
    ones = np.ones((n, 2))
    return Proposal(units, ones, ones, ones > 1, 2 * ones, ones, ones, np.ones((n, 2, 3)))


def paid(r, gate1=1):
    """Events ten bars apart that net ``r`` in that cell with the signal, and 100 R in any other cell or side."""
    net_r = np.full((len(r), 2, 2, 3), 100.0, np.float32)
    net_r[:, 0, 1, 1] = r
    events = event_rows(10 * np.arange(len(r))).assign(gate1_type=gate1)
    return Lessons(events, States(np.zeros((len(r), 2, 1), np.float32), ("one",)), net_r)


def alone(r):
    """Every event in a session of its own."""
    return np.arange(10 * len(r))


def test_a_record_without_an_edge_bears_nothing(params):
    even = np.tile([1.0, -1.0], 200)
    assert borne_units(record(np.full(400, 5)), paid(even), alone(even), params) == 0
    assert borne_units(record(np.zeros(400, int)), paid(1 + even), alone(even), params) == 0  # no size was asked for


def test_an_edge_must_exceed_its_standard_errors(params):
    # 55 wins of 1 R and 45 losses: mean 0.1, standard error 0.1.
    r = np.array([1.0, -1.0] * 45 + [1.0] * 10)
    for evidence, borne in ((0.0, True), (0.8, True), (1.2, False)):
        found = borne_units(
            record(np.ones(100, int)), paid(r), alone(r), params.model_copy(update={"evidence": evidence})
        )
        assert (found > 0) == borne, evidence


def test_the_size_of_a_sure_edge_is_fractional_kelly(params):
    # Two wins of 1 R in three: growth is greatest at a bet of 1/3. A unit bets 0.03 / 0.3 = 0.1: three units, since
    # (2 log 1.3 + log 0.7) / 3 = 0.0560 is more than that of two (0.0472) and of four (0.0540).
    r = np.tile([1.0, 1.0, -1.0], 1000)
    run = params.model_copy(update={"unit_risk": 0.03, "kelly_fraction": 0.3, "evidence": 0.0})
    assert borne_units(record(np.full(3000, 5)), paid(r), alone(r), run) == 3
    # The limit is one on what was asked: it never raises a size.
    assert borne_units(record(np.full(3000, 2)), paid(r), alone(r), run) == 2
    # A bound below the mean is a smaller size, and in the end none.
    sizes = [
        borne_units(record(np.full(3000, 5)), paid(r), alone(r), run.model_copy(update={"evidence": z}))
        for z in (0.0, 10.0, 30.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2] == 0


def test_trades_of_one_session_are_one_piece_of_evidence(params):
    # A mean of 0.2 whose standard error is 0.1, or 0.33 when ten events that all end alike are a session.
    r = np.repeat([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0], 10)
    run = params.model_copy(update={"evidence": 1.0})
    assert borne_units(record(np.ones(100, int)), paid(r), alone(r), run) == 1
    together = np.arange(1000) // 100
    assert borne_units(record(np.ones(100, int)), paid(r), together, run) == 0
    assert borne_units(record(np.ones(100, int)), paid(r), np.zeros(1000, int), run) == 0  # a single session


def test_only_what_is_decided_on_counts(params):
    """Completed synergies, with the signal, where a size was asked for."""
    sure = np.tile([1.0, 1.0, 1.0, -1.0], 100)
    gate1 = np.ones(400, int)
    assert borne_units(record(np.full(400, 1)), paid(sure, gate1), alone(sure), params) == 1
    assert borne_units(record(np.full(400, 1)), paid(sure, 0 * gate1), alone(sure), params) == 0
    assert borne_units(record(np.full(400, 1), side=1), paid(sure, gate1), alone(sure), params) == 0
    # Losses where no size was asked for are no evidence against it.
    r, asked = np.full(800, -1.0), np.arange(800) % 2
    r[asked == 1] = sure
    assert borne_units(record(np.ones(800, int)), paid(r), alone(r), params) == 0
    assert borne_units(record(asked), paid(r), alone(r), params) == 1
