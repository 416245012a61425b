import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from savers import RUNTIME, Hook
from torch import nn

from algospace import market, nets, training
from algospace.data.contracts import CONTRACTS
from algospace.errors import InputError
from algospace.market import MarketParams
from algospace.mrms import fit as fitting
from algospace.mrms import model as ensemble
from algospace.mrms.model import Output, RiskEnsemble, load
from algospace.mrms.objective import risk_loss
from algospace.mrms.outcomes import Lessons, cells, outcome_table, realised
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal, ask, propose
from algospace.mrms.state import CONTEXT, States, context, feature_names, states
from algospace.mrms.track import ACCOUNT
from algospace.pipeline.config import load_params

FILE = Path(__file__).parents[2] / "params.yaml"
DEFAULT = load_params("mrms", MRMSParams, FILE)
MARKET = load_params("market", MarketParams, FILE)
STOPS, REWARDS = (0.5, 1.0, 2.0), (1.0, 1.5, 2.0, 3.0)
UNITS = 5
NAMES = feature_names(0)  # 22 of the market, 10 of the account
N = len(NAMES)
TICK = 0.25


pytestmark = pytest.mark.usefixtures("one_thread")


def params(**changes):
    optimizer = {"batch_size": 64, "epochs": 3, "samples_per_epoch": 256, "learning_rate": 0.01, "patience": 100}
    optimizer |= {k: changes.pop(k) for k in list(changes) if k in DEFAULT.optimizer.model_dump()}
    update = {"stop_grid": STOPS, "reward_risk_grid": REWARDS, "hidden_dim": 16, "dropout": 0.1, "entropy": 0.0}
    return DEFAULT.model_copy(update=update | changes | {"optimizer": DEFAULT.optimizer.model_copy(update=optimizer)})


def net(seed=0, latent=0):
    """An ensemble whose networks have something to say."""
    torch.manual_seed(seed)
    model = ensemble.new(feature_names(latent), UNITS, params())
    for agent in (model.position, model.stop, model.target):
        nn.init.normal_(agent.network[-1].weight)
    return model


def frame(n, synergies=0):
    """Events without levels, all long, on a tick grid of prices."""
    unknown = dict.fromkeys(
        (f"m30_lvn_{a}_{b}" for a in ("support", "resistance") for b in ("price", "strength")), np.nan
    )
    kinds = (np.arange(n) < synergies).astype(int)
    return pd.DataFrame(
        {"row": np.arange(n), "candidate_direction": 1, "close": 4800.0, "m30_atr": 10.0, "gate1_type": kinds} | unknown
    )


def lessons(x, r):
    return Lessons(frame(len(x)), States(x, NAMES), r)


def fit(run, train, validation, saver=None, seed=0):
    given = lessons(*train), validation if validation is None else lessons(*validation)
    return fitting.fit("test", *given, UNITS, run, RUNTIME, seed, saver or training.Unsaved())


def proposals(model, x):
    return propose(model, States(x, NAMES), frame(len(x)), TICK)


# The loss


def slow_loss(units, stop, target, net_r, run):
    """The loss of a batch in loops and float64."""
    n = len(net_r)
    mean = downside = square = kelly = entropy = 0.0
    bet = run.unit_risk / run.kelly_fraction
    for e in range(n):
        for s in range(len(STOPS)):
            for t in range(len(REWARDS)):
                p, r = (1 - units[e, 0]) * stop[e, s] * target[e, t], net_r[e, s, t]
                mean += p * r / n
                downside += p * min(r, 0) ** 2 / n
                square += r**2 / (n * len(STOPS) * len(REWARDS))
        executed = net_r[e, stop[e].argmax(), target[e].argmax()]
        kelly += sum(units[e, u] * np.log(1 + bet * u * executed) / bet for u in range(UNITS + 1)) / n
        entropy -= sum(p * np.log(p) for p in [*stop[e], *target[e]] if p > 0) / n
    sortino = mean / np.sqrt(downside + 1e-3 * square)
    traded = 1 - units[:, 0]  # risk and target count where there is a trade
    risk = (units @ np.arange(UNITS + 1)) / traded * (stop @ np.array(STOPS))
    middle = np.average(risk, weights=traded)
    spread = np.average((risk - middle) ** 2, weights=traded) / (middle**2 + 0.01)
    pull = np.average(np.abs(target @ np.array(REWARDS) - 2), weights=traded)
    return -sortino - kelly + run.consistency * (spread + 0.1 * pull) - run.entropy * entropy, sortino


