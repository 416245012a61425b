"""Bar by bar the decisions are those of the whole table, to the last bit, and a bad bar changes nothing."""

import copy
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from algospace.data.bars import VALUES
from algospace.errors import InputError
from algospace.policy.account import AccountState
from algospace.policy.decide import decide
from algospace.policy.stream import Bar, Stream

LENGTH, HISTORY = 5_000, 4_000


def traded(bars: pd.DataFrame) -> list[Bar]:
    """The bars that a feed would deliver: none that only fills a hole."""
    real = bars[~bars["is_synthetic"]]
    columns = zip(*(real[name] for name in ("start_utc", *VALUES, "contract_id")), strict=True)
    return [Bar(*row) for row in columns]


@pytest.fixture(scope="module")
def clean(market_bars):
    return market_bars.iloc[:LENGTH]


@pytest.fixture(scope="module")
def holes(gappy_bars):
    return gappy_bars.iloc[:LENGTH]


@pytest.fixture(scope="module", params=["clean", "holes"])
def bars(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def whole(trading, bars):
    return decide(trading, bars)


def later(records, bars, row):
    return [r for r in records if pd.Timestamp(r["time"]) > bars["close_utc"].iloc[row - 1]]


def test_bar_by_bar_is_batch(trading, holes):
    """Several sessions, holes inside them and at their ends, trades and refusals."""
    stream, whole = Stream(trading), decide(trading, holes)
    found = [stream.update(bar) for bar in traded(holes)]
    assert [r for r in found if r is not None] == whole.records
    decisions = [r["decision"] for r in whole.records]
    assert decisions.count("trade") > 3
    assert decisions.count("refuse") > 1
    closed = whole.simulation.trades[whole.simulation.trades["exit_reason"] != "still open"]
    assert [trade.pnl for trade in stream.account.trades] == closed["pnl"].tolist()


def test_after_a_warm_up_in_batch(trading, bars, whole):
    stream = Stream(trading)
    records = stream.feed(bars.iloc[:HISTORY])
    records += [r for bar in traded(bars.iloc[HISTORY:]) if (r := stream.update(bar))]
    assert records == whole.records


def test_any_chunks(trading, bars, whole):
    rng = np.random.default_rng(1)
    for _ in range(3):
        cuts = [0, *sorted(rng.integers(1, len(bars), 12).tolist()), len(bars)]
        stream = Stream(trading)
        assert [r for a, b in pairwise(cuts) for r in stream.feed(bars.iloc[a:b])] == whole.records


def test_bars_and_chunks_in_turn(trading, bars, whole):
    stream, records = Stream(trading), []
    for a, b in pairwise([0, 3000, 3050, 4000, 4100, LENGTH]):
        if b - a > 100:
            records += stream.feed(bars.iloc[a:b])
        else:
            records += [r for bar in traded(bars.iloc[a:b]) if (r := stream.update(bar))]
    assert records == whole.records


def test_what_comes_later_changes_nothing(trading, clean):
    """Two feeds that part after the second event of those that follow: up to there they decide alike, bit by bit."""
    one, other = Stream(trading), Stream(trading)
    one.feed(clean.iloc[:HISTORY])
    following = traded(clean.iloc[HISTORY:])
    moved = [bar._replace(**{name: getattr(bar, name) * 1.01 for name in VALUES}) for bar in following]
    found = [one.update(bar) for bar in following]
    at = [k for k, record in enumerate(found) if record is not None]
    assert len(at) > 2
    other.feed(clean.iloc[:HISTORY])
    again = [other.update(bar) for bar in [*following[: at[1] + 1], *moved[at[1] + 1 :]]]
    assert again[: at[1] + 1] == found[: at[1] + 1]
    assert again[at[1] + 1 :] != found[at[1] + 1 :]


def test_another_stream_goes_on_from_the_account(trading, bars, whole):
    """Stopped at any bar, an order waiting or a trade open: the account's JSON is all it takes beside the bars."""
    orders = whole.simulation.trades
    rows = [int(np.searchsorted(bars["close_utc"], orders["decided_utc"].iloc[k])) + n for k in (1, 3) for n in (1, 7)]
    seen = set()
    for row in [*rows, 4321]:
        stream = Stream(trading)
        stream.feed(bars.iloc[:row])
        text = stream.account.model_dump_json()
        account = AccountState.model_validate_json(text, strict=True)
        assert account == stream.account
        seen.add((account.working is not None, account.working is not None and account.working.entry is not None))
        again = Stream(trading, account)
        assert again.feed(bars) == later(whole.records, bars, row)
        assert decide(trading, bars, account=account).records == later(whole.records, bars, row)
    assert (True, True) in seen


def test_a_trade_left_open_at_the_end_of_a_session_goes_on_from_the_account(trading, bars, whole):
    """Stopped at the session's last bar: the trade is left at that bar's close, which the account remembers."""
    trades = whole.simulation.trades
    left = trades[trades["exit_reason"] == "session end"]
    assert len(left)
    for exit_utc in left["exit_utc"]:
        row = int(np.searchsorted(bars["close_utc"], exit_utc)) + 1
        stream, undisturbed = Stream(trading), Stream(trading)
        stream.feed(bars.iloc[:row])
        account = AccountState.model_validate_json(stream.account.model_dump_json(), strict=True)
        assert account.working is not None
        again = Stream(trading, account)
        assert again.feed(bars) == later(whole.records, bars, row)
        undisturbed.feed(bars)
        assert again.account == undisturbed.account
        found = decide(trading, bars, account=account)
        assert found.records == later(whole.records, bars, row)
        assert (found.simulation.equity["equity"].iloc[: row - 1] == account.equity).all()


def test_memory_does_not_grow(trading, market_bars):
    """What a stream holds after 40 days is what it held after 25, but for the account's trades."""

    def held(stream):
        history, features = stream._decider._history._kept, stream._decider._features
        sizes = [part.nbytes for part in history]
        lvn = features._m30._lvn._window
        return sizes, [len(column) <= 21 * 46 for column in lvn]

    stream = Stream(trading)
    stream.feed(market_bars.iloc[:7000])
    before = held(stream)
    stream.feed(market_bars.iloc[7000:11_000])
    after = held(stream)
    assert abs(sum(after[0]) - sum(before[0])) < 2000
    assert all(after[1])


BAD = {
    "time going backwards": ({"start": pd.Timedelta("-5min")}, "expected a bar after"),
    "the same bar again": ({"start": pd.Timedelta(0)}, "expected a bar after"),
    "off the grid": ({"start": pd.Timedelta("7min")}, "mark of 5 minutes"),
    "off by a millisecond": ({"start": pd.Timedelta("300001ms")}, "mark of 5 minutes"),
    "outside every session": ({"start": pd.Timedelta("10min")}, "inside a session"),
    "NaN": ({"close": np.nan}, "close: expected a finite"),
    "infinite": ({"high": np.inf}, "high: expected a finite"),
    "no price": ({"low": 0.0}, "low: expected a finite"),
    "negative volume": ({"volume": -1.0}, "volume: expected a finite"),
    "high below low": ({"high": 0.9, "low": 1.1}, "low <= open, close <= high"),
    "close above high": ({"close": 1.5}, "low <= open, close <= high"),
    "a wrong price": ({"open": 3.0, "high": 3.0, "low": 3.0, "close": 3.0}, "within a factor"),
    "another contract inside a session": ({"contract": 1}, "contract"),
    "a contract of before": ({"contract": -1}, "contract"),
    "no zone": ({"start": None}, "time zone"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_bar_is_refused_and_changes_nothing(trading, clean, name):
    changes, words = BAD[name]
    stream = Stream(trading)
    row = 1000 if name != "outside every session" else 1104  # after a session's last bar
    stream.feed(clean.iloc[:row])
    *_, last = traded(clean.iloc[:row])
    (following,) = traded(clean.iloc[row : row + 1])
    changed = following
    for key, value in changes.items():
        if key == "start":
            new = last.start + value if value is not None else last.start.tz_localize(None)
        else:
            new = value if key in ("contract", "volume") or not np.isfinite(value) else getattr(following, key) * value
        changed = changed._replace(**{key: new})
    before = copy.deepcopy(stream)
    with pytest.raises(InputError, match=words) as caught:
        stream.update(changed)
    assert "\n" not in str(caught.value)
    after = [[one.update(bar) for bar in traded(clean.iloc[row : row + 100])] for one in (stream, before)]
    assert after[0] == after[1]
    assert stream.account == before.account


def test_bars_of_the_past_are_not_fed(trading, clean):
    stream = Stream(trading)
    stream.feed(clean.iloc[:100])
    with pytest.raises(InputError, match="expected bars after"):
        stream.feed(clean.iloc[50:200])
    assert stream.feed(clean.iloc[:0]) == []


def test_a_roll_between_sessions_passes(trading, clean):
    stream = Stream(trading)
    first = int(np.flatnonzero(np.diff(clean["session_id"].to_numpy()))[0]) + 1
    for bar in traded(clean.iloc[:first]):
        stream.update(bar)
    (bar,) = traded(clean.iloc[first : first + 1])
    doubled = bar._replace(contract=1, **{name: 3 * getattr(bar, name) for name in VALUES})
    assert stream.update(doubled) is None


def test_bar_by_bar_is_batch_through_rolls(trading, holes):
    """Two rolls between sessions, each with a gap of prices."""
    days = holes["session_id"].unique()
    rolls = np.searchsorted([days[len(days) // 3], days[2 * len(days) // 3]], holes["session_id"], side="right")
    gap = 40.0 * rolls
    prices = {name: holes[name] + gap for name in ("open", "high", "low", "close")}
    rolled = holes.assign(contract_id=rolls.astype(np.int32), **prices)
    whole, stream = decide(trading, rolled), Stream(trading)
    assert [r for bar in traded(rolled) if (r := stream.update(bar))] == whole.records
    later = pd.to_datetime([r["time"] for r in whole.records], utc=True) > rolled["close_utc"][rolls == 2].iloc[0]
    assert later.sum() > 3


def test_a_table_after_a_hole_is_fed_as_if_it_had_none(trading, holes):
    """What is missing between the last bar and the table is filled, as `update` does it."""
    whole = decide(trading, holes)
    filled = np.flatnonzero(holes["is_synthetic"].to_numpy()[1:] & ~holes["is_synthetic"].to_numpy()[:-1]) + 1
    inside = [int(row) for row in filled if holes["session_id"].iloc[row] == holes["session_id"].iloc[row - 1]]
    assert len(inside) > 3
    for row in inside[1:4]:
        rest = holes.iloc[row:]
        rest = rest.iloc[int((~rest["is_synthetic"]).to_numpy().argmax()) :]
        stream = Stream(trading)
        assert stream.feed(holes.iloc[:row]) + stream.feed(rest) == whole.records


def test_tables_that_cannot_follow_are_refused_and_change_nothing(trading, clean):
    stream = Stream(trading)
    stream.feed(clean.iloc[:1000].assign(contract_id=np.int32(3)))
    rest = clean.iloc[1000:1300]
    with pytest.raises(InputError, match="contract: expected 3 or a later one, found 0"):
        stream.feed(rest)
    with pytest.raises(InputError, match="contract: expected that of its session, 3, found 4"):
        stream.feed(rest.assign(contract_id=np.int32(4)))
    with pytest.raises(InputError, match="expected a bar after"):
        stream.feed(rest.iloc[[0, 2, 1]].assign(contract_id=np.int32(3)))
    whole = decide(trading, clean.iloc[:1300].assign(contract_id=np.int32(3)))
    fed = stream.feed(rest.assign(contract_id=np.int32(3)))
    assert fed == later(whole.records, clean, 1000)


def test_contracts_may_be_left_out(trading, clean):
    """Data with a hole that two rolls lie in."""
    stream = Stream(trading)
    first = int(np.flatnonzero(np.diff(clean["session_id"].to_numpy()))[0]) + 1
    stream.feed(clean.iloc[:first])
    (bar,) = traded(clean.iloc[first : first + 1])
    assert stream.update(bar._replace(contract=2)) is None


def test_an_error_inside_a_bar_ends_the_stream(trading, clean, monkeypatch):
    stream = Stream(trading)
    stream.feed(clean.iloc[:1000])
    first, second = traded(clean.iloc[1000:1002])
    with monkeypatch.context() as broken:
        broken.setattr(stream._decider, "update", lambda bars: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stream.update(first)
    for call in (lambda: stream.update(second), lambda: stream.feed(clean.iloc[1001:1100])):
        with pytest.raises(InputError, match="found one that an error has ended inside the bar"):
            call()
