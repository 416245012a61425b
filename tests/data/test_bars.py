from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algospace.data.bars import (
    SCHEMA,
    Resampler,
    SegmentStream,
    assign_sessions,
    columns,
    fill_gaps,
    frame,
    heiken_ashi,
    resample,
)  # fmt: skip

FIELDS = ["open", "high", "low", "close", "volume"]


@pytest.fixture(scope="module")
def holed(day):
    """Four days, one of them a half day, with a third of the bars missing."""
    raw = day("2018-11-20", "2018-11-26")
    gone = np.random.default_rng(1).random(len(raw)) < 0.35
    gone[30:43] = True  # a whole 30-minute bar and more
    return raw[~gone].reset_index(drop=True)


@pytest.fixture(scope="module")
def filled(holed):
    return fill_gaps(assign_sessions(holed, "NYSE", 5), "NYSE", 5)


def test_sessions_are_assigned_by_trading_date(day):
    bars = assign_sessions(day("2022-01-07", "2022-01-10", "CME Globex Equity"), "CME Globex Equity", 5)
    assert {name: str(kind) for name, kind in bars.dtypes.items()} == SCHEMA
    sunday = bars[bars["start_utc"] >= pd.Timestamp("2022-01-09", tz="UTC")]
    assert sunday["session_id"].unique().tolist() == [20220110]
    assert len(sunday) == 276


def test_gaps_are_filled_inside_sessions_only(day):
    raw = day("2018-11-21", "2018-11-26")  # 78, 42 (half day), 78 bars
    gone = [0, 1, 10, 11, 77, 78, 100, 119, 120, 197]  # both ends of each session, and the middle of two
    bars = fill_gaps(assign_sessions(raw.drop(gone), "NYSE", 5), "NYSE", 5)
    assert {name: str(kind) for name, kind in bars.dtypes.items()} == SCHEMA
    assert bars["start_utc"].tolist() == raw["start_utc"].drop([0, 1, 77, 78, 119, 120, 197]).tolist()
    synthetic = bars[bars["is_synthetic"]]
    assert synthetic["start_utc"].tolist() == raw["start_utc"][[10, 11, 100]].tolist()
    assert (raw["close"][[9, 9, 99]].to_numpy() == synthetic[["open", "high", "low", "close"]].to_numpy().T).all()
    assert (synthetic["volume"] == 0).all()
    assert (bars["close_utc"] == bars["start_utc"] + pd.Timedelta(minutes=5)).all()


@pytest.mark.parametrize("calendar", ["CME_Equity", "CME Globex Equity"])
def test_gap_filling_skips_the_break(day, calendar):
    raw = day("2019-11-26", "2019-11-26", calendar)
    bars = fill_gaps(assign_sessions(raw.drop(range(200, 272)), calendar, 5), calendar, 5)
    assert bars["start_utc"].tolist() == raw["start_utc"].tolist()


@pytest.mark.parametrize("calendar", ["NYSE", "24/5", "24/7", "us_futures", "FOREX"])
def test_a_segment_ends_with_its_session_where_markets_never_pause_too(day, calendar):
    bars = fill_gaps(assign_sessions(day("2024-03-05", "2024-03-08", calendar), calendar, 5), calendar, 5)
    whole = SegmentStream().update(bars)
    begins = np.flatnonzero(np.diff(bars["session_id"])) + 1
    assert len(begins) == 3
    assert set(begins) == set(np.flatnonzero(np.diff(whole)) + 1)
    stream = SegmentStream()
    parts = [stream.update(bars.iloc[k : k + 7]) for k in range(0, len(bars), 7)]
    assert np.concatenate(parts).tolist() == whole.tolist()


@given(cut=st.integers(0, 215))
def test_gap_filling_is_prefix_invariant(holed, filled, cut):
    prefix = fill_gaps(assign_sessions(holed[:cut], "NYSE", 5), "NYSE", 5)
    pd.testing.assert_frame_equal(prefix, filled[: len(prefix)])


@given(bounds=st.lists(st.integers(0, 276), max_size=12), minutes=st.sampled_from([10, 15, 30, 60]))
def test_resampling_does_not_depend_on_the_chunks(filled, bounds, minutes):
    whole = resample(filled, minutes)
    stream = Resampler(minutes)
    cuts = [0, *sorted(bounds), len(filled)]
    parts = [stream.update(columns(filled.iloc[min(a, len(filled)) : min(b, len(filled))])) for a, b in pairwise(cuts)]
    pd.testing.assert_frame_equal(pd.concat([frame(part) for part in parts], ignore_index=True), whole)