def output_of(units, stop, target):
    n = len(units)
    parts = [torch.tensor(np.asarray(x), dtype=torch.float64) for x in (units, stop, target)]
    third, rest = torch.full((n, 3), 1 / 3), torch.zeros(n, dtype=torch.float64)
    return Output(*parts, third, rest + 0.5, torch.zeros(n, 8), rest)


def losses_of(units, stop, target, net_r, run):
    grids = (torch.tensor(x, dtype=torch.float64) for x in (STOPS, REWARDS))
    return risk_loss(output_of(units, stop, target), torch.tensor(net_r, dtype=torch.float64), *grids, run)


def loss_of(units, stop, target, net_r, run):
    found = losses_of(units, stop, target, net_r, run)
    return [found.agents.item(), found.sortino.item()]


def test_loss_of_one_event_by_hand():
    # Two units for sure, stop 1 ATR, two fifths of the weight on reward-risk 1 (it loses 1 R), the rest on 3 (it wins
    # 3 R, and is executed).
    units, stop, target = [[0, 0, 1, 0, 0, 0]] * 2, [[0, 1, 0]] * 2, [[0.4, 0, 0, 0.6]] * 2
    net_r = np.zeros((2, 3, 4))
    net_r[:, 1] = [-1, 9, 9, 3]  # and 9 R where no weight lies
    run = params(unit_risk=0.01, kelly_fraction=0.25, consistency=0.1, entropy=0.01)
    mean, downside, square = 1.4, 0.4, (1 + 81 + 81 + 9) / 12
    sortino = mean / np.sqrt(downside + 1e-3 * square)
    kelly = np.log(1 + 0.24) / 0.04  # a bet of 4 % a unit, two units
    # Both events carry the same risk; the expected target is 2.2.
    disorder = -(0.4 * np.log(0.4) + 0.6 * np.log(0.6))
    expected = -sortino - kelly + 0.1 * 0.1 * 0.2 - 0.01 * disorder
    assert loss_of(units, stop, target, net_r, run) == pytest.approx([expected, sortino], rel=1e-6)


def test_loss_of_a_batch_against_loops():
    rng = np.random.default_rng(0)
    units, stop, target = (rng.dirichlet(np.ones(k), 9) for k in (UNITS + 1, 3, 4))
    net_r = rng.normal(size=(9, 3, 4))
    run = params(consistency=0.3, entropy=0.05, unit_risk=0.01)
    found = loss_of(units, stop, target, net_r, run)
    assert found == pytest.approx(slow_loss(units, stop, target, net_r, run), rel=1e-6)


def test_risk_is_not_averaged_away():
    # Two cells, +1 and -1: their mean is 0 without any downside, but whoever draws a cell bears the -1.
    stop, target = [[0, 1, 0]] * 2, [[0.5, 0, 0, 0.5]] * 2
    units = [[0, 1, 0, 0, 0, 0]] * 2
    sure, drawn = np.zeros((2, 3, 4)), np.zeros((2, 3, 4))
    sure[:, 1] = [0.5, 0, 0, 0.5]
    drawn[:, 1] = [-1, 0, 0, 2]
    run = params(consistency=0.0)
    assert loss_of(units, stop, target, sure, run)[1] > 10 * loss_of(units, stop, target, drawn, run)[1]


def test_gradients_are_finite_and_reach_every_weight():
    model = net()
    x = torch.randn(32, N, generator=torch.Generator().manual_seed(1))
    r = torch.randn(32, 3, 4, generator=torch.Generator().manual_seed(2))
    r[0], r[1], r[2] = -40.0, 40.0, 0.0  # ruin, a fortune and nothing
    risk_loss(model(x), r, torch.tensor(STOPS), torch.tensor(REWARDS), params()).total.backward()
    for name, weight in model.named_parameters():
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("outcome", [0.0, 1.0, -1.0])
def test_outcomes_without_spread_are_finite(outcome):
    model = net()
    r = torch.full((8, 3, 4), outcome)
    found = risk_loss(model(torch.zeros(8, N)), r, torch.tensor(STOPS), torch.tensor(REWARDS), params())
    found.total.backward()
    assert all(torch.isfinite(value) for value in found)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# Training


