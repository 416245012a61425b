import copy
import json

import numpy as np
import pytest
import torch
from savers import RUNTIME, Hook

from algospace import nets, training
from algospace.errors import InputError
from algospace.mrms import communication
from algospace.mrms.communication import (
    MEMORY,
    NET_R,
    PREDICTED,
    TrackNet,
    adapt,
    advise,
    communication_loss,
    figures,
    form,
    histories,
    load,
)
from algospace.mrms.params import MRMSParams
from algospace.mrms.track import Track

LENGTH = 24


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def params(section):
    given = section("mrms", MRMSParams).communication
    update = {"batch_size": 64, "epochs": 4, "samples_per_epoch": 128, "learning_rate": 0.01, "patience": 100}
    return given.model_copy(update={"length": LENGTH, "optimizer": given.optimizer.model_copy(update=update)})


def longer(params, epochs):
    optimizer = params.optimizer.model_copy(update={"epochs": epochs, "samples_per_epoch": 512})
    return params.model_copy(update={"optimizer": optimizer})


def track(net_r, generator):
    """Trades with these results: a target at +2 R, a stop at a loss, and risk vectors from the grids."""
    n = len(net_r)
    sizes = generator.integers(1, 6, n) / 5, generator.integers(2, 13, n) / 12, generator.integers(2, 11, n) / 10
    risk = np.column_stack([*sizes, generator.random(n)]).astype(np.float32)
    outcome = np.column_stack([net_r < 0, net_r > 1.5, net_r, generator.random(n)]).astype(np.float32)
    return Track(risk, outcome, 100 * np.asarray(net_r, float), np.arange(n))


def until(given, count):
    """The first trades of a track."""
    return Track(*(part[:count] for part in given))


def independent(n, seed):
    """Nothing of a trade tells of the next one."""
    generator = np.random.default_rng(seed)
    return track(np.where(generator.random(n) < 0.4, 2.0, -1.0) + 0.1 * generator.normal(size=n), generator)


def sticky(n, seed):
    """A trade that follows three losses loses nine times in ten; any other wins or loses by a coin."""
    generator = np.random.default_rng(seed)
    results: list[float] = []
    for _ in range(n):
        losing = len(results) >= 3 and max(results[-3:]) < 0
        results.append(-1.0 if generator.random() < (0.9 if losing else 0.5) else 2.0)
    return track(np.array(results) + 0.1 * generator.normal(size=n), generator)


def net(seed=0, length=LENGTH):
    torch.manual_seed(seed)
    model = TrackNet(length, 16, 0.1)
    model.start_at(torch.from_numpy(communication._codes(independent(50, seed))))
    with torch.no_grad():
        model.mean.weight.mul_(10.0)  # so that what it has seen shows
    return model.eval()


def fit(train, select, params, saver=None, seed=4):
    return communication.fit(train, select, params, RUNTIME, seed, saver or training.Unsaved())


# What a moment knows


def test_histories_hold_what_came_before():
    given = independent(40, 0)
    trades, count = histories(given, LENGTH)
    assert trades.shape == (41, LENGTH, 8)
    assert trades.dtype == np.float32
    for t in range(41):
        known = list(range(max(0, t - LENGTH), t))
        assert count[t] == len(known)
        expected = np.concatenate([given.risk[known], given.outcome[known]], axis=1)
        assert np.array_equal(trades[t, : count[t]], expected)
        assert not trades[t, count[t] :].any()


def test_a_gap_through_the_stop_is_cut():
    given = independent(3, 0)
    given.outcome[:, 2] = [-40, 1, 40]
    assert histories(given, 4)[0][3, :3, NET_R].tolist() == [-5, 1, 5]


def test_a_prediction_knows_the_trades_before_it_only():
    model, given = net(), independent(60, 1)
    whole = advise(model, *histories(given, LENGTH))
    for n in (0, 1, 19, 20, 21, 37, 60):
        part = advise(model, *histories(until(given, n), LENGTH))
        for a, b in zip(part, whole, strict=True):
            assert np.array_equal(a, b[: n + 1])
    # The future poisoned: nothing up to and including the prediction of trade 30 moves, everything after it does.
    poisoned = Track(*(part.copy() for part in given))
    poisoned.risk[30:], poisoned.outcome[30:] = 0.9, 1.0
    found = advise(model, *histories(poisoned, LENGTH))
    for a, b in zip(found, whole, strict=True):
        assert np.array_equal(a[:31], b[:31])
    assert (np.abs(found.mean - whole.mean)[31:].max(1) > 1e-4).all()