@given(
    keep=st.lists(st.booleans(), min_size=78, max_size=78).filter(any),
    ticks=st.lists(st.integers(-50, 50), min_size=78, max_size=78),
)
def test_longer_bars_hold_what_their_bars_hold(day, keep, ticks):
    """Whatever bars are missing: open first, high most, low least, close last, volume all, each bar in one bucket."""
    raw = day("2018-11-20", "2018-11-20")
    moved = raw[["open", "high", "low", "close"]].add(np.array(ticks) / 100, axis=0)
    bars = assign_sessions(raw.assign(**moved)[np.array(keep)].reset_index(drop=True), "NYSE", 5)
    m30 = resample(bars)
    bucket = bars["start_utc"].dt.floor("30min")
    last = bars["start_utc"].iloc[-1]
    unfinished = last + pd.Timedelta("5min") < bucket.iloc[-1] + pd.Timedelta("30min")
    expected = bars.groupby(bucket).agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    expected = expected.iloc[: len(expected) - unfinished]
    assert m30["start_utc"].tolist() == expected.index.tolist()
    np.testing.assert_array_equal(m30[FIELDS].to_numpy(), expected[FIELDS].to_numpy())


@given(cut=st.integers(0, 276))
def test_resample_is_prefix_invariant(filled, cut):
    whole, prefix = resample(filled), resample(filled[:cut])
    pd.testing.assert_frame_equal(prefix, whole[: len(prefix)])
    known = filled[:cut]["close_utc"].max()  # nothing is held back that has closed
    assert len(prefix) >= (whole["close_utc"] < known).sum()


def test_resample_merges_by_the_clock_inside_a_session(day):
    raw = day("2018-11-23", "2018-11-26")
    bars = assign_sessions(raw, "NYSE", 5)
    longer = resample(bars)
    assert longer.groupby("session_id").size().to_dict() == {20181123: 7, 20181126: 13}
    first = bars[:6]
    assert longer.loc[0, "start_utc"] == first["start_utc"].iloc[0]
    assert longer.loc[0, "close_utc"] == first["close_utc"].iloc[-1]
    expected = [
        first["open"].iloc[0],
        first["high"].max(),
        first["low"].min(),
        first["close"].iloc[-1],
        first["volume"].sum(),
    ]
    assert longer.loc[0, FIELDS].tolist() == expected
    assert {name: str(kind) for name, kind in longer.dtypes.items()} == SCHEMA


def test_a_bucket_reads_its_real_bars_only(day):
    raw = day("2018-11-26", "2018-11-26")
    raw.loc[5, ["open", "high", "low", "close"]] = 500.0  # before the gap: the level of the filled bars
    bars = fill_gaps(assign_sessions(raw.drop([6, 7, *range(12, 18)]), "NYSE", 5), "NYSE", 5)
    longer = resample(bars)
    assert longer.loc[1, "open"] == raw.loc[8, "open"]
    assert longer.loc[1, "high"] == raw.loc[8:11, "high"].max()
    assert longer["is_synthetic"].tolist() == [False, False, True] + [False] * 10
    assert longer.loc[2, FIELDS].tolist() == [raw.loc[11, "close"]] * 4 + [0.0]


def test_the_last_bucket_waits_for_its_last_bar(day):
    bars = assign_sessions(day("2018-11-26", "2018-11-27"), "NYSE", 5)
    assert [len(resample(bars[:n])) for n in (0, 1, 5, 6, 7, 11, 12)] == [0, 0, 0, 1, 1, 1, 2]
    early = bars.drop(range(76, 78)).reset_index(drop=True)  # the session's last two bars are missing
    assert [len(resample(early[:n])) for n in (76, 77)] == [12, 13]


def test_as_of_facts(day):
    bars = assign_sessions(day("2018-11-26", "2018-11-26"), "NYSE", 5)
    longer = resample(bars)
    for clock, newest in (("15:05", "14:30"), ("15:25", "14:30"), ("15:30", "15:00"), ("15:35", "15:00")):
        known = longer[longer["close_utc"] <= pd.Timestamp(f"2018-11-26 {clock}", tz="UTC")]
        assert known["start_utc"].iloc[-1] == pd.Timestamp(f"2018-11-26 {newest}", tz="UTC")


def test_a_bucket_ends_with_its_session(day):
    calendar = "CME Globex Equity"
    longer = resample(assign_sessions(day("2019-11-29", "2019-11-29", calendar), calendar, 5))
    assert longer["close_utc"].iloc[-1].strftime("%H:%M") == "18:15"  # an early close at 12:15 Chicago
    assert longer["start_utc"].iloc[-1].strftime("%H:%M") == "18:00"


def test_heiken_ashi_closed_form_and_prefix(day):
    o, h, low, c = day("2018-11-26", "2018-11-26")[FIELDS[:4]].to_numpy().T
    ha = heiken_ashi(o, h, low, c)
    assert np.array_equal(ha.close, (o + h + low + c) / 4)
    for t in (0, 1, 2, 40):
        past = sum(2.0**-k * ha.close[t - k] for k in range(1, t + 1)) + 2.0**-t * (o[0] + c[0]) / 2
        assert ha.open[t] == pytest.approx(past, rel=1e-14)
    assert np.array_equal(ha.high, np.maximum.reduce([h, ha.open, ha.close]))
    assert np.array_equal(ha.low, np.minimum.reduce([low, ha.open, ha.close]))
    for cut in (1, 17, 77):
        prefix = heiken_ashi(o[:cut], h[:cut], low[:cut], c[:cut])
        assert all(np.array_equal(short, long[:cut]) for short, long in zip(prefix, ha, strict=True))
    assert heiken_ashi(*np.empty((4, 0))).open.size == 0
