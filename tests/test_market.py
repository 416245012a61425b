from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from algospace import market
from algospace.data.contracts import CONTRACTS
from algospace.market import NO_FILL, OPEN, SESSION, STOP, TARGET, TIME, Account, Bars, Costs, LimitParams, MarketParams
from algospace.pipeline.config import load_params

PARAMS = load_params("market", MarketParams, Path(__file__).parents[1] / "params.yaml")
LIMITS = PARAMS.limits
SPY, MES = CONTRACTS["SPY"], CONTRACTS["MES"]


def table(bars, session=None, synthetic=None, ends=True):
    """Make a bars table of (open, high, low, close) tuples; ``ends``: the last session is over after them."""
    n = len(bars)
    start = pd.date_range("2024-01-02 14:30", periods=n, freq="5min", tz="UTC").as_unit("ms")
    close = start + pd.Timedelta("5min")
    frame = pd.DataFrame(bars, columns=["open", "high", "low", "close"], dtype=float)
    return frame.assign(
        start_utc=start,
        close_utc=close,
        session_id=[20240102] * n if session is None else session,
        session_close_utc=close[-1] + pd.Timedelta(0 if ends else "5min"),
        is_synthetic=[False] * n if synthetic is None else synthetic,
    )


def run(bars, row=0, side=1, stop=1.0, reward_risk=2.0, delay=0, contract=SPY, multiplier=1.0, max_bars=100):
    """One bracket; the outcome as scalars."""
    outcome = market.bracket(
        bars if isinstance(bars, Bars) else Bars.of(bars),
        *(np.array(x) for x in (row, side, stop, reward_risk, delay)),
        Costs.of(contract, multiplier),
        max_bars,
    )
    return market.Outcome(*(array.item() for array in outcome))


def flat(price, n):
    return [(price, price, price, price)] * n


