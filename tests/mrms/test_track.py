import numpy as np
import pytest
import torch

from algospace import market, performance
from algospace.mrms.track import ACCOUNT, Track, account_state, account_states, accounts_after

INITIAL = 1000.0


@pytest.fixture
def limits(section):
    return section("market", market.MarketParams).limits.model_copy(update={"max_drawdown": 0.2})


def track(net_r, session=None, unit=10.0):
    r = np.array(net_r, np.float64)
    outcome = np.zeros((len(r), 4), np.float32)
    outcome[:, 2] = r
    ids = np.arange(len(r)) if session is None else np.array(session)
    return Track(np.zeros((len(r), 4), np.float32), outcome, unit * r, ids)


def state_of(given, limits, session=0):
    n = len(given.pnl)
    account = accounts_after(given, np.array([0]), np.array([n]), np.array([session]), INITIAL)
    return dict(zip(ACCOUNT, account_state(given, account, INITIAL, limits).tolist(), strict=True)), account


def test_a_fresh_account(limits):
    found = account_state(Track.empty(), market.Account.new(INITIAL, (1,)), INITIAL, limits)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([1, 0, 0, 0.5, 0.1, 0, 0, 0, 0.5, 0.5])


def test_ten_numbers_by_hand(limits):
    r = [1, -1, 2, -3, 1, 1, -1, 2]
    found, account = state_of(track(r, session=[0, 0, 0, 1, 1, 1, 1, 1]), limits, session=1)
    expected = {
        "balance": 1.02,  # + 2 R of 10 USD
        "drawdown": 0,  # 1020 is the highest again
        "max_drawdown": 30 / 1020 / 0.2,
        "win_rate": 5 / 8,
        "profit_factor": 7 / 5 / 10,
        "sortino": (2 / 8) / np.sqrt((1 + 9 + 1) / 8) / 3,
        "trades": 0.08,
        "session_trades": 5 / 20,
        "win_rate_5": 3 / 5,
        "win_rate_10": 0.5,  # of eight trades there are no last ten
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert float(account.session_start[0]) == 1020.0
    assert int(account.losing_streak[0]) == 0


def test_the_ratios_are_those_of_the_track_record(limits):
    r = np.random.default_rng(0).normal(size=60)
    found, _ = state_of(track(r), limits)
    assert found["sortino"] == pytest.approx(performance.sortino(r, 1.0) / 3, abs=1e-6)
    assert found["profit_factor"] == pytest.approx(performance.profit_factor(r) / 10, abs=1e-6)
    assert found["win_rate"] == pytest.approx(performance.win_rate(r), abs=1e-6)
    equity = INITIAL + 10 * np.r_[0, np.cumsum(r)]
    assert found["max_drawdown"] == pytest.approx(performance.max_drawdown(equity) / 0.2, abs=1e-6)


@pytest.mark.parametrize(("r", "factor", "sortino"), [([1] * 6, 1, 1), ([-1] * 6, 0, -1 / 3), ([0] * 6, 0.1, 0)])
def test_records_without_a_loss_or_a_gain_are_finite(r, factor, sortino, limits):
    found, _ = state_of(track(r), limits)
    assert found["profit_factor"] == pytest.approx(factor)
    assert found["sortino"] == pytest.approx(sortino)


def test_a_stated_account_counts(limits):
    # An account that begins with an older, higher peak: it stands in a drawdown that its trades do not show.
    account = market.Account.new(900.0, (1,))._replace(peak=torch.tensor([1000.0], dtype=torch.float64))
    found = account_state(Track.empty(), account, INITIAL, limits)
    assert found[:3].tolist() == pytest.approx([0.9, 0.5, 0.5])


def test_many_accounts_at_once_are_each_alone(limits):
    rng = np.random.default_rng(1)
    whole = track(rng.normal(size=80), session=np.repeat(np.arange(16), 5))
    first, last = rng.integers(0, 40, 30), rng.integers(40, 81, 30)
    session = rng.integers(0, 17, 30)
    accounts = accounts_after(whole, first, last, session, INITIAL)
    found = account_states(whole, first, last, accounts, INITIAL, limits)
    for i in range(30):
        part = Track(*(array[first[i] : last[i]] for array in whole))
        one = market.Account(*(tensor[i : i + 1] for tensor in accounts))
        assert np.array_equal(account_state(part, one, INITIAL, limits), found[i])


def test_accounts_are_those_of_the_exchange():
    rng = np.random.default_rng(2)
    whole = track(rng.normal(size=40), session=np.sort(rng.integers(0, 12, 40)))
    account, current = market.Account.new(INITIAL, (1,)), -1
    for n in range(40):
        if whole.session_id[n] != current:
            account, current = account.begin_session(torch.tensor([True])), whole.session_id[n]
        account = account.settle(torch.tensor([whole.pnl[n]], dtype=torch.float64), torch.tensor([True]))
        found = accounts_after(whole, np.array([0]), np.array([n + 1]), np.array([current]), INITIAL)
        for name, a, b in zip(market.Account._fields, found, account, strict=True):
            assert torch.equal(a, b), (n, name)