def test_moments_of_a_training_sequence_know_the_trades_before_them_only():
    model = net()
    trades = torch.from_numpy(histories(independent(LENGTH, 2), LENGTH)[0][-1:])
    whole = model.unroll(trades)
    for t in range(LENGTH):
        other = trades.clone()
        other[:, t:] = 9.0
        for a, b in zip(model.unroll(other), whole, strict=True):
            assert torch.equal(a[:, : t + 1], b[:, : t + 1]), t
            assert not torch.equal(a[:, t + 1], b[:, t + 1]), t


def test_training_and_use_give_the_same_predictions():
    model = net()
    trades, count = histories(independent(LENGTH, 3), LENGTH)
    embedding, mean, sd = model.unroll(torch.from_numpy(trades[-1:]))
    used = advise(model, trades, count)
    np.testing.assert_allclose(used.embedding, embedding[0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(
        used.mean[:, communication.GAUSSIAN], mean[0].detach().numpy()[:, communication.GAUSSIAN], atol=1e-6
    )
    np.testing.assert_allclose(used.uncertainty[:, communication.GAUSSIAN], sd[0].detach().numpy(), atol=1e-6)


def test_the_memory_holds_the_last_twenty_trades_newest_last():
    model, seen = net(), []
    model.memory.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    given = independent(LENGTH, 4)
    trades, _ = histories(given, LENGTH)
    model.unroll(torch.from_numpy(trades[-1:]))
    assert seen[0].shape == (1, LENGTH + 1, 3 * MEMORY)
    kept = np.concatenate([np.zeros((MEMORY, 3)), np.column_stack([given.outcome[:, :2], given.risk[:, :1]])])
    for t in range(LENGTH + 1):
        # Twenty trades end before moment t; the flattened order is flag by flag.
        np.testing.assert_array_equal(seen[0][0, t].numpy(), kept[t : t + MEMORY].T.ravel().astype(np.float32))


def test_sequences_do_not_know_of_each_other():
    model = net()
    trades = torch.from_numpy(histories(independent(80, 5), LENGTH)[0][30:62])
    whole = model.unroll(trades)
    other = trades.clone()
    other[1:] = 5.0
    for a, b in zip(model.unroll(other), whole, strict=True):
        assert torch.equal(a[0], b[0])
    again = model.unroll(trades)  # no state is left from the call before
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))


def test_a_row_gives_the_same_bits_wherever_it_stands():
    model = net()
    trades, count = histories(independent(130, 6), LENGTH)
    whole, order = advise(model, trades, count), np.random.default_rng(0).permutation(131)[:57]
    for a, b in zip(advise(model, trades[order], count[order]), whole, strict=True):
        assert np.array_equal(a, b[order])


def test_no_moment_no_advice():
    advice = advise(net(), np.empty((0, LENGTH, 8), np.float32), np.empty(0, np.int64))
    assert [len(part) for part in advice] == [0] * 4


# The loss


def test_gaussian_nll_is_a_proper_score():
    errors = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.7
    scores = {s: float(nets.gaussian_nll(errors, torch.tensor(s)).mean()) for s in (0.4, 0.6, 0.7, 0.8, 1.0)}
    assert min(scores, key=scores.__getitem__) == 0.7
    expected = 0.5 * (0.3 / 2) ** 2 + np.log(2) + 0.5 * np.log(2 * np.pi)
    assert nets.gaussian_nll(torch.tensor(0.3), torch.tensor(2.0)).item() == pytest.approx(expected)


def test_loss_by_hand(params):
    embedding, mean, sd = torch.zeros(1, 2, 8), torch.zeros(1, 2, 8), torch.ones(1, 2, 6)
    target = torch.zeros(1, 2, 8)
    embedding[0, 1] = 0.5
    target[0, 0, 4], target[0, 0, NET_R], target[0, 0, 0] = 1, 2, 0.4
    half = 0.5 * np.log(2 * np.pi)
    first = 0.3 * (half + 0.5 * 0.16 / 4) + 0.3 * np.log(2) + 0.2 * (half + 0.5 * 4 / 2)
    second = 0.3 * half + 0.3 * np.log(2) + 0.2 * half + 0.2 * 0.25 * np.exp(-1)

    def loss(*valid):
        return communication_loss(embedding, mean, sd, target, torch.tensor([valid]), params).item()

    assert loss(True, False) == pytest.approx(first, rel=1e-5)
    assert loss(False, True) == pytest.approx(second, rel=1e-5)
    assert loss(True, True) == pytest.approx((first + second) / 2, rel=1e-5)