def planted(n, seed):
    """One cell is good where the first feature is positive; every other cell, and every other event, loses."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2, N)).astype(np.float32)
    r = np.full((n, 2, 3, 4), -0.6, np.float32) + 0.1 * rng.normal(size=(n, 2, 3, 4)).astype(np.float32)
    good = x[..., 0] > 0
    r[good, 1, 2] = np.where(rng.random(good.sum()) < 0.7, 1.9, -1.1)
    return x, r


def test_it_finds_a_planted_cell_and_sizes_it_up():
    torch.manual_seed(0)
    run = params(epochs=30, samples_per_epoch=1024)
    model, found = fit(run, planted(600, 0), planted(200, 1))
    x, r = planted(300, 2)
    proposal = proposals(model, x)
    clear = np.abs(x[..., 0]) > 0.3
    good, bad = clear & (x[..., 0] > 0), clear & (x[..., 0] < 0)
    assert (proposal.units[good] >= 4).mean() > 0.95
    assert (proposal.units[bad] == 0).mean() > 0.95
    assert (proposal.stop_atr[good] == 1.0).mean() > 0.95
    assert (proposal.reward_risk[good] == 2.0).mean() > 0.95
    assert realised(r, cells(run, proposal.stop_atr, proposal.reward_risk))[good].mean() > 0.8
    assert found.history[-1]["validation/sortino"] > 0


def test_it_does_not_trade_what_only_loses():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2, N)).astype(np.float32)
    r = -np.abs(rng.normal(size=(400, 2, 3, 4))).astype(np.float32) - 0.1
    model, _ = fit(params(epochs=12), (x, r), (x, r))
    assert (proposals(model, x).units == 0).all()


def test_the_size_is_fractional_kelly():
    # Even odds of +1.5 R and -1 R: growth is greatest at a bet of 1/6. A unit bets 0.02 / 0.25 = 8 %, so two units.
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2, N)).astype(np.float32)
    r = np.where(rng.permutation(1000).reshape(500, 2, 1, 1) % 2, 1.5, -1.0) * np.ones((1, 1, 3, 4))
    table = r.astype(np.float32)
    run = params(unit_risk=0.02, kelly_fraction=0.25, epochs=15, weight_decay=1.0)
    model, _ = fit(run, (np.zeros_like(x), table), (np.zeros_like(x), table))
    assert (proposals(model, np.zeros_like(x)).units == 2).all()


@pytest.mark.parametrize("at", [1, 5, 8])
def test_a_resumed_run_ends_with_the_same_bytes(at):
    train, validation = planted(80, 0), planted(20, 1)
    torch.manual_seed(4)
    straight, found = fit(params(), train, validation)
    states = {}
    fit(params(), train, validation, Hook(lambda step, snapshot: states.update({step: copy.deepcopy(snapshot())})))
    torch.manual_seed(1000)
    resumed, again = fit(params(), train, validation, Hook(resumed=states[at]))
    assert again == found
    for a, b in zip(resumed.state_dict().values(), straight.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_batch_is_a_stretch_of_time():
    # Features that number the events: every batch is a run of consecutive events, each from one of its sides.
    n = 100
    x = np.zeros((n, 2, N), np.float32)
    x[..., 0], x[..., 1] = np.arange(n)[:, None], [0, 1]
    seen, loss = [], RiskEnsemble.forward

    def spy(self, batch):
        if self.training:
            seen.append(batch[:, :2].tolist())
        return loss(self, batch)

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RiskEnsemble, "forward", spy)
        fit(params(batch_size=16), (x, planted(n, 0)[1]), planted(20, 1))
    assert len(seen) == 3 * 256 // 16
    for batch in seen:
        events = [event for event, _ in batch]
        assert events == list(range(int(events[0]), int(events[0]) + 16))
    assert {side for batch in seen for _, side in batch} == {0.0, 1.0}
    assert {batch[0][0] for batch in seen} != {0.0}


def test_no_target_is_learnt_that_the_limits_refuse(section):
    limits = section("market", MarketParams).limits
    grid = DEFAULT.model_copy(update={"reward_risk_grid": (1.0, 1.5, 2.0)})
    assert grid.within(limits.model_copy(update={"min_reward_risk": 1.5})).reward_risk_grid == (1.5, 2.0)
    assert grid.within(limits.model_copy(update={"min_reward_risk": 0.0})) == grid
    with pytest.raises(InputError, match=r"of at least 3 \(market.limits.min_reward_risk\), found \[1.0, 1.5, 2.0\]"):
        grid.within(limits.model_copy(update={"min_reward_risk": 3.0}))


def test_bad_training_material_is_refused():
    good = planted(20, 0)
    with pytest.raises(InputError, match="mrms: expected 5 candidates or more in train, found 1"):
        fit(params(), planted(1, 0), good)
    with pytest.raises(InputError, match="mrms: expected 2 candidates or more in select, found 0"):
        fit(params(), good, planted(0, 0))
    for where in (0, 1):
        broken = [planted(20, 0), planted(20, 1)]
        broken[where][0][3, 1, 2] = np.nan
        with pytest.raises(InputError, match="mrms: expected finite states"):
            fit(params(), *broken)
    broken = planted(20, 0)
    broken[1][:] = np.nan
    with pytest.raises(InputError, match="test: expected a finite loss"):
        fit(params(), broken, good)


# Proposals


def test_proposals_are_the_most_probable():
    model, x = net().eval(), 10 * np.random.default_rng(0).normal(size=(70, 2, N)).astype(np.float32)
    proposal = proposals(model, x)
    units, stop, target, *_ = nets.infer(model, x.reshape(-1, N))
    for i in range(140):
        event, side = divmod(i, 2)
        assert proposal.units[event, side] == units[i].argmax()
        assert proposal.stop_atr[event, side] == STOPS[stop[i].argmax()]
        assert proposal.reward_risk[event, side] == REWARDS[target[i].argmax()]
        assert proposal.confidence[event, side] == units[i].max()
    assert min(len(np.unique(part)) for part in (proposal.units, proposal.stop_atr, proposal.reward_risk)) > 1
    assert proposal.units.dtype == np.int64


def test_a_limit_on_the_size_is_hard_and_never_raises_one():
    model, x = net().eval(), 10 * np.random.default_rng(0).normal(size=(70, 2, N)).astype(np.float32)
    free = proposals(model, x)
    for most in (3, 1, 0):
        assert (free.units > most).any()
        model.limit_units(most)
        held = proposals(model, x)
        assert (held.units[free.units <= most] == free.units[free.units <= most]).all()
        assert held.units.max() <= most
        for name in ("stop_atr", "stop", "reward_risk"):
            assert np.array_equal(getattr(held, name), getattr(free, name)), name
    assert (held.confidence == 1).all()
    # A stored model is held too.
    loaded = load(nets.arrays(model), json.loads(json.dumps(model.config)))
    assert (proposals(loaded, 1e3 * x).units == 0).all()
    assert all(np.isfinite(array).all() for array in nets.arrays(model).values())


def test_a_proposal_depends_on_its_own_context_only():
    model, x = net().eval(), np.random.default_rng(0).normal(size=(70, 2, N)).astype(np.float32)
    whole = proposals(model, x)
    order = np.random.default_rng(1).permutation(70)[:33]
    for a, b in zip(proposals(model, x[order]), whole, strict=True):
        assert np.array_equal(a, b[order])


def test_bad_states_are_refused_by_name():
    model, x = net(), np.zeros((3, 2, N), np.float32)
    with pytest.raises(InputError, match=f"mrms: expected {N} features, found {N - 1}"):
        propose(model, States(x[..., 1:], NAMES[1:]), frame(3), TICK)
    swapped = (*NAMES[:9], NAMES[10], NAMES[9], *NAMES[11:])
    with pytest.raises(InputError, match="mrms: expected quality as feature 9, found atr_share"):
        propose(model, States(x, swapped), frame(3), TICK)
    with pytest.raises(InputError, match=r"mrms: expected states \(n, 2, 32\), found \(3, 1, 32\)"):
        propose(model, States(x[:, :1], NAMES), frame(3), TICK)
    for wrong in (np.nan, np.inf):
        broken = x.copy()
        broken[1, 0, NAMES.index("rsi")] = wrong
        with pytest.raises(InputError, match="found NaN or inf in rsi of event 1"):
            propose(model, States(broken, NAMES), frame(3), TICK)
    config = model.config | {"features": [*NAMES[:-1], "luck"]}
    with pytest.raises(InputError, match="mrms: expected win_rate_10 as feature 31, found luck"):
        load(nets.arrays(model), config)


def test_no_events_no_proposal():
    found = proposals(net(), np.empty((0, 2, N), np.float32))
    assert all(part.shape[:2] == (0, 2) for part in found)


def test_a_table_gives_the_proposals_back():
    model, x = net().eval(), np.random.default_rng(0).normal(size=(9, 2, N)).astype(np.float32)
    found = proposals(model, x)
    rows = np.arange(9) * 7
    back = Proposal.from_table(found.table(rows), rows[::-1])
    for a, b in zip(back, found.of(slice(None, None, -1)), strict=True):
        assert np.array_equal(a, b)
        assert a.dtype == b.dtype
    with pytest.raises(InputError, match="proposals: expected one for row 3, found none"):
        Proposal.from_table(found.table(rows), np.array([0, 3]))


def test_the_coordinator_weighs_and_does_not_bend_the_agents():
    model, x = net(), torch.randn(40, N, generator=torch.Generator().manual_seed(0))
    out = model.eval()(x)
    assert torch.allclose(out.weights.sum(1), torch.ones(40))
    own = torch.stack([p.amax(1) for p in (out.units, out.stop, out.target)], 1)
    assert torch.allclose(out.confidence, (out.weights * own).sum(1))
    r = torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(1))
    risk_loss(out, r, torch.tensor(STOPS), torch.tensor(REWARDS), params()).coordinator.backward()
    agents = [p for agent in (model.position, model.stop, model.target) for p in agent.parameters()]
    assert all(p.grad is None for p in agents)
    assert all(p.grad.abs().sum() > 0 for p in (*model.coordinator.parameters(), *model.embed.parameters()))


def test_an_untaught_ensemble_proposes_the_same_for_every_state():
    model = ensemble.new(NAMES, UNITS, params()).eval()
    with torch.no_grad():
        model.stop.linear.bias[1] = model.target.linear.bias[2] = model.position.linear.bias[4] = 1.0
    found = proposals(model, np.random.default_rng(0).normal(size=(20, 2, N)).astype(np.float32))
    assert (found.stop_atr == 1.0).all()
    assert (found.reward_risk == 2.0).all()
    assert (found.units == 4).all()


def test_a_loaded_model_gives_the_same_bits():
    model = net().eval()
    loaded = load(nets.arrays(model), json.loads(json.dumps(model.config)))
    x = np.random.default_rng(0).normal(size=(70, 2, N)).astype(np.float32)
    for a, b in zip(proposals(model, x), proposals(loaded, x), strict=True):
        assert np.array_equal(a, b)


def test_an_event_that_nobody_trades_says_nothing_of_brackets():
    """With size 0 for certain at the second event, its outcomes move neither the Sortino ratio nor its gradient."""
    stop, target = [[0.2, 0.5, 0.3]] * 2, [[0.1, 0.2, 0.3, 0.4]] * 2
    net_r = np.random.default_rng(3).normal(size=(2, 3, 4))
    other = net_r.copy()
    other[1] = -net_r[1]  # of the same square, which scales the ratio's floor
    sized, half = [[0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]], [[0, 1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0]]
    assert loss_of(sized, stop, target, net_r, params())[1] == loss_of(sized, stop, target, other, params())[1]
    assert loss_of(half, stop, target, net_r, params())[1] != loss_of(half, stop, target, other, params())[1]


def test_whoever_passes_pays_nothing_for_it():
    """Risk consistency is that of trades: a size of 0 for certain at the second event changes none of it."""
    stop, target, net_r = [[0, 1, 0]] * 3, [[0.1, 0.2, 0.3, 0.4]] * 3, np.zeros((3, 3, 4))
    once, twice = [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]
    run, free = params(consistency=0.5, entropy=0.0), params(consistency=0.0, entropy=0.0)

    def price(units):
        with_it, without = (loss_of(units, stop, target, net_r, given)[0] for given in (run, free))
        return with_it - without

    never = [1, 0, 0, 0, 0, 0]
    assert price([once, never, once]) == pytest.approx(price([once, once, once]), rel=1e-6)
    assert price([once, never, twice]) > 2 * price([once, once, once])


def test_the_default_network():
    model = ensemble.new(feature_names(8), 5, DEFAULT)
    assert len(model.config["features"]) == 40
    assert sum(p.numel() for p in model.parameters()) == 17_887


# Outcomes


def test_realised_picks_the_proposed_cell():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(9, 2, 3, 4)).astype(np.float32)
    stop, reward = rng.integers(0, 3, (9, 2)), rng.integers(0, 4, (9, 2))
    found = realised(table, cells(params(), np.array(STOPS)[stop], np.array(REWARDS)[reward]))
    for event in range(9):
        for side in range(2):
            assert found[event, side] == table[event, side, stop[event, side], reward[event, side]]


def random_market(n=300, seed=0):
    rng = np.random.default_rng(seed)
    close = 4800 + np.cumsum(rng.integers(-8, 9, n)) * 0.25
    open_ = np.r_[4800, close[:-1]]
    session = np.repeat(np.arange(n // 50), 50)
    end = (session + 1) * 50 - 1
    high, low = np.maximum(open_, close) + 0.5, np.minimum(open_, close) - 0.5
    return market.Bars(open_, high, low, close, np.ones(n, bool), end, np.zeros(n, bool))


def test_outcome_table_is_the_market_cell_by_cell():
    bars, costs = random_market(), market.Costs.of(CONTRACTS["MES"], 1.0)
    rules = MARKET.model_copy(update={"max_bars": 20})
    venue = market.Venue(bars, np.repeat(np.arange(6), 50), CONTRACTS["MES"], costs, rules)
    events = pd.DataFrame(
        {"row": [5, 60, 149, 203], "candidate_direction": np.array([1, -1, 1, -1], np.int8), "m30_atr": [3, 4.1, 5, 6]}
    )
    events = frame(4).assign(**events)
    table = outcome_table(venue, events, params())
    assert table.dtype == np.float32
    for e, event in events.iterrows():
        for k, side in enumerate((1, -1)):
            for s, stop in enumerate(STOPS):
                for t, reward in enumerate(REWARDS):
                    distance = max(np.round(event.m30_atr * stop / 0.25), 1) * 0.25
                    order = event.row, side * event.candidate_direction, distance, reward, 0
                    one = market.bracket(bars, *(np.array(value) for value in order), costs, 20)
                    assert table[e, k, s, t] == np.float32(one.net_r), (e, k, s, t)
    assert (table[2] == 0).all()  # row 149 is the last of its session: no fill
    assert len(np.unique(table)) > 10


# Context


def events():
    """Two events of a day, one long and one short, with every number different."""
    close_utc = pd.DatetimeIndex(["2024-01-03 15:45", "2024-07-03 19:30"], tz="UTC").as_unit("ms")
    frame = {
        "close_utc": close_utc, "session_close_utc": close_utc + pd.to_timedelta([69_000, 41_400], unit="s"),
        "high": [4810.0, 5005.0], "low": [4795.0, 4999.0], "close": [4800.0, 5000.0], "m30_atr": [10.0, 8.0],
        "volume_ratio": [2.0, 0.5], "activity": [0.5, -3.0], "rsi_14": [60.0, 35.0], "momentum_5": [0.3, -0.1],
        "m30_lvn_support_price": [4790.0, 4980.0], "m30_lvn_support_strength": [40.0, 70.0],
        "m30_lvn_resistance_price": [4830.0, 5004.0], "m30_lvn_resistance_strength": [90.0, 20.0],
        "gate1_type": [2, 0], "gate1_bars_to_complete": [12, 0], "gate1_quality": [0.7, np.nan],
        "gate1_strength_mlmi": [0.1, np.nan], "gate1_strength_nwrqk": [0.2, np.nan],
        "gate1_strength_fvg": [0.3, np.nan], "candidate_direction": np.array([1, -1], np.int8),
    }  # fmt: skip
    return pd.DataFrame(frame)


def mirrored(frame):
    """Up is down, with the event's close held fixed: what a short trader sees where a long one stood."""
    swap = {
        "m30_lvn_support_price": 2 * frame["close"] - frame["m30_lvn_resistance_price"],
        "m30_lvn_resistance_price": 2 * frame["close"] - frame["m30_lvn_support_price"],
        "m30_lvn_support_strength": frame["m30_lvn_resistance_strength"],
        "m30_lvn_resistance_strength": frame["m30_lvn_support_strength"],
    }
    return frame.assign(
        high=2 * frame["close"] - frame["low"],
        low=2 * frame["close"] - frame["high"],
        rsi_14=100 - frame["rsi_14"],
        momentum_5=-frame["momentum_5"],
        candidate_direction=-frame["candidate_direction"],
        **swap,
    )