def random_table(seed, n=240, per_session=24, tick=0.25):
    """Prices on the tick grid (exact in binary), short sessions, some bars gap-filled."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-6, 7, (n, 4))
    bars, last = [], 19_200
    synthetic = (rng.random(n) < 0.15) & (np.arange(n) % per_session > 0)
    for t in range(n):
        if synthetic[t]:
            bars.append((last, last, last, last))
            continue
        path = last + np.cumsum(steps[t])
        bars.append((path[0], path.max(), path.min(), path[-1]))
        last = path[-1]
    frame = table(np.array(bars) * tick, 20240102 + np.arange(n) // per_session, synthetic, ends=False)
    return frame


def random_brackets(seed, n=240, count=400):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, n, count),
        rng.choice([1, -1], count),
        rng.integers(1, 30, count) * 0.25,
        rng.choice([1.0, 1.5, 2.0, 3.0], count),
        rng.integers(0, 5, count),
    )


# One trade by hand, to the cent


def test_spy_long_to_the_target():
    bars = table([(399, 401, 398, 400), (400.00, 400.5, 399.5, 400.2), (400.2, 402.5, 400.1, 402.4)])
    out = run(bars)
    # In at 400.01 (one tick worse), out at 400.01 + 2.00; 100 shares, 0.50 a side.
    assert (out.entry_row, out.exit_row, out.exit) == (1, 2, TARGET)
    assert (out.entry_price, out.exit_price) == pytest.approx((400.01, 402.01), abs=1e-9)
    assert out.net_r * 1.0 * SPY.point_value == pytest.approx(199.00, abs=1e-9)


def test_spy_short_to_the_stop():
    bars = table([(399, 401, 398, 400), (400.00, 400.5, 399.5, 400.2), (400.2, 401.0, 400.1, 400.9)])
    out = run(bars, side=-1)
    # In at 399.99, stop at 400.99, out at 401.00.
    assert (out.entry_row, out.exit_row, out.exit) == (1, 2, STOP)
    assert out.net_r * SPY.point_value == pytest.approx(-101.00 - 1.00, abs=1e-9)


def test_mes_long_to_the_stop():
    bars = table([*flat(4800, 2), (4800, 4801, 4796, 4797)])
    out = run(bars, stop=4.0, contract=MES)
    # In at 4800.25, stop at 4796.25, out at 4796.00: 4.25 points of 5 USD and twice 0.60.
    assert out.exit_price == 4796.00
    assert out.net_r * 4.0 * MES.point_value == pytest.approx(-22.45, abs=1e-9)


def test_mes_short_through_a_gap_fills_at_the_open():
    bars = table([*flat(4800, 2), (4810, 4812, 4790, 4791)])
    out = run(bars, side=-1, stop=4.0, contract=MES)
    # In at 4799.75, stop at 4803.75, the bar opens at 4810: out at 4810.25.
    assert (out.exit, out.exit_price) == (STOP, 4810.25)
    assert out.net_r * 4.0 * MES.point_value == pytest.approx(-52.50 - 1.20, abs=1e-9)


def test_the_cost_multiplier_scales_both_costs():
    bars = table([*flat(4800, 2), (4800, 4801, 4790, 4791)])
    out = run(bars, stop=4.0, contract=MES, multiplier=2.0)
    assert (out.entry_price, out.exit_price) == (4800.50, 4796.00)
    assert out.net_r * 4.0 * MES.point_value == pytest.approx(-4.5 * 5 - 2.40, abs=1e-9)


# The order of things inside a bar and at its ends


@pytest.mark.parametrize("side", [1, -1])
def test_the_stop_counts_first_when_a_bar_holds_both(side):
    bars = table([*flat(100, 2), (100, 110, 90, 100)])
    assert run(bars, side=side).exit == STOP


def test_stop_and_target_may_be_hit_in_the_entry_bar():
    assert run(table([*flat(100, 1), (100, 110, 99.9, 100)])).exit == TARGET
    assert run(table([*flat(100, 1), (100, 100.1, 90, 100)])).exit == STOP


def test_touching_a_level_is_enough():
    entry = 100 + SPY.tick
    touched = table([*flat(100, 2), (100, entry + 2, 100, 100)])
    missed = table([*flat(100, 2), (100, entry + 2 - 0.001, 100, 100)])
    assert (run(touched).exit, run(missed).exit) == (TARGET, SESSION)


def test_a_target_fills_at_its_price_even_through_a_gap():
    bars = table([*flat(4800, 2), (4850, 4860, 4849, 4855)])
    assert run(bars, stop=4.0, contract=MES).exit_price == 4808.25


def test_time_exit_after_max_bars():
    bars = table([*flat(100, 4), *flat(100.5, 6)])
    out = run(bars, max_bars=4)
    assert (out.entry_row, out.exit_row, out.exit) == (1, 4, TIME)
    assert out.exit_price == pytest.approx(100.5 - SPY.tick)
    assert run(bars, max_bars=1).exit_row == 1


def test_session_end_exit_at_the_last_close():
    bars = table([*flat(100, 4), *flat(120, 4)], session=[1] * 4 + [2] * 4)
    out = run(bars)
    assert (out.exit_row, out.exit) == (3, SESSION)
    assert out.exit_price == pytest.approx(100 - SPY.tick)


def test_still_open_when_the_data_end_inside_the_session():
    bars = flat(100, 4)
    assert run(table(bars, ends=False)).exit == OPEN
    assert run(table(bars, ends=True)).exit == SESSION
    waiting = run(table(bars, ends=False), row=3)
    assert (waiting.exit, waiting.entry_row, waiting.exit_row, waiting.net_r) == (OPEN, -1, 3, 0.0)


def test_the_time_exit_wins_over_the_end_of_the_data():
    assert run(table(flat(100, 4), ends=False), max_bars=3).exit == TIME


@pytest.mark.parametrize("delay", range(5))
def test_delay(delay):
    bars = table([(100 + t, 100 + t, 100 + t, 100 + t) for t in range(12)])
    out = run(bars, row=2, stop=50.0, delay=delay)
    assert out.entry_row == 3 + delay
    assert out.entry_price == pytest.approx(103 + delay + SPY.tick)


def test_no_entry_after_the_last_bar_of_the_session():
    bars = table(flat(100, 8), session=[1] * 4 + [2] * 4)
    for row, delay in [(3, 0), (2, 1), (0, 3), (0, 4)]:
        out = run(bars, row=row, delay=delay)
        assert (out.exit, out.entry_row, out.exit_row, out.net_r) == (NO_FILL, -1, row, 0.0)
        assert np.isnan(out.entry_price)
        assert np.isnan(out.exit_price)
    assert run(bars, row=0, delay=2).entry_row == 3


def test_an_entry_waits_for_a_bar_that_traded():
    bars = table(flat(100, 6), synthetic=[False, True, True, False, False, False])
    assert run(bars).entry_row == 3
    assert run(bars, delay=1).entry_row == 3
    assert run(table(flat(100, 3), synthetic=[False, True, True])).exit == NO_FILL


def test_a_time_exit_waits_for_a_bar_that_traded():
    # "Gap-filled bars cannot be traded": nothing traded at row 3, so nobody could leave there.
    bars = table(flat(100, 6), synthetic=[False, False, False, True, True, False])
    assert run(bars, max_bars=3).exit_row == 5


def test_bars_of_a_table():
    bars = Bars.of(table(flat(100, 5), session=[7, 7, 8, 8, 8], synthetic=[0, 1, 0, 0, 0], ends=False))
    assert bars.session_end.tolist() == [1, 1, 4, 4, 4]
    assert bars.tradable.tolist() == [True, False, True, True, True]
    assert bars.data_ends.tolist() == [False, False, True, True, True]


# Against a second implementation, and in a mirror


def test_what_a_bracket_has_paid_is_what_it_earns_less_than_without_costs():
    """Where costs move neither stop nor target past another bar, each bracket's net R is its gross less this."""
    bars = Bars.of(random_table(3))
    rows = np.arange(0, len(bars.close) - 20, 7)
    stop, reward_risk = np.full(len(rows), 1e5), np.full(len(rows), 1.0)  # the clock ends all of them
    free, dear = Costs.of(MES, 0.0), Costs.of(MES, 2.0)
    found = [market.bracket(bars, rows, 1.0, stop, reward_risk, 0, costs, 9) for costs in (free, dear)]
    assert (found[1].entry_row >= 0).any()
    np.testing.assert_allclose(dear.in_r(found[1], stop), found[0].net_r - found[1].net_r, rtol=0, atol=1e-15)
    assert (free.in_r(found[0], stop) == 0).all()
    unfilled = found[1]._replace(entry_row=np.full(len(rows), -1))
    assert (dear.in_r(unfilled, stop) == 0).all()
    at_target = found[1]._replace(exit=np.full(len(rows), market.TARGET))
    slipped = dear.in_r(found[1], stop) - dear.in_r(at_target, stop)
    np.testing.assert_allclose(slipped, np.where(found[1].entry_row >= 0, dear.slippage / stop, 0.0))


