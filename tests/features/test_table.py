"""The feature table knows the past only, whatever the cut, and raises a 30-minute signal once."""

import numpy as np
import pandas as pd
import pytest

from algospace.data.bars import PRICES, assign_sessions, from_ms
from algospace.data.sessions import sessions, slots
from algospace.features import table

NONSENSE = ("permuted", "scaled", "constant")


@pytest.fixture(scope="module")
def build(settings, fitted_state):
    def make(bars):
        return table.build(bars, settings.contract, settings.indicators, settings.gate1, fitted_state.reference)

    return make


@pytest.fixture(scope="module")
def gappy(build, gappy_bars):
    return build(gappy_bars)


@pytest.fixture(scope="module")
def fewer(gappy_bars):
    """30 trading days with holes."""
    return gappy_bars.iloc[:8000]


@pytest.fixture(scope="module")
def clean(build, market_bars):
    return build(market_bars)


def same_bits(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found.columns) == list(expected.columns)
    assert len(found) == len(expected)
    for name in found.columns:
        assert found[name].dtype == expected[name].dtype, name
        a, b = (
            frame[name].to_numpy("datetime64[ms]" if name.endswith("_utc") else None) for frame in (found, expected)
        )
        if a.tobytes() != b.tobytes():
            row = int((~((a == b) | (pd.isna(a) & pd.isna(b)))).argmax())
            pytest.fail(f"{name} differs first at row {row} of {len(a)}: {a[row]} and {b[row]}")


def cuts(bars: pd.DataFrame) -> list[int]:
    """Random lengths and the ticklish ones: the first bars, and around a session's end."""
    ends = np.flatnonzero(np.diff(bars["session_id"].to_numpy())) + 1
    ticklish = [1, 2, 5, 6, 7, *(int(ends[i]) + d for i in (1, 5, 9) for d in (-1, 0, 1))]
    return ticklish + np.random.default_rng(11).integers(8, len(bars), 200).tolist()


def test_first_bars_give_first_rows(build, fewer):
    """Every column at more than 200 cuts."""
    fewer = fewer.iloc[:3000]
    whole = build(fewer)
    lengths = cuts(fewer)
    assert len(lengths) >= 200
    for n in lengths:
        part = build(fewer.iloc[:n])
        same_bits(part.m5, whole.m5.iloc[:n])
        same_bits(part.m30, whole.m30.iloc[: len(part.m30)])


@pytest.mark.parametrize("rows", [1, 7, 1000, 10_000])
def test_chunks_give_the_same_bits(settings, fitted_state, build, fewer, rows):
    """Bar by bar, in chunks, at once."""
    bars = fewer.iloc[: {1: 800, 7: 3000}.get(rows, 8000)]
    whole = build(bars)
    stream = table.FeatureStream(settings.contract, settings.indicators, settings.gate1, fitted_state.reference)
    parts = [stream.update(chunk) for chunk in table.chunks(bars, rows)]
    same_bits(pd.concat([part.m5 for part in parts]), whole.m5)
    same_bits(pd.concat([part.m30 for part in parts]), whole.m30)


def rolled(bars: pd.DataFrame, jump: float, first: int) -> pd.DataFrame:
    """The same market, its contract rolled at a session's first bar into one that trades ``jump`` times as high."""
    later = np.arange(len(bars)) >= first
    changed = bars.copy()
    changed.loc[later, "contract_id"] += 1
    for name in PRICES:
        changed.loc[later, name] *= jump
    return changed


