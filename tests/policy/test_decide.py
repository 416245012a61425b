"""Decisions: the same for the first bars as for all, bare of what comes later, within the limits, and in JSON."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from algospace import consensus
from algospace.data.bars import PRICES
from algospace.policy.decide import decide


@pytest.fixture(scope="module")
def bars(market_bars):
    """40 trading days."""
    return market_bars.iloc[:11_000]


@pytest.fixture(scope="module")
def traded(trading, bars):
    return decide(trading, bars)


@pytest.fixture(scope="module")
def passed(passing, bars):
    return decide(passing, bars)


def records_before(replay, time):
    return [r for r in replay.records if pd.Timestamp(r["time"]) <= time]


def cuts(traded, bars):
    """Ticklish lengths, at and after events, and random ones."""
    rows = [int(np.searchsorted(bars["close_utc"], pd.Timestamp(r["time"]))) for r in traded.records]
    chosen = [rows[i] + 1 for i in (9, 20, 21, 40, len(rows) - 1)]
    filled = traded.simulation.trades.iloc[[3, 10, 20]]["entry_utc"]
    chosen += [int(np.searchsorted(bars["start_utc"], t)) + 1 for t in filled]
    return [300, *chosen, *np.random.default_rng(8).integers(1000, len(bars), 4).tolist()]


def test_the_market_offers_trades_and_refusals(traded, passed):
    decisions = [r["decision"] for r in traded.records]
    assert decisions.count("trade") > 20
    assert decisions.count("refuse") > 10
    assert len(traded.simulation.trades) == decisions.count("trade")
    assert sum(r["decision"] == "refuse" for r in passed.records) > 30


def test_first_bars_give_the_first_records(trading, traded, bars):
    lengths = cuts(traded, bars)
    assert len(lengths) >= 10
    for n in lengths:
        part = decide(trading, bars.iloc[:n])
        assert part.records == records_before(traded, bars["close_utc"].iloc[n - 1]), f"first {n} bars"


def test_first_bars_give_the_first_records_with_holes(trading, gappy_bars):
    gappy_bars = gappy_bars.iloc[:11_000]
    whole = decide(trading, gappy_bars)
    assert any(r["decision"] == "trade" for r in whole.records)
    for n in np.random.default_rng(4).integers(2000, len(gappy_bars), 6):
        part = decide(trading, gappy_bars.iloc[:n])
        assert part.records == records_before(whole, gappy_bars["close_utc"].iloc[n - 1]), f"first {n} bars"


def test_what_comes_after_changes_no_record(trading, traded, bars):
    rng = np.random.default_rng(6)
    for t in rng.integers(4000, len(bars) - 1000, 3):
        poisoned = bars.copy()
        later = np.arange(len(poisoned)) > t
        factor = np.exp(rng.normal(0, 0.3, later.sum()))
        for name in PRICES:
            poisoned.loc[later, name] *= factor
        poisoned.loc[later, "volume"] = 7.0
        found = decide(trading, poisoned)
        now = bars["close_utc"].iloc[t]
        assert records_before(found, now) == records_before(traded, now)
        assert found.records != traded.records


def test_trades_name_the_rows_of_their_bars(trading, market_bars):
    """Counted from the first bar of the table, whenever the account begins and however the bars are cut."""
    bars = market_bars.iloc[:12_000]  # more than a chunk
    found = decide(trading, bars, trade_from=bars["close_utc"].iloc[3000])
    trades = found.simulation.trades
    assert trades["row"].max() > 10_000
    assert bars["close_utc"].iloc[trades["row"]].tolist() == trades["decided_utc"].tolist()
    times = [found.records[k]["time"] for k in trades["event"]]
    assert [moment.isoformat() for moment in trades["decided_utc"]] == times


def test_same_bars_give_the_same_records(trading, traded, bars):
    again = decide(trading, bars)
    assert again.records == traded.records
    pd.testing.assert_frame_equal(again.simulation.trades, traded.simulation.trades, check_exact=True)


def test_every_gate_1_event_has_one_record_in_time_order(traded):
    events = traded.m5[traded.m5["gate1_type"] != 0]
    assert [pd.Timestamp(r["time"]) for r in traded.records] == events["close_utc"].tolist()
    assert [r["synergy"]["type"] for r in traded.records] == events["gate1_type"].tolist()
    assert [r["direction"] for r in traded.records] == ["long" if d > 0 else "short" for d in events["gate1_direction"]]
    assert len({r["id"] for r in traded.records}) == len(traded.records)


def test_records_are_json_without_nan(traded, passed):
    for record in traded.records + passed.records:
        assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_refusals_say_why_and_trades_do_not(traded, passed):
    for record in traded.records + passed.records:
        if record["decision"] == "refuse":
            assert record["reasons"]
            assert all(re.fullmatch(r"[a-z0-9]+: [a-z0-9 -]+", reason) for reason in record["reasons"])
            assert record["units"] == 0
        else:
            assert record["decision"] == "trade"
            assert record["reasons"] == []
            assert record["units"] > 0
            assert record["delay_bars"] in range(5)


def test_event_in_the_warm_up_is_refused(trading, traded, bars):
    """With long windows the first events have too few bars behind them."""
    features = trading.settings.features.model_copy(update={"window_arbitrage": 3000})
    found = decide(trading._replace(settings=trading.settings._replace(features=features)), bars.iloc[:3500])
    early = [r for r in found.records if pd.Timestamp(r["time"]) < bars["close_utc"].iloc[2999]]
    assert early
    for record in early:
        assert record["reasons"] == ["gate1: windows not whole yet"]
        assert "consensus" not in record
    assert any("consensus" in r for r in traded.records[: len(early)])


def test_event_at_the_end_of_a_session_is_refused(trading, traded, bars):
    """The session closes with the event's bar: no bar is left to trade in."""
    taken = next(r for r in traded.records if r["decision"] == "trade" and pd.Timestamp(r["time"]).minute % 30 == 0)
    now = pd.Timestamp(taken["time"])
    early = bars[bars["close_utc"] <= now].copy()
    early.loc[early["session_id"] == early["session_id"].iloc[-1], "session_close_utc"] = now
    last = decide(trading, early).records[-1]
    assert last["id"] == taken["id"]
    assert last["decision"] == "refuse"
    assert last["reasons"] == ["gate1: no bar left in the session"]