def test_uncertainty_cannot_be_bought(params):
    # The steadiness term falls as the sd grows, but no gradient tells the network so.
    embedding = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))
    sd = torch.ones(1, 3, 6, requires_grad=True)
    only = params.model_copy(update={"risk_weight": 0.0, "outcome_weight": 0.0, "pnl_weight": 0.0})
    embedding.requires_grad_()
    zeros = torch.zeros(1, 3, 8)
    communication_loss(embedding, zeros, sd, zeros, torch.ones(1, 3), only).backward()
    assert not sd.grad.any()
    assert embedding.grad.any()


# Training


def test_it_starts_at_the_constants_of_train():
    codes = torch.from_numpy(communication._codes(independent(400, 7)))
    torch.manual_seed(0)
    model = TrackNet(LENGTH, 16, 0.1)
    model.start_at(codes)
    advice = advise(model, *histories(independent(60, 8), LENGTH))
    np.testing.assert_allclose(advice.mean, np.broadcast_to(codes.mean(0), (61, 8)), atol=0.1)
    np.testing.assert_allclose(model.base[1, NET_R], codes[:, NET_R].std(correction=0), rtol=1e-3)


@pytest.fixture(scope="module")
def learnt(section):
    given = section("mrms", MRMSParams).communication
    update = {"batch_size": 64, "epochs": 30, "samples_per_epoch": 512, "learning_rate": 0.01, "patience": 100}
    run = given.model_copy(update={"length": LENGTH, "optimizer": given.optimizer.model_copy(update=update)})
    found = {}
    for name, kind in (("sticky", sticky), ("independent", independent)):
        torch.manual_seed(0)
        model, _ = fit(kind(1500, 0), kind(500, 1), run)
        found[name] = model, figures(model, kind(1500, 2))
    return found


def test_it_reacts_to_a_losing_streak_where_one_tells_something(learnt):
    _, found = learnt["sticky"]
    # After three losses the next trade is stopped out with 0.9 instead of 0.5.
    assert found["streak_stop_probability_change"] > 0.25
    assert found["streak_net_r_change"] < -0.4
    assert found["streak_sigma_change"] < -0.1  # a sure loss is a certain one
    assert found["stop_brier"] < 0.95 * found["stop_base_brier"]
    assert found["net_r_nll"] < found["net_r_constant_nll"] - 0.05


def test_the_figures_say_when_nothing_reacts(learnt):
    _, found = learnt["independent"]
    assert abs(found["streak_stop_probability_change"]) < 0.08
    assert abs(found["streak_net_r_change"]) < 0.2
    assert found["stop_brier"] == pytest.approx(found["stop_base_brier"], rel=0.02)
    assert found["net_r_nll"] == pytest.approx(found["net_r_constant_nll"], abs=0.02)
    # What does not depend on training: ten losses shrink the size by the rule.
    assert found["streak_factor"] <= 0.5
    assert found["streak_control_factor"] == 1.0


def test_it_is_calibrated(learnt):
    for name in ("sticky", "independent"):
        _, found = learnt[name]
        assert found["stop_ece"] < 0.06, name
        assert found["target_ece"] < 0.06, name
        assert found["bars_coverage_95"] > 0.93, name
        assert 0.5 < found["bars_coverage_68"] < 0.8, name  # a uniform spread: 0.58


def test_calibration_mends_what_is_too_sure(params):
    model, select = net(), independent(800, 9)
    with torch.no_grad():
        model.log_scale.bias.sub_(1.0)
        model.mean.weight[4:6].mul_(10.0)
    trades, count = histories(select, LENGTH)
    truth = torch.from_numpy(communication._codes(select))
    before = figures(model, independent(800, 10))
    communication._calibrate(model, [torch.from_numpy(trades), torch.from_numpy(count)], truth)
    after = figures(model, independent(800, 10))
    assert before["bars_coverage_95"] < 0.7 < 0.9 < after["bars_coverage_95"]
    assert (model.temperature > 1.5).all()
    assert after["stop_ece"] < before["stop_ece"]
    assert after["stop_brier"] < before["stop_brier"]