def test_a_roll_is_no_move(build, fewer):
    """Features of a rolled market are those of one that opened there where it had closed, levels scaled."""
    starts = np.flatnonzero(np.diff(fewer["session_id"].to_numpy())) + 1
    first = int(starts[12])
    smooth = fewer.copy()  # without an overnight gap at the roll, which the roll would swallow
    shift = smooth["close"].iloc[first - 1] / smooth["open"].iloc[first]
    for name in PRICES:
        smooth.loc[np.arange(len(smooth)) >= first, name] *= shift
    before, after = build(smooth).m5, build(rolled(smooth, 2.0, first)).m5
    later = np.arange(len(fewer)) >= first
    scaled = [*PRICES, "m30_ha_close", "m30_nwrqk_value", "atr_5m", "m30_atr", "ema_50", "macd", "bb_upper"]
    scaled += ["m30_lvn_support_price", "m30_lvn_resistance_price", "fvg_nearest_level"]
    for name in scaled:
        # From the first bar on, though the newest half hour is the old contract's until one of the new closes.
        np.testing.assert_allclose(after[name], before[name] * np.where(later, 2.0, 1.0), rtol=1e-9, err_msg=name)
    same = ["rsi_14", "adx_14", "bb_percent", "m30_mlmi_value", "m30_nwrqk_slope", "m30_mmd_0", "m30_mmd_11"]
    for name in [*same, "m30_lvn_nearest_strength", "gate1_type", "candidate_direction"]:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_any_number_of_rolls_may_lie_in_a_chunk(settings, build, fitted_state, fewer):
    starts = np.flatnonzero(np.diff(fewer["session_id"].to_numpy())) + 1
    bars = rolled(rolled(rolled(fewer, 1.1, int(starts[4])), 0.9, int(starts[5])), 1.2, int(starts[9]))
    stream = table.FeatureStream(settings.contract, settings.indicators, settings.gate1, fitted_state.reference)
    in_chunks = pd.concat([stream.update(chunk).m5 for chunk in table.chunks(bars, 100)])
    same_bits(in_chunks, build(bars).m5)


@pytest.mark.parametrize("kind", NONSENSE)
def test_what_comes_after_changes_nothing_before(build, gappy, gappy_bars, kind):
    rng = np.random.default_rng(5)
    for t in rng.integers(2000, len(gappy_bars) - 300, 3):
        poisoned = gappy_bars.copy()
        later = np.arange(len(poisoned)) > t
        if kind == "permuted":
            shuffled = rng.permutation(np.flatnonzero(later))
            for name in (*PRICES, "volume"):
                poisoned.loc[later, name] = gappy_bars[name].to_numpy()[shuffled]
        elif kind == "scaled":
            factor = np.exp(rng.normal(0, 0.3, later.sum()))
            for name in PRICES:
                poisoned.loc[later, name] *= factor
        else:
            poisoned.loc[later, [*PRICES]] = 9e3
            poisoned.loc[later, "volume"] = 0.0
        found = build(poisoned).m5
        same_bits(found.iloc[: t + 1], gappy.m5.iloc[: t + 1])
        assert not found["close"].iloc[t + 1 :].equals(gappy.m5["close"].iloc[t + 1 :])


def test_bar_sees_the_newest_closed_half_hour(clean):
    m5 = clean.m5.set_index("close_utc")
    day = "2022-02-09"

    def seen(clock: str) -> pd.Timestamp:
        return m5.loc[f"{day} {clock}+00:00", "m30_close_utc"]

    assert seen("10:00") == pd.Timestamp(f"{day} 10:00Z")
    assert seen("10:05") == pd.Timestamp(f"{day} 10:00Z")
    assert seen("10:25") == pd.Timestamp(f"{day} 10:00Z")
    assert seen("10:30") == pd.Timestamp(f"{day} 10:30Z")
    assert seen("10:35") == pd.Timestamp(f"{day} 10:30Z")


def test_first_half_hour_has_nothing_to_see(clean):
    assert (clean.m5["m30_row"].iloc[:5] == -1).all()
    assert clean.m5["m30_close"].iloc[:5].isna().all()
    assert clean.m5["m30_row"].iloc[5] == 0


def test_joined_columns_are_those_of_the_newest_closed_half_hour(gappy):
    m30 = gappy.m30.drop(columns=["start_utc", "session_id", "session_close_utc", "contract_id", "is_synthetic"])
    expected = pd.merge_asof(
        gappy.m5[["close_utc"]], m30.add_prefix("m30_"), left_on="close_utc", right_on="m30_close_utc"
    ).drop(columns="close_utc")
    found = gappy.m5[list(expected.columns)]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert (gappy.m5["m30_close_utc"].dropna() <= gappy.m5["close_utc"].iloc[5:]).all()


def test_half_hours_are_made_of_their_own_bars(gappy, gappy_bars):
    """Open, high, low, close and volume of a half hour, from its real bars, by hand."""
    for row in np.random.default_rng(2).integers(0, len(gappy.m30), 60):
        half = gappy.m30.iloc[row]
        inside = gappy_bars[
            (gappy_bars["start_utc"] >= half["start_utc"])
            & (gappy_bars["close_utc"] <= half["close_utc"])
            & ~gappy_bars["is_synthetic"]
        ]
        if half["is_synthetic"]:
            assert inside.empty
            continue
        assert half["open"] == inside["open"].iloc[0]
        assert half["high"] == inside["high"].max()
        assert half["low"] == inside["low"].min()
        assert half["close"] == inside["close"].iloc[-1]
        assert half["volume"] == inside["volume"].sum()
        assert set(inside["session_id"]) == {half["session_id"]}