def slow_bracket(bars, row, side, stop, reward_risk, delay, costs, max_bars):
    """The execution rule once more, by slices of one session and with long and short spelt out."""
    session = np.arange(row + 1 + delay, bars.session_end[row] + 1)
    open_rows = [t for t in session if bars.tradable[t]]
    if not open_rows:
        return 0.0, row
    entry_row = open_rows[0]
    life = range(entry_row, min(bars.session_end[row], entry_row + max_bars - 1) + 1)
    long = side == 1
    entry = bars.open[entry_row] + (costs.slippage if long else -costs.slippage)
    target = round(stop * reward_risk / costs.tick) * costs.tick
    low, high = (stop, target) if long else (target, stop)
    low, high = entry - low, entry + high
    for t in life:
        if long and bars.low[t] <= low:
            exit_price = min(bars.open[t], low) - costs.slippage
        elif not long and bars.high[t] >= high:
            exit_price = max(bars.open[t], high) + costs.slippage
        elif long and bars.high[t] >= high:
            exit_price = high
        elif not long and bars.low[t] <= low:
            exit_price = low
        else:
            continue
        break
    else:
        exit_price = bars.close[t] - costs.slippage if long else bars.close[t] + costs.slippage
    points = exit_price - entry if long else entry - exit_price
    return (points * costs.point_value - 2 * costs.commission) / (stop * costs.point_value), t