REGIME = np.arange(6, dtype=np.float32).reshape(2, 3) / 10


def test_context_by_hand():
    found = context(events(), REGIME)
    assert found.shape == (2, 2, len(CONTEXT) + 3)
    assert found.dtype == np.float32
    named = dict(zip(CONTEXT, found[0, 0, : len(CONTEXT)].tolist(), strict=True))
    angle = 2 * np.pi * 10.75 / 24  # 15:45 UTC is 10:45 in New York
    expected = {
        "type_1": 0, "type_2": 1, "type_3": 0, "type_4": 0, "with_signal": 1, "strength_mlmi": 0.1,
        "strength_nwrqk": 0.2, "strength_fvg": 0.3, "bars_to_complete": 1.2, "quality": 0.7,
        "atr_share": 100 * 10 / 4800, "volume_ratio": 0.6, "momentum": 0.003 * 4800 / 10 / 3, "rsi": 0.2,
        "activity": 0.5, "hour_sin": np.sin(angle), "hour_cos": np.cos(angle), "behind_distance": np.exp(-1.0),
        "behind_strength": 0.4, "ahead_distance": np.exp(-3.0), "ahead_strength": 0.9, "time_left": 69_000 / 82_800,
    }  # fmt: skip
    assert named == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(found[:, 0, len(CONTEXT) :], REGIME)


