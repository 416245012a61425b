"""One account, one trade at a time: the money by hand, and what an event may see of it."""

import numpy as np
import pandas as pd
import pytest

from algospace.data.contracts import Contract
from algospace.market import EXITS, OPEN, MarketParams
from algospace.policy.simulation import TRADE_COLUMNS, Order, simulate

X = Contract(symbol="X", tick=0.5, point_value=10.0, commission=1.0, slippage_ticks=1.0, calendar="NYSE")
START = 100_000.0


@pytest.fixture
def params(section):
    return section("market", MarketParams)


def bars(*sessions, cut=0):
    """Sessions of rows (open, high, low, close); ``cut`` rows are missing at the very end. None: a filled bar."""
    rows = []
    for day, prices in enumerate(sessions):
        opens = pd.Timestamp("2022-01-03 14:30Z") + pd.Timedelta(days=day)
        close = opens + pd.Timedelta(minutes=5 * len(prices))
        for i, price in enumerate(prices):
            start = opens + pd.Timedelta(minutes=5 * i)
            o, h, l, c = price or [rows[-1]["close"]] * 4
            rows.append(
                {
                    "start_utc": start, "close_utc": start + pd.Timedelta(minutes=5), "session_id": 20220103 + day,
                    "session_close_utc": close, "open": o, "high": h, "low": l, "close": c,
                    "is_synthetic": price is None,
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.iloc[: len(table) - cut]


def flat(n, price=100.0):
    return [(price, price + 0.25, price - 0.25, price)] * n


def always(order):
    return lambda k, account, track, is_open: order


def run(table, rows, choose, params, first_row=0):
    return simulate(table, np.asarray(rows), choose, X, params, first_row)


def random_bars(seed, sessions=4, length=40, holes=0.0):
    rng = np.random.default_rng(seed)
    price, days = 100.0, []
    for _ in range(sessions):
        day = []
        for i in range(length):
            if i and rng.random() < holes:
                day.append(None)
                continue
            o, c = price + rng.choice([-0.5, 0.0, 0.5]), price + rng.integers(-3, 4) * 0.5
            day.append((o, max(o, c) + rng.integers(0, 3) * 0.5, min(o, c) - rng.integers(0, 3) * 0.5, c))
            price = c
        days.append(day)
    return bars(*days)


def test_equity_is_marked_at_each_close(params):
    """Long 2 units: in at 100.5 (one tick worse), target 4 points on, 1 USD commission a unit and side."""
    day = [*flat(1), (100, 101, 99.5, 101), (101, 103.5, 100.5, 103), (103, 105, 102, 104), *flat(2)]
    found = run(bars(day), [0], always(Order(1, 2.0, 2.0, 2, 0, 1.0, 0.5)), params)
    money = 2 * 10.0
    marks = [0.0, (101 - 100.5) * money - 2, (103 - 100.5) * money - 2, 4 * money - 4, 4 * money - 4, 4 * money - 4]
    assert found.equity["equity"].tolist() == [START + x for x in marks]
    (trade,) = found.trades.to_dict("records")
    assert trade["entry"] == 100.5
    assert trade["exit"] == 104.5
    assert trade["exit_reason"] == "target"
    assert trade["pnl"] == 76.0
    assert trade["costs"] == 4.0
    assert trade["bars"] == 3
    assert trade["net_r"] == pytest.approx(76.0 / (2.0 * money))
    assert trade["decided_utc"] == pd.Timestamp("2022-01-03 14:35Z")
    assert trade["entry_utc"] == pd.Timestamp("2022-01-03 14:35Z")
    assert trade["exit_utc"] == pd.Timestamp("2022-01-03 14:50Z")
    assert list(found.trades.columns) == list(TRADE_COLUMNS)


def test_short_is_marked_the_other_way(params):
    day = [*flat(1), (100, 100.5, 98.5, 99), (99, 104, 99, 103), *flat(1)]
    found = run(bars(day), [0], always(Order(-1, 2.0, 3.0, 1, 0, 1.0, 0.5)), params)
    # in at 99.5, stopped at 101.5 and one tick worse
    assert found.equity["equity"].tolist() == [START, START + 5 - 1, START - 25 - 2, START - 25 - 2]
    assert found.trades["exit_reason"].tolist() == ["stop"]


def test_delay_waits(params):
    found = run(bars(flat(8)), [0], always(Order(1, 2.0, 2.0, 1, 3, 1.0, 0.5)), params)
    assert found.trades["entry_utc"].tolist() == [pd.Timestamp("2022-01-03 14:50Z")]
    assert found.equity["equity"].tolist()[:4] == [START] * 4


def test_trade_that_is_still_open_is_marked_and_not_settled(params):
    table = bars(flat(10), cut=3)
    seen = []

    def choose(k, account, track, is_open):
        seen.append((float(account.equity[0]), is_open))
        return Order(1, 2.0, 2.0, 1, 0, 1.0, 0.5)

    found = run(table, [0, 5, 6], choose, params)
    assert found.trades["exit_reason"].tolist() == [EXITS[OPEN]]
    assert found.equity["equity"].iloc[-1] == START - 5 - 1  # half the costs: the exit's are not due yet
    assert seen == [(START, False), (START, True), (START, True)]


def test_order_given_while_busy_is_not_placed(params):
    seen = []

    def choose(k, account, track, is_open):
        seen.append(is_open)
        return Order(1, 2.0, 2.0, 1, 0, 1.0, 0.5)

    found = run(bars(flat(10)), range(8), choose, params)
    assert seen == [False] + [True] * 7
    assert found.trades["event"].tolist() == [0]


def test_order_none_is_no_trade(params):
    found = run(bars(flat(5)), [0, 1], always(None), params)
    assert found.trades.empty
    assert list(found.trades.columns) == list(TRADE_COLUMNS)
    assert found.equity["equity"].tolist() == [START] * 5


def test_account_is_free_at_the_close_of_the_exit_bar(params):
    """The target is reached in the bar that closes with the second event: the result is known, a new order goes in."""
    day = [*flat(1), (100, 106, 99.5, 105), *flat(4, 105)]
    seen = []

    def choose(k, account, track, is_open):
        seen.append((round(float(account.equity[0]), 9), int(account.session_trades[0]), is_open))
        return Order(1, 2.0, 2.0, 1, 0, 1.0, 0.5)

    found = run(bars(day), [0, 1], choose, params)
    assert seen == [(START, 0, False), (START + 38.0, 1, False)]
    assert len(found.trades) == 2


def test_session_counters_begin_anew(params):
    losing = [*flat(1), (100, 100.25, 90, 91), *flat(3, 91)]
    seen = []

    def choose(k, account, track, is_open):
        start, trades, streak = (
            float(x[0]) for x in (account.session_start, account.session_trades, account.losing_streak)
        )
        seen.append((start, trades, streak))
        return Order(1, 2.0, 2.0, 1, 0, 1.0, 0.5) if k != 1 else None

    found = run(bars(losing, flat(6, 91)), [0, 2, 5, 6], choose, params)
    lost = found.trades["pnl"].iloc[0]
    assert lost < 0
    assert seen == [(START, 0, 0), (START, 1, 1), (START + lost, 0, 0), (START + lost, 0, 0)]


def test_no_fill_leaves_the_account_alone(params):
    found = run(bars(flat(4), flat(4)), [3], always(Order(1, 2.0, 2.0, 1, 0, 1.0, 0.5)), params)
    assert found.trades.empty
    assert (found.equity["equity"] == START).all()


def test_curve_begins_at_the_first_row(params):
    table = bars(flat(6), flat(6))
    found = run(table, [7], always(Order(1, 2.0, 2.0, 1, 0, 1.0, 0.5)), params, first_row=6)
    assert found.equity["close_utc"].tolist() == table["close_utc"].iloc[6:].tolist()
    assert found.equity["equity"].iloc[:2].tolist() == [START, START]
    assert found.trades["event"].tolist() == [0]


def random_orders(seed, every):
    rng = np.random.default_rng(seed)
    table = {}

    def order(k):
        if k not in table:
            table[k] = Order(
                int(rng.choice([-1, 1])), float(rng.integers(1, 5)) * 0.5, float(rng.choice([1.0, 1.5, 3.0])),
                int(rng.integers(1, 4)), int(rng.integers(0, 5)), 1.5, 0.5,
            )  # fmt: skip
        return table[k]

    return [order(k) for k in range(500)]


@pytest.mark.parametrize("seed", range(8))
def test_money_adds_up_and_trades_never_overlap(params, seed):
    """Whatever the market: the last equity is the start plus every P&L, and one trade ends before the next begins."""
    table = random_bars(seed, holes=0.1)
    orders = random_orders(seed, 3)
    found = run(table, range(0, len(table), 2), lambda k, account, track, is_open: orders[k], params)
    trades = found.trades
    assert len(trades) > 5
    assert not (trades["exit_reason"] == EXITS[OPEN]).any()
    assert found.equity["equity"].iloc[-1] == pytest.approx(START + trades["pnl"].sum(), abs=1e-6)
    assert (trades["entry_utc"].to_numpy()[1:] >= trades["exit_utc"].to_numpy()[:-1]).all()
    assert (trades["decided_utc"].to_numpy()[1:] >= trades["exit_utc"].to_numpy()[:-1]).all()
    assert (trades["entry_utc"] >= trades["decided_utc"]).all()
    steps = found.equity["equity"].diff().fillna(0.0).to_numpy()
    held = np.zeros(len(table), dtype=bool)
    for trade in trades.itertuples():
        held |= ((table["start_utc"] >= trade.entry_utc) & (table["close_utc"] <= trade.exit_utc)).to_numpy()
    assert (steps[~held] == 0).all()


def what_events_see(table, rows, orders, params):
    seen = []

    def choose(k, account, track, is_open):
        seen.append((k, *(float(part[0]) for part in account), *(part.tolist() for part in track), is_open))
        return orders[k]

    run(table, rows, choose, params)
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_events_see_the_past_only(params, seed):
    """What an event sees of the account does not depend on the bars after it: events six bars apart or more."""
    table, orders = random_bars(seed), random_orders(seed, 6)
    rows = np.arange(0, len(table), 7)
    whole = what_events_see(table, rows, orders, params)
    for n in range(1, len(table) + 1):
        inside = rows[rows < n]
        assert what_events_see(table.iloc[:n], inside, orders, params) == whole[: len(inside)], f"first {n} bars"


@pytest.mark.parametrize("seed", range(5))
def test_events_see_the_past_only_while_an_order_waits(params, seed):
    """An order that waits for its bar makes the account as busy as a trade: whether it fills is not known yet."""
    table, orders = random_bars(seed, holes=0.2), random_orders(seed, 6)
    rows = np.arange(0, len(table), 2)
    whole = what_events_see(table, rows, orders, params)
    for n in range(1, len(table) + 1):
        inside = rows[rows < n]
        assert what_events_see(table.iloc[:n], inside, orders, params) == whole[: len(inside)], f"first {n} bars"


def test_trade_that_the_missing_end_of_a_session_closes_is_not_known_to_be_closed(params):
    """The session's last bar is missing, which only the next session tells: until then the trade is open."""
    table = bars(flat(10), flat(10))
    table = table.drop(index=9).reset_index(drop=True)
    orders = [Order(1, 2.0, 2.0, 1, 0, 1.0, 0.5)] * 3
    rows = np.array([2, 8, 12])
    whole = what_events_see(table, rows, orders, params)
    assert what_events_see(table.iloc[:9], rows[:2], orders, params) == whole[:2]


@pytest.mark.parametrize("seed", range(3))
def test_equity_of_the_first_bars_is_that_of_all(params, seed):
    table, orders = random_bars(seed), random_orders(seed, 7)
    rows = np.arange(0, len(table), 7)
    whole = run(table, rows, lambda k, account, track, is_open: orders[k], params).equity
    for n in range(1, len(table) + 1, 3):
        part = run(table.iloc[:n], rows[rows < n], lambda k, account, track, is_open: orders[k], params).equity
        np.testing.assert_array_equal(part["equity"], whole["equity"].iloc[:n])