@pytest.mark.parametrize("seed", range(3))
def test_same_as_a_second_implementation(seed):
    bars, brackets = Bars.of(random_table(seed)), random_brackets(seed + 100)
    costs = Costs.of(MES, 1.0)
    out = market.bracket(bars, *brackets, costs, 9)
    # Where the time runs out in a gap, see test_a_time_exit_waits_for_a_bar_that_traded.
    due = np.minimum(out.entry_row + 8, bars.session_end[brackets[0]])
    plain = (out.entry_row < 0) | bars.tradable[due] | (due < out.entry_row + 8)
    assert plain.mean() > 0.8
    expected = [slow_bracket(bars, *one, costs, 9) for one in zip(*brackets, strict=True)]
    np.testing.assert_allclose(out.net_r[plain], np.array([e[0] for e in expected])[plain], rtol=0, atol=1e-12)
    assert out.exit_row[plain].tolist() == np.array([e[1] for e in expected])[plain].tolist()
    assert set(out.exit) >= {NO_FILL, STOP, TARGET, TIME, SESSION, OPEN}


@pytest.mark.parametrize("seed", range(3))
def test_short_is_long_in_a_mirror(seed):
    bars, (rows, side, *rest) = Bars.of(random_table(seed)), random_brackets(seed)
    mirrored = bars._replace(open=9600 - bars.open, high=9600 - bars.low, low=9600 - bars.high, close=9600 - bars.close)
    costs = Costs.of(MES, 1.0)
    seen = market.bracket(bars, rows, side, *rest, costs, 9)
    other = market.bracket(mirrored, rows, -side, *rest, costs, 9)
    for name in ("net_r", "entry_row", "exit_row", "exit"):
        assert np.array_equal(getattr(seen, name), getattr(other, name)), name
    assert np.array_equal(seen.entry_price, 9600 - other.entry_price, equal_nan=True)


@pytest.mark.parametrize("seed", range(3))
def test_costs_separate_net_from_gross(seed):
    bars, brackets = Bars.of(random_table(seed)), random_brackets(seed)
    _, side, stop, *_ = brackets
    free = Costs.of(MES, 0.0)
    gross = market.bracket(bars, *brackets, free, 9)
    filled = gross.entry_row >= 0
    paid = market.bracket(bars, *brackets, free._replace(commission=MES.commission), 9)
    np.testing.assert_array_equal(paid.exit_row, gross.exit_row)
    money = (stop * MES.point_value)[filled]
    np.testing.assert_allclose((gross.net_r - paid.net_r)[filled] * money, 2 * MES.commission, rtol=0, atol=1e-10)
    assert (paid.net_r[~filled] == 0).all()
    # Slippage: every market order one slippage worse than the price in the market, the target's limit order not.
    costs = Costs.of(MES, 1.0)
    out = market.bracket(bars, *brackets, costs, 9)
    slip = side[filled] * costs.slippage
    reason, entry, leave = out.exit[filled], out.entry_price[filled], out.exit_price[filled]
    np.testing.assert_array_equal(entry - slip, bars.open[out.entry_row[filled]])
    closing = np.isin(reason, (TIME, SESSION, OPEN))
    np.testing.assert_array_equal((leave + slip)[closing], bars.close[out.exit_row[filled]][closing])
    points = side[filled] * (leave - entry)
    np.testing.assert_allclose(
        out.net_r[filled] * money, points * MES.point_value - 2 * MES.commission, rtol=0, atol=1e-10
    )