def raised_by_hand(found: table.FeatureTable, name: str) -> dict[int, int]:
    """Row of the first traded bar of its session that sees a half hour as the newest -> that half hour's signal."""
    expected = {}
    for number, signal in enumerate(found.m30[f"{name}_signal"]):
        sees = (found.m5["m30_row"] == number) & ~found.m5["is_synthetic"]
        sees &= found.m5["session_id"] == found.m30["session_id"].iloc[number]
        if signal and sees.any():
            expected[int(np.flatnonzero(sees)[0])] = int(signal)
    return expected


@pytest.mark.parametrize("name", ["mlmi", "nwrqk"])
def test_a_half_hour_is_news_at_the_first_traded_bar_that_sees_it(gappy, name):
    signal = gappy.m5[f"{name}_sig"]
    rows = np.flatnonzero(signal)
    assert dict(zip(rows.tolist(), signal.iloc[rows].tolist(), strict=True)) == raised_by_hand(gappy, name)
    late = gappy.m5["m30_close_utc"].iloc[rows] < gappy.m5["close_utc"].iloc[rows]
    assert 0 < late.sum() < len(rows) / 10, "where the closing bar is missing"


def test_nothing_fires_on_a_filled_bar(gappy):
    filled = gappy.m5[gappy.m5["is_synthetic"]]
    assert len(filled) > 100
    for name in ("mlmi_sig", "nwrqk_sig", "fvg_sig", "gate1_type", "candidate_direction"):
        assert (filled[name] == 0).all(), name


def test_the_half_hour_before_a_pause_is_news_after_it(settings, fitted_state):
    """ES paused from 15:15 to 15:30 Chicago: the half hour 15:00 closes at 15:30, the next bar at 15:35."""
    laid = slots(sessions("CME Globex Equity", "2020-03-02", "2020-05-29"), 5).start_ms
    rng = np.random.default_rng(0)
    close = np.round(3000 * np.exp(np.cumsum(6e-4 * rng.standard_normal(laid.size))) * 4) / 4
    raw = pd.DataFrame({"start_utc": from_ms(laid), "open": np.r_[close[:1], close[:-1]], "close": close})
    raw["high"], raw["low"] = raw[["open", "close"]].max(axis=1) + 0.25, raw[["open", "close"]].min(axis=1) - 0.25
    bars = assign_sessions(raw.assign(volume=100.0), "CME Globex Equity", 5)
    found = table.build(bars, settings.contract, settings.indicators, settings.gate1, fitted_state.reference)
    clock = found.m5["close_utc"].dt.tz_convert("America/Chicago").dt.strftime("%H:%M")
    assert (found.m5["nwrqk_sig"][clock == "15:35"] != 0).sum() >= 3
    for name in ("mlmi", "nwrqk"):
        signal = found.m5[f"{name}_sig"]
        assert dict(zip(np.flatnonzero(signal), signal[signal != 0], strict=True)) == raised_by_hand(found, name)
    first_after = np.flatnonzero(clock == "15:35")
    made = found.m5["fvg_created"].to_numpy()
    assert (made[np.concatenate([first_after, first_after + 1])] == 0).all(), "no gap has the pause inside"
    assert (made != 0).any()


def test_small_memories_forget_the_same(settings, fitted_state, fewer):
    """Prefixes where every memory is shorter than the market: sessions, points, slopes and gaps are forgotten."""
    i = settings.indicators
    small = i.model_copy(
        update={
            "lvn": i.lvn.model_copy(update={"window_sessions": 2}),
            "mlmi": i.mlmi.model_copy(update={"max_points": 20}),
            "nwrqk": i.nwrqk.model_copy(update={"slope_window": 40}),
            "fvg": i.fvg.model_copy(update={"max_age": 9}),
        }
    )
    bars = fewer.iloc[:2500]

    def make(part):
        return table.build(part, settings.contract, small, settings.gate1, fitted_state.reference)

    whole = make(bars)
    for n in np.random.default_rng(4).integers(8, len(bars), 60):
        part = make(bars.iloc[:n])
        same_bits(part.m5, whole.m5.iloc[:n])
        same_bits(part.m30, whole.m30.iloc[: len(part.m30)])