def test_prices_of_a_fine_tick_lie_on_it(trading, bars):
    """A 64th has six decimals: what is told must be what can be ordered."""
    settings = trading.settings
    contract = settings.contract.model_copy(update={"tick": 1 / 64})
    found = decide(trading._replace(settings=settings._replace(contract=contract)), bars).records
    proposals = [record["proposal"] for record in found if "proposal" in record]
    assert len(proposals) > 3
    assert all(p[name] % contract.tick == 0 for p in proposals for name in ("stop_distance", "stop", "target"))


def test_proposal_and_trade_agree(traded, settings):
    """Size, stop and target of the record are those of the bracket that was placed."""
    contract, limits = settings.contract, settings.market.limits
    trades = traded.simulation.trades.set_index("event")
    for k, record in enumerate(traded.records):
        if record["decision"] != "trade":
            assert k not in trades.index
            continue
        proposal, trade = record["proposal"], trades.loc[k]
        assert trade["units"] == record["units"] <= limits.max_units
        assert trade["stop_distance"] == proposal["stop_distance"]
        assert proposal["stop_distance"] % contract.tick == 0
        assert abs(proposal["stop_distance"] - proposal["stop_atr"] * proposal["atr"]) <= contract.tick
        assert trade["side"] == (1 if record["direction"] == "long" else -1)
        assert proposal["stop"] == record["price"] - trade["side"] * proposal["stop_distance"]
        reward = (proposal["target"] - record["price"]) * trade["side"]
        assert reward >= limits.min_reward_risk * proposal["stop_distance"]
        assert proposal["risk_usd"] == round(proposal["stop_distance"] * contract.point_value * proposal["units"], 2)
        assert record["consensus"]["probability"] >= record["consensus"]["break_even"]
        assert record["consensus"]["action"] == "with"
        assert record["consensus"]["passes"] == 50


@pytest.mark.parametrize("equity", [3_000.0, 9_000.0])
def test_size_stays_within_the_limit_per_trade(trading, bars, settings, equity):
    account = settings.market.account.model_copy(update={"equity": equity})
    poor = settings._replace(market=settings.market.model_copy(update={"account": account}))
    found = decide(trading._replace(settings=poor), bars)
    curve = found.simulation.equity.set_index("close_utc")["equity"]
    risky = 0
    for record in found.records:
        if "proposal" not in record:
            continue
        one = record["proposal"]["stop_distance"] * settings.contract.point_value
        allowed = curve[pd.Timestamp(record["time"])] * settings.market.limits.max_trade_risk
        if one > allowed:
            assert "risk: one unit exceeds the limit per trade" in record["reasons"]
        if record["decision"] == "trade":
            assert record["units"] * one <= allowed + 1e-9
            risky += record["units"] < record["proposal"]["units"]
    assert risky or any("risk: one unit exceeds the limit per trade" in r["reasons"] for r in found.records)