@pytest.mark.parametrize("at", [1, 5])
def test_a_resumed_run_ends_with_the_same_bytes(params, at):
    train, select = sticky(120, 0), sticky(40, 1)
    straight, found = fit(train, select, params)
    states = {}
    fit(train, select, params, Hook(lambda step, snapshot: states.update({step: copy.deepcopy(snapshot())})))
    torch.manual_seed(1000)
    resumed, again = fit(train, select, params, Hook(resumed=states[at]))
    assert again == found
    for a, b in zip(resumed.state_dict().values(), straight.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_it_trains_on_fewer_trades_than_a_sequence_holds(params):
    model, _ = fit(independent(5, 0), independent(3, 1), params)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert figures(model, Track.empty()) == {"trades": 0}


def test_what_pads_a_short_sequence_trains_nothing(params):
    # Five winning trades in sequences of 24: nineteen rows of zeros must not pull the expected net R to zero.
    wins = track(np.full(5, 2.0), np.random.default_rng(0))
    model, _ = fit(wins, wins, longer(params, 10))
    assert advise(model, *histories(wins, LENGTH)).mean[:, NET_R].min() > 1.8


def test_bad_trades_are_refused_by_name(params):
    good = independent(30, 0)
    with pytest.raises(InputError, match="mrms communication: expected trades in train and in select, found 1 and 30"):
        fit(until(good, 1), good, params)
    for name in ("risk", "outcome"):
        broken = good._replace(**{name: np.full((30, 4), np.nan, np.float32)})
        with pytest.raises(InputError, match=f"mrms communication: expected finite {name}, found NaN"):
            fit(good, broken, params)
        with pytest.raises(InputError, match=rf"expected {name} of shape \(30, 4\), found \(30, 3\)"):
            histories(good._replace(**{name: np.zeros((30, 3), np.float32)}), LENGTH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, c: (x[:, :-1], c), r"expected histories \(m, 24, 8\) and counts"),
        (lambda x, c: (x, c[:-1]), "and counts"),
        (lambda x, c: (x * np.nan, c), "expected finite histories"),
        (lambda x, c: (x, c + 20), "expected counts in 0..24, found 20..30"),
        (lambda x, c: (x, c - 1), "expected counts in 0..24, found -1..9"),
    ],
)
def test_bad_histories_are_refused_by_name(change, message):
    trades, count = histories(independent(10, 0), LENGTH)
    with pytest.raises(InputError, match=message):
        advise(net(), *change(trades, count))


def test_a_loaded_model_gives_the_same_bits():
    model = net()
    model.scale.fill_(1.3)
    loaded = load(nets.arrays(model), json.loads(json.dumps(model.config)))
    given = histories(independent(60, 1), LENGTH)
    for a, b in zip(advise(model, *given), advise(loaded, *given), strict=True):
        assert np.array_equal(a, b)


# The size


def test_form_by_hand():
    given = independent(30, 0)
    given.outcome[:, 2] = [2.0] * 4 + [-1.0] * 3 + [2.0, -1.0] * 11 + [-1.0]
    rates, streaks = form(*histories(given, LENGTH))
    assert rates[0] == 0.5  # a fresh account
    assert rates[4] == pytest.approx((4 + 2.5) / 9)
    assert rates[30] == pytest.approx((9 + 2.5) / 25)  # of the last 20: 9 wins
    assert streaks[[0, 4, 5, 7, 8, 30]].tolist() == [0, 0, 1, 3, 0, 2]


@pytest.mark.parametrize(
    ("win_rate", "streak", "sigma", "factor"),
    [
        (0.5, 0, 0.0, 1.0),
        (0.4, 4, 0.3, 1.0),  # on every border
        (0.2, 0, 0.0, 0.75),
        (0.0, 0, 0.0, 0.5),
        (0.5, 5, 0.0, 0.75),
        (0.5, 20, 0.0, 0.5),  # at most half
        (0.5, 0, 0.4, 0.9),
        (0.5, 0, 5.0, 0.7),  # at most 30 %
        (0.5, 0, -1.0, 1.0),
        (0.2, 10, 0.5, 0.75 * 0.5 * 0.8),
    ],
)
def test_factor_by_hand(win_rate, streak, sigma, factor):
    found = adapt(np.array([win_rate]), np.array([streak]), np.array([sigma]))
    assert found.tolist() == pytest.approx([factor])


def test_a_losing_streak_never_raises_the_size():
    streaks = np.arange(21)
    rates = (20 - streaks + 2.5) / 25
    factors = adapt(rates, streaks, np.zeros(21))
    assert (np.diff(factors) <= 0).all()
    assert factors[0] == 1
    assert factors[-1] < 0.4


def test_each_quantity_has_a_mean_and_an_uncertainty():
    advice = advise(net(), *histories(independent(30, 0), LENGTH))
    assert len(PREDICTED) == advice.mean.shape[1] == advice.uncertainty.shape[1] == advice.embedding.shape[1] == 8
    assert (advice.uncertainty > 0).all()
    assert (np.abs(advice.embedding) < 1).all()
    p = advice.mean[:, [4, 5]]
    assert ((p > 0) & (p < 1)).all()
    np.testing.assert_allclose(advice.uncertainty[:, [4, 5]], np.sqrt(p * (1 - p)), rtol=1e-6)