@pytest.mark.parametrize("name", ["mlmi", "nwrqk"])
def test_half_hour_signal_is_raised_once(clean, name):
    m30 = clean.m30[clean.m30[f"{name}_signal"] != 0]
    raised = clean.m5[clean.m5[f"{name}_sig"] != 0]
    assert len(m30) > 50
    assert raised["close_utc"].tolist() == m30["close_utc"].tolist()
    assert raised[f"{name}_sig"].tolist() == m30[f"{name}_signal"].tolist()


def test_signal_of_a_half_hour_without_its_last_bar_is_never_raised(build, market_bars):
    """It was known too late: the next bar is of the next session."""
    last = market_bars["close_utc"] == market_bars["session_close_utc"]
    whole = build(market_bars[~last].reset_index(drop=True))
    ends = whole.m30["close_utc"] == whole.m30["session_close_utc"]
    unraised = whole.m30[ends & ((whole.m30["mlmi_signal"] != 0) | (whole.m30["nwrqk_signal"] != 0))]
    assert len(unraised) >= 2
    first = whole.m5["session_id"].diff() != 0
    for name in ("mlmi_sig", "nwrqk_sig"):
        assert (whole.m5.loc[first, name] == 0).all()
        raised_at = whole.m5.loc[whole.m5[name] != 0, "close_utc"]
        assert not set(raised_at) & set(unraised["close_utc"])


def test_half_hour_without_its_last_bar_is_unknown_in_its_session(build, market_bars):
    last = market_bars["close_utc"] == market_bars["session_close_utc"]
    m5 = build(market_bars[~last].reset_index(drop=True)).m5
    newest = m5.groupby("session_id").last()
    assert (newest["m30_close_utc"] < newest["session_close_utc"]).all()
    first = m5.groupby("session_id").first().iloc[1:]
    assert (first["m30_close_utc"] == newest["session_close_utc"].to_numpy()[:-1]).all()


def test_nothing_bridges_sessions(gappy):
    number = gappy.m5.groupby("session_id").cumcount()
    first = gappy.m5[number == 0]
    for side in ("long", "short"):
        assert set(first[f"gate1_age_{side}"]) <= {-1, 0}
    assert not first["fvg_bullish_active"].any()
    assert not first["fvg_bearish_active"].any()
    assert (gappy.m5.loc[number < 5, "momentum_5"].isna()).all()
    row = gappy.m5["m30_row"].to_numpy()
    session = gappy.m30["session_id"].to_numpy()[np.maximum(row, 0)]
    assert (session[row >= 0] <= gappy.m5["session_id"].to_numpy()[row >= 0]).all()


def test_candidate_direction(gappy):
    """The synergy's direction, else the signals' majority, else the first signal's; none without time or an ATR."""
    cases = set()
    for row in gappy.m5.itertuples():
        signals = [row.mlmi_sig, row.nwrqk_sig, row.fvg_sig]
        total = sum(signals)
        if np.isnan(row.m30_atr):
            case, expected = "no stop", 0
        elif row.session_close_utc == row.close_utc:
            case, expected = "late" if any(signals) else "late, none", 0
        elif row.gate1_type:
            case, expected = "synergy", row.gate1_direction
        elif not any(signals):
            case, expected = "none", 0
        elif total:
            case, expected = "majority", 1 if total > 0 else -1
        else:
            case, expected = "cancel", next(s for s in signals if s)
        assert row.candidate_direction == expected, f"{case} at {row.close_utc}"
        cases.add(case)
    assert cases == {"no stop", "late", "late, none", "synergy", "none", "majority", "cancel"}


def test_fit_and_table_agree_on_the_tactical_set(clean):
    """What is scaled is there, finite after its warm-up."""
    assert set(table.SIDE) <= set(clean.m5.columns)
    assert set(table.EVENT) <= set(clean.m5.columns)
    assert np.isfinite(clean.m5[list(table.SIDE)].iloc[40:]).all(axis=None)


def test_every_row_of_the_bars_has_a_row(gappy, gappy_bars):
    assert len(gappy.m5) == len(gappy_bars)
    pd.testing.assert_frame_equal(gappy.m5[list(gappy_bars.columns)], gappy_bars)
    assert gappy_bars["is_synthetic"].any()
