"""An account's file says what is wrong with it, in one line that names the key."""

import json

import pytest

from algospace.errors import InputError
from algospace.policy import account
from algospace.policy.decide import decide
from algospace.policy.stream import Stream

TRADE = {
    "units": 2, "stop_atr": 1.5, "reward_risk": 2.0, "confidence": 0.5, "exit": "target", "net_r": 1.9, "bars": 7,
    "pnl": 150.0, "session_id": 20220110,
}  # fmt: skip
WORKING = {
    "direction": "long", "units": 1, "stop_distance": 5.0, "reward_risk": 2.0, "stop_atr": 1.0, "confidence": 0.5,
    "wait": 0, "entry": 4800.25, "held": 3,
}  # fmt: skip
WHOLE = {
    "time": "2022-01-11T15:00:00+00:00", "close": 4805.5, "session_close": "2022-01-11T22:00:00+00:00",
    "equity": 90_000.0, "peak": 101_000.0, "session_id": 20220111,
    "session_start": 91_000.0, "session_trades": 2, "losing_streak": 1, "trades": [TRADE], "working": WORKING,
}  # fmt: skip


def written(tmp_path, content):
    path = tmp_path / "account.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "content", [WHOLE, {"equity": 50_000, "peak": 50_000}, WHOLE | {"working": None, "time": None}]
)
def test_a_file_is_read(tmp_path, content):
    found = account.read(written(tmp_path, content))
    assert found.equity == content["equity"]
    assert account.AccountState.model_validate_json(found.model_dump_json(), strict=True) == found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "invalid JSON"),
        ("[]", "should be an object, found []"),
        ({"peak": 1.0}, "equity: field required"),
        (WHOLE | {"session_trades": 2**31}, "session_trades: input should be less than or equal to 2147483647"),
        (WHOLE | {"working": WORKING | {"units": 10**25}}, "working.units: "),
        (WHOLE | {"equity": "1"}, "equity: input should be a valid number, found '1'"),
        ('{"equity": NaN, "peak": 1}', "equity: "),
        (WHOLE | {"peak": 80_000.0}, "expected a peak of at least the equity"),
        (WHOLE | {"unknown": 1}, "unknown: extra inputs"),
        (WHOLE | {"time": "noon"}, "time: expected an ISO time with its zone, found 'noon'"),
        (WHOLE | {"time": "2022-01-11T15:00:00"}, "time: expected an ISO time with its zone"),
        (WHOLE | {"session_id": None}, "session_id that the working order belongs to"),
        (WHOLE | {"close": None}, "expected the close of the last bar of an open trade, found none"),
        (WHOLE | {"session_close": None}, "expected the session_close of the last bar of an open trade"),
        (WHOLE | {"losing_streak": -1}, "losing_streak: "),
        (WHOLE | {"trades": [TRADE | {"exit": "sold"}]}, "trades.0.exit: "),
        (WHOLE | {"working": WORKING | {"held": 0}}, "working: expected held of at least 1 with an entry"),
        (WHOLE | {"working": WORKING | {"direction": "up"}}, "working.direction: "),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, content, words):
    path = written(tmp_path, content)
    with pytest.raises(InputError) as caught:
        account.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("make", ["missing", "directory"])
def test_no_file_is_refused(tmp_path, make):
    path = tmp_path / "account.json"
    if make == "directory":
        path.mkdir()
    with pytest.raises(InputError, match="expected the JSON file of an account"):
        account.read(path)


def test_the_account_decides_what_may_be_risked(trading, market_bars):
    """A poor account takes fewer units, one near its drawdown limit none; nothing before its time is decided."""
    bars = market_bars.iloc[:6000]
    whole = decide(trading, bars).records
    time = bars["close_utc"].iloc[4000]

    def of(**changes):
        state = account.AccountState.model_validate(
            {"equity": 100_000.0, "peak": 100_000.0, "time": time.isoformat()} | changes
        )
        return decide(trading, bars, account=state).records

    later = [r["id"] for r in whole if r["time"] > time.isoformat()]
    assert len(later) > 3
    rich, poor, ruined = of(), of(equity=4_000.0, peak=4_000.0), of(peak=200_000.0)
    assert [r["id"] for r in rich] == [r["id"] for r in poor] == [r["id"] for r in ruined] == later
    assert any(a["units"] > b["units"] for a, b in zip(rich, poor, strict=True))
    asked = [r for r in ruined if "checks" in r]
    assert asked
    assert all("limit: drawdown" in r["reasons"] for r in asked)


@pytest.mark.parametrize("equity", [0.0, -6_500.0])
def test_an_account_that_owes_money_trades_no_more(trading, market_bars, equity):
    bars = market_bars.iloc[:6000]
    time = bars["close_utc"].iloc[4000].isoformat()
    state = account.AccountState(equity=equity, peak=1_000.0, time=time)
    records = decide(trading, bars, account=state).records
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    asked = [record for record in records if "checks" in record]
    assert asked
    assert all("limit: drawdown" in record["reasons"] for record in asked)
    stream = Stream(trading, state)
    stream.feed(bars)
    assert account.AccountState.model_validate_json(stream.account.model_dump_json(), strict=True) == stream.account


def test_what_was_withdrawn_does_not_break_the_record(trading, market_bars):
    """The account's money before its trades comes to nothing: what they lost of it cannot be told."""
    trades = [TRADE | {"pnl": pnl} for pnl in (-100.0, 1_100.0)]
    state = account.AccountState.model_validate({"equity": 1_000.0, "peak": 2_000.0, "trades": trades})
    assert decide(trading, market_bars.iloc[:5000], account=state).records


def test_any_iso_time_is_read(trading, market_bars):
    bars = market_bars.iloc[:5000]
    weeks = bars["close_utc"].iloc[4000].strftime("%G-W%V-%uT%H:%M+00:00")
    days = bars["close_utc"].iloc[4000].isoformat()
    of_weeks, of_days = (
        decide(trading, bars, account=account.AccountState(equity=1e5, peak=1e5, time=time)).records
        for time in (weeks, days)
    )
    assert of_weeks == of_days