def test_outcomes_broadcast():
    bars = Bars.of(random_table(5))
    costs = Costs.of(MES, 1.0)
    rows, sides, stops = np.array([3, 50, 90]), np.array([1, -1]), np.array([2.0, 4.0, 8.0])
    out = market.bracket(bars, rows[:, None, None], sides[:, None], stops, np.array(2.0), np.array(0), costs, 20)
    assert out.net_r.shape == (3, 2, 3)
    one = market.bracket(bars, rows[1:2], sides[:1], stops[2:], np.array(2.0), np.array(0), costs, 20)
    assert out.net_r[1, 0, 2] == one.net_r[0]


def test_an_outcome_reads_nothing_outside_its_session():
    bars = random_table(2)
    brackets = random_brackets(2)
    costs = Costs.of(MES, 1.0)
    before = market.bracket(Bars.of(bars), *brackets, costs, 9)
    poisoned = bars.copy()
    poisoned.loc[poisoned["session_id"] != bars["session_id"][100], ["open", "high", "low", "close"]] = np.nan
    after = market.bracket(Bars.of(poisoned), *brackets, costs, 9)
    own = bars["session_id"].to_numpy()[brackets[0]] == bars["session_id"][100]
    assert own.sum() > 10
    assert np.array_equal(before.net_r[own], after.net_r[own])


def test_targets_lie_on_the_tick():
    bars = table([*flat(4800, 2), (4800, 4900, 4800, 4900)])
    # 1.5 times 1.25 points is 1.875: the target is 2.00 away (half to even in ticks: 7.5 -> 8).
    assert run(bars, stop=1.25, reward_risk=1.5, contract=MES).exit_price == 4800.25 + 2.0


def test_stop_distance_is_in_whole_ticks_and_at_least_one():
    atr = np.array([10.0, 10.1, 0.01, 0.0])
    assert market.stop_distance(atr, 1.0, 0.25).tolist() == [10.0, 10.0, 0.25, 0.25]
    assert market.stop_distance(np.array(7.3), np.array([0.5, 1.5]), 0.25).tolist() == [3.75, 11.0]


# Break-even


@pytest.mark.parametrize("contract", [SPY, MES])
@pytest.mark.parametrize(("stop", "reward_risk"), [(1.0, 2.0), (4.0, 1.5), (2.5, 4.0)])
def test_break_even_earns_nothing(contract, stop, reward_risk):
    costs = Costs.of(contract, 1.0)
    entry = 400 + contract.slippage_ticks * contract.tick
    win = run(table([*flat(400, 2), (400, 450, 400, 450)]), stop=stop, reward_risk=reward_risk, contract=contract)
    loss_bar = (400, 400, entry - stop, entry - stop)
    loss = run(table([*flat(400, 2), loss_bar]), stop=stop, reward_risk=reward_risk, contract=contract)
    assert (win.exit, loss.exit) == (TARGET, STOP)
    p = costs.break_even(reward_risk, stop)
    assert p * win.net_r + (1 - p) * loss.net_r == pytest.approx(0, abs=1e-9)


def test_break_even_without_costs_is_the_textbook():
    assert Costs.of(MES, 0.0).break_even(2.0, 5.0) == pytest.approx(1 / 3)
    assert np.allclose(Costs.of(MES, 0.0).break_even(np.array([1.0, 3.0]), 5.0), [1 / 2, 1 / 4])


# The account


def test_equity_is_start_plus_the_sum_of_the_trades():
    rng = np.random.default_rng(0)
    shape = (7,)
    pnl = torch.from_numpy(rng.integers(-4000, 4000, (200, *shape)) / 8)
    traded = torch.from_numpy(rng.random((200, *shape)) < 0.6)
    account = Account.new(100_000.0, shape)
    peak = account.equity.clone()
    for one, took in zip(pnl, traded, strict=True):
        account = account.settle(one, took)
        peak = torch.maximum(peak, account.equity)
    assert torch.equal(account.equity, 100_000 + (pnl * traded).sum(0))
    assert torch.equal(account.peak, peak)
    assert torch.equal(account.session_trades, traded.sum(0))


