"""Monitoring: the same market is not called drifted, another one is, and the reference is JSON."""

import json

import numpy as np
import pandas as pd
import pytest

from algospace.errors import InputError
from algospace.policy import monitor
from algospace.policy.decide import decide

HALF = 5000


@pytest.fixture(scope="module")
def seen(passing, market_bars):
    return monitor.see(passing, market_bars.iloc[:HALF])


@pytest.fixture(scope="module")
def train(seen):
    return monitor.reference(seen)


def test_what_is_seen_is_every_input_and_every_judged_event(seen, train):
    assert len(seen.inputs) == 8 + 12 + 7 + 9
    assert {len(values) for values in seen.inputs.values()} == {next(iter(map(len, seen.inputs.values())))}
    assert train["judged"] == len(seen.records) > 0
    assert all("consensus" in record for record in seen.records)
    assert json.loads(json.dumps(train, allow_nan=False)) == train


def test_train_beside_itself_has_not_drifted(seen, train):
    findings = monitor.compare(train, seen)
    assert [f.kind for f in findings][:36] == ["input"] * 36
    assert {f.kind for f in findings} == {"input", "confidence", "refusal"}
    assert not any(f.drift.drifted for f in findings)
    assert max(f.drift.psi for f in findings) < 1e-9


def test_what_moved_is_named(seen, train):
    moved = seen._replace(inputs=seen.inputs | {"volume_ratio": seen.inputs["volume_ratio"] + 10})
    assert [f.name for f in monitor.compare(train, moved) if f.drift.drifted] == ["volume_ratio"]
    sure = [record | {"consensus": record["consensus"] | {"probability": 0.99}} for record in seen.records]
    assert "calibrated probability" in drifted(train, seen._replace(records=sure))
    strict = [record | {"decision": "refuse", "reasons": ["a new limit"]} for record in 3 * seen.records]
    assert "a new limit" in drifted(train, seen._replace(records=strict))


def drifted(train, seen):
    return [f.name for f in monitor.compare(train, seen) if f.drift.drifted]


def test_events_that_were_not_judged_say_nothing(passing, market_bars, seen, monkeypatch):
    late = {"decision": "refuse", "reasons": ["gate1: no bar left in the session"]}
    bars = market_bars.iloc[:2000]
    replay = decide(passing, bars)._replace(records=[late, seen.records[0], late])
    monkeypatch.setattr(monitor, "decide", lambda *_: replay)
    assert monitor.see(passing, bars).records == seen.records[:1]


@pytest.mark.parametrize(("rows", "late", "words"), [(HALF, True, "expected bars from"), (4, False, "warm-up")])
def test_where_nothing_can_be_judged_it_says_so(passing, market_bars, rows, late, words):
    bars = market_bars.iloc[:rows]
    with pytest.raises(InputError, match=words):
        monitor.see(passing, bars, bars["close_utc"].iloc[-1] + pd.Timedelta("1s") if late else None)


def test_bars_before_the_start_warm_up(passing, market_bars, seen):
    start = market_bars["close_utc"].iloc[HALF // 2]
    later = monitor.see(passing, market_bars.iloc[:HALF], start)
    for name, values in later.inputs.items():
        np.testing.assert_array_equal(values, seen.inputs[name][-len(values) :])
    assert all(record["time"] >= start.isoformat() for record in later.records)