def test_the_other_side_of_an_event():
    found = context(events(), REGIME)
    ours, theirs = found[:, 0].copy(), found[:, 1].copy()
    sign = np.ones(len(CONTEXT) + 3, np.float32)
    for name in ("with_signal", "momentum", "rsi"):
        sign[CONTEXT.index(name)] = -1
    order = np.arange(len(CONTEXT) + 3)
    for a, b in (("behind_distance", "ahead_distance"), ("behind_strength", "ahead_strength")):
        i, j = CONTEXT.index(a), CONTEXT.index(b)
        order[[i, j]] = j, i
    np.testing.assert_allclose(theirs, ours[:, order] * sign, atol=1e-6)


def test_a_mirrored_event_gives_the_same_context():
    first, second = context(events(), REGIME), context(mirrored(events()), REGIME)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert not np.allclose(first, context(events().assign(rsi_14=50.0), REGIME), atol=1e-3)


def test_unknown_levels_and_young_sessions_are_neutral():
    frame = events()
    frame.loc[:, ["m30_lvn_support_price", "m30_lvn_support_strength", "momentum_5"]] = np.nan
    found = context(frame, REGIME)
    named = {name: found[0, 0, i] for i, name in enumerate(CONTEXT)}
    assert (named["behind_distance"], named["behind_strength"], named["momentum"]) == (0, 0, 0)
    assert np.isfinite(found).all()


def test_a_missing_atr_is_not_hidden():
    frame = events().assign(m30_atr=np.nan)
    with pytest.raises(InputError, match="expected finite states, found NaN or inf in atr_share of event 0"):
        ask(net(latent=3), states(frame, REGIME))


def test_a_state_is_context_and_account():
    found = states(events(), REGIME)
    assert found.names == (*CONTEXT, "regime_0", "regime_1", "regime_2", *ACCOUNT)
    assert np.array_equal(found.values[..., :-10], context(events(), REGIME))
    other = found.with_accounts(np.arange(20).reshape(2, 10))
    assert np.array_equal(other.values[..., :-10], found.values[..., :-10])
    assert other.values[1, :, -10:].tolist() == [list(range(10, 20))] * 2
    assert found.values[0, 0, -10] == 1.0  # the first states are as they were