def limited(policy, **changes):
    market = policy.settings.market
    limits = market.limits.model_copy(update=changes)
    return policy._replace(settings=policy.settings._replace(market=market.model_copy(update={"limits": limits})))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_session_trades": 1}, "limit: session trades"),
        ({"max_losing_streak": 1}, "limit: losing streak"),
        ({"max_session_loss": 0.0001}, "limit: session loss"),
        ({"max_drawdown": 0.001}, "limit: drawdown"),
        ({"min_reward_risk": 5.0}, "risk: reward below the limit"),
    ],
)
def test_limits_refuse(trading, bars, changes, reason):
    found = decide(limited(trading, **changes), bars)
    hit = [r for r in found.records if reason in r["reasons"]]
    assert hit
    assert all(r["decision"] == "refuse" for r in hit)


def test_margin_refuses(trading, bars, settings):
    gate2 = settings.gate2.model_copy(update={"margin": 1.0})
    found = decide(trading._replace(settings=settings._replace(gate2=gate2)), bars)
    assert not [r for r in found.records if r["decision"] == "trade"]
    assert found.simulation.trades.empty
    assert any("confidence: below break-even" in r["reasons"] for r in found.records)


def test_one_trade_at_a_time(traded):
    """An event inside a trade is refused for it, and only such an event is."""
    trades = traded.simulation.trades
    for record in traded.records:
        now = pd.Timestamp(record["time"])
        busy = ((trades["decided_utc"] < now) & (trades["exit_utc"] > now)).any()
        assert ("account: a trade is open" in record["reasons"]) == bool(busy)


def test_trade_from_leaves_the_warm_up_out(trading, traded, passing, passed, bars):
    """The account begins there; what does not depend on it stays the same to the last bit."""
    start = bars["close_utc"].iloc[6000]
    later = [r for r in traded.records if pd.Timestamp(r["time"]) >= start]
    found = decide(trading, bars, trade_from=start)
    assert [r["id"] for r in found.records] == [r["id"] for r in later]
    assert found.simulation.equity["close_utc"].iloc[0] == start
    assert found.simulation.equity["equity"].iloc[0] == trading.settings.market.account.equity
    assert (found.simulation.trades["decided_utc"] >= start).all()
    assert len(found.simulation.trades) > 10
    for a, b in zip(found.records, later, strict=True):
        shared = {"id", "time", "price", "synergy", "direction"}
        if "proposal" in a and "proposal" in b:
            shared |= {"regime", "archetype"}
            bracket = ("entry", "atr", "stop_atr", "stop_at_level", "reward_risk", "stop", "target", "confidence")
            assert {k: a["proposal"][k] for k in bracket} == {k: b["proposal"][k] for k in bracket}
        assert {k: a[k] for k in shared} == {k: b[k] for k in shared}
    if passed.simulation.trades.empty:
        quiet = decide(passing, bars, trade_from=start)
        assert quiet.records == [r for r in passed.records if pd.Timestamp(r["time"]) >= start]


def test_trade_from_after_the_end_decides_nothing(trading, bars):
    found = decide(trading, bars, trade_from=bars["close_utc"].iloc[-1] + pd.Timedelta(minutes=5))
    assert found.records == []
    assert found.simulation.trades.empty


def test_few_bars_give_no_record(trading, bars):
    assert decide(trading, bars.iloc[:4]).records == []


def test_seed_of_the_masks_decides_the_consensus(passing, passed, bars, settings):
    other = decide(passing._replace(settings=settings._replace(seed=43)), bars.iloc[:6000])
    assert other.records != passed.records[: len(other.records)]
    assert consensus.PASSES == 50


def test_a_record_says_what_the_passes_said(passed):
    judged = [r["consensus"] for r in passed.records if "consensus" in r]
    assert judged
    for said in judged:
        for agent, vote in said["votes"].items():
            probabilities = said["probabilities"][agent]
            assert sum(probabilities.values()) == pytest.approx(1, abs=2e-6)
            assert max(probabilities, key=probabilities.get) == vote
        spreads = [*said["agent_confidence_std"].values()]
        spreads += [x for agent in said["probabilities_std"].values() for x in agent.values()]
        band = "none" if max(spreads) < 0.1 else "elevated" if max(spreads) < 0.2 else "high"
        assert said["warning"] == band
