import numpy as np
import pandas as pd
import pytest

from algospace.data import quality
from algospace.data.quality import PARTS, score

ROWS = [name for name in PARTS if name != "agreement"]  # the parts of rows alone; see test_agreement.py


@pytest.fixture(scope="module")
def clean(day):
    return day("2018-03-26", "2018-04-13")


def test_clean_bars_score_100(clean):
    report = score(clean, "NYSE", 5)
    assert report["score"] == 100
    assert all(report[name] == 100 for name in ROWS)
    assert report["rows"] == report["expected_bars"] == len(clean)


def spoil(raw, name):
    raw = raw.copy()
    if name == "completeness":
        return raw.drop(range(700, 720)).reset_index(drop=True)
    if name == "validity":
        raw.loc[700, "high"] = raw.loc[700, "low"] - 0.01
    elif name == "ordering":
        raw.loc[700, "start_utc"] = raw.loc[699, "start_utc"]
    elif name == "finite":
        raw.loc[700, "volume"] = np.nan
    elif name == "outliers":
        raw.loc[700, ["high", "close"]] *= 1.5
    elif name == "stale":
        raw.loc[650:656, ["open", "high", "low", "close"]] = raw.loc[649, "close"]
    elif name == "zero_volume":
        raw.loc[700, "volume"] = 0.0
    return raw


@pytest.mark.parametrize("name", ROWS)
def test_each_part_loses_points_and_only_it(clean, name):
    report = score(spoil(clean, name), "NYSE", 5)
    assert report[name] < 100
    others = {other for other in ROWS if report[other] < 100} - {name}
    assert others <= {"ordering": {"completeness"}, "finite": {"completeness"}}.get(name, set())
    weight = sum(part.weight for name, part in PARTS.items() if name in ROWS)
    expected = sum(PARTS[part].weight * report[part] for part in ROWS) / weight
    assert report["score"] == pytest.approx(expected, abs=1e-5)
    assert report["worst_quarter"] == "2018Q2"
    assert report["worst_quarter_score"] <= report["score"]


def test_shares_are_measured_against_tau(clean):
    n = len(clean)
    report = score(clean.drop(range(700, 720)).reset_index(drop=True), "NYSE", 5)
    assert report["missing_bars"] == 20
    assert report["completeness"] == pytest.approx(100 * (1 - 20 / n / 0.05), abs=1e-5)
    stale = score(spoil(clean, "stale"), "NYSE", 5)
    assert stale["stale_rows"] == 8  # seven bars at the close of the one before


def test_a_missing_session_is_missing_bars(clean, day):
    rows = pd.concat([day("2018-03-26", "2018-03-27"), day("2018-03-29", "2018-03-29")], ignore_index=True)
    assert score(rows, "NYSE", 5)["missing_bars"] == 78


def test_a_part_without_a_row_to_judge_is_left_out(day):
    report = score(day("2018-03-26", "2018-03-27"), "NYSE", 5)  # outliers need 500 past returns
    assert "outliers" not in report
    assert report["score"] == 100


def test_overnight_moves_are_no_outliers_but_jumps_are_counted(clean):
    moved = clean.copy()
    later = moved["start_utc"] >= "2018-04-10"
    moved.loc[later, ["open", "high", "low", "close"]] *= 1.2
    report = score(moved, "NYSE", 5)
    assert report["session_jumps"] == 1
    assert report["outliers"] == 100


def test_rubbish_scores_low_and_never_fails():
    rows = pd.DataFrame(
        {
            "start_utc": pd.DatetimeIndex([None] * 3, tz="UTC").astype("datetime64[ms, UTC]"),
            **{name: np.full(3, np.nan) for name in ("open", "high", "low", "close", "volume")},
        }
    )
    assert score(rows, "NYSE", 5)["finite"] == 0


def test_rows_without_a_time_blame_no_neighbour(clean):
    rows = clean.copy()
    rows.loc[1:2, "start_utc"] = pd.NaT
    rows.loc[5, "start_utc"] = rows["start_utc"].iloc[-1]
    rows.loc[6, "start_utc"] = pd.NaT
    assert np.flatnonzero(quality.disordered(rows)).tolist() == [5]


def test_every_quarter_shows_its_parts(clean, day):
    rows = pd.concat([spoil(clean, "zero_volume"), day("2018-07-02", "2018-07-06")], ignore_index=True)
    quarters = score(rows, "NYSE", 5)["quarters"]
    assert list(quarters) == ["2018Q1", "2018Q2", "2018Q3"]
    assert quarters["2018Q1"] == {"score": 100.0, **{name: 100.0 for name in ROWS if name != "outliers"}}
    assert set(quarters["2018Q2"]) == {"score", *ROWS}
    assert quarters["2018Q2"]["completeness"] == 0  # from the middle of April to July nothing
    assert quarters["2018Q2"]["zero_volume"] < 100
    assert quarters["2018Q3"]["score"] == 100


def test_outliers_are_measured_by_the_past_500_returns():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=500), rng.integers(-2, 3, 500).astype(float), rng.standard_t(1, 500)):
        values.sort()
        assert quality._mad(values) == np.median(np.abs(values - np.median(values)))
    returns = rng.integers(-50, 50, 1600) / 7
    past, ranked = np.empty(500), np.empty(500)
    for seen, change in enumerate(returns):
        quality._replace(ranked, min(seen, 500), past[seen % 500], change)
        past[seen % 500] = change
        last = min(seen + 1, 500)
        assert np.array_equal(ranked[:last], np.sort(returns[seen + 1 - last : seen + 1]))


def test_a_run_of_equal_closes_ends_with_its_session(clean):
    over, inside = clean.copy(), clean.copy()  # a session has 78 bars, so one begins with row 780
    over.loc[777:782, ["open", "high", "low", "close"]] = 200.0
    inside.loc[770:775, ["open", "high", "low", "close"]] = 200.0
    assert score(over, "NYSE", 5)["stale_rows"] == 0
    assert score(inside, "NYSE", 5)["stale_rows"] == 6
