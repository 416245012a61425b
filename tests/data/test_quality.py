import numpy as np
import pandas as pd
import pytest

from algospace.data.quality import PARTS, score


@pytest.fixture(scope="module")
def clean(day):
    return day("2018-03-26", "2018-04-13")


def test_clean_bars_score_100(clean):
    report = score(clean, "NYSE", 5)
    assert report["score"] == 100
    assert all(report[name] == 100 for name in PARTS)
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


@pytest.mark.parametrize("name", PARTS)
def test_each_part_loses_points_and_only_it(clean, name):
    report = score(spoil(clean, name), "NYSE", 5)
    assert report[name] < 100
    others = {other for other in PARTS if report[other] < 100} - {name}
    assert others <= {"ordering": {"completeness"}, "finite": {"completeness"}}.get(name, set())
    weight = sum(part.weight for part in PARTS.values())
    expected = sum(PARTS[part].weight * report[part] for part in PARTS) / weight
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