def test_an_account_that_never_trades_does_not_move():
    account = Account.new(100_000.0, (3,))
    after = account.settle(torch.tensor([-5.0, 0.0, 7.0], dtype=torch.float64), torch.zeros(3, dtype=torch.bool))
    assert all(torch.equal(a, b) for a, b in zip(account, after, strict=True))


def test_the_losing_streak():
    account = Account.new(100_000.0, (1,))
    streaks = []
    for pnl, took in [(-1, True), (-1, True), (-1, False), (-1, True), (0, True), (-1, True), (2, True)]:
        account = account.settle(torch.tensor([float(pnl)], dtype=torch.float64), torch.tensor([took]))
        streaks.append(int(account.losing_streak))
    assert streaks == [1, 2, 2, 3, 0, 1, 0]


def test_a_new_session_resets_its_own_counters_only():
    account = Account.new(100_000.0, (2,)).settle(
        torch.tensor([-3000.0, -3000.0], dtype=torch.float64), torch.ones(2, dtype=torch.bool)
    )
    account = account.begin_session(torch.tensor([True, False]))
    assert account.session_start.tolist() == [97_000.0, 100_000.0]
    assert account.session_trades.tolist() == [0, 1]
    assert account.losing_streak.tolist() == [0, 1]
    assert account.peak.tolist() == [100_000.0, 100_000.0]
    assert account.equity.tolist() == [97_000.0, 97_000.0]


@pytest.mark.parametrize(
    ("reason", "field", "inside", "at"),
    [
        ("session loss", "equity", 95_000.01, 95_000.0),
        ("drawdown", "peak", 100_000 / 0.85 - 0.01, 100_000 / 0.85),
        ("losing streak", "losing_streak", 2, 3),
        ("session trades", "session_trades", 9, 10),
    ],
)
def test_each_limit_at_its_boundary(reason, field, inside, at):
    fresh = Account.new(100_000.0, (1,))
    for value, expected in ((inside, []), (at, [reason])):
        account = fresh._replace(**{field: torch.full_like(getattr(fresh, field), value)})
        found = [name for name, hit in account.breaches(LIMITS).items() if bool(hit)]
        assert found == expected, value
    assert bool(account.ruined(LIMITS)) == (reason == "drawdown")


def test_limits_of_the_tests_are_the_defaults():
    assert (LIMITS.max_session_loss, LIMITS.max_drawdown) == (0.05, 0.15)
    assert (LIMITS.max_losing_streak, LIMITS.max_session_trades) == (3, 10)


def test_what_is_observed_of_an_account():
    account = Account(
        *(torch.tensor([x], dtype=torch.float64) for x in (90_000.0, 100_000.0, 92_000.0)),
        torch.tensor([4]),
        torch.tensor([2]),
    )
    seen = account.observe(LIMITS, 100_000.0)
    assert seen.dtype == torch.float32
    assert seen.shape == (1, market.ACCOUNT_FEATURES)
    assert seen[0].tolist() == pytest.approx([-0.1, 0.1 / 0.15, (2 / 92) / 0.05, 0.4, 2 / 3], rel=1e-6)


@pytest.mark.parametrize(
    ("equity", "stop", "units"),
    [
        (100_000.0, 80.0, 5),  # 2000 USD to lose, 400 a unit
        (100_000.0, 80.01, 4),
        (100_000.0, 400.0, 1),
        (100_000.0, 400.01, 0),
        (100_000.0, 1.0, 5),  # the limit of units
        (-100.0, 1.0, 0),
    ],
)
def test_affordable_units(equity, stop, units):
    assert market.affordable_units(equity, stop, MES.point_value, LIMITS) == units


def test_a_limit_cannot_be_left_out():
    with pytest.raises(ValueError, match="max_drawdown"):
        LimitParams(**{k: v for k, v in LIMITS.model_dump().items() if k != "max_drawdown"})
