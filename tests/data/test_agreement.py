import pandas as pd
import pytest

from algospace.data.bars import assign_sessions, resample
from algospace.data.contracts import resolve
from algospace.data.quality import PARTS
from algospace.data.sources import RefusedBars, load
from algospace.errors import InputError

SPY = resolve("SPY", None)
FIELDS = ["start_utc", "open", "high", "low", "close", "volume"]


@pytest.fixture
def params(data_params):
    return lambda **changes: data_params(
        **{"source": "csv", "files": ["a.csv"], "m30_files": ["b.csv"], "symbol": "SPY", **changes}
    )


@pytest.fixture
def both(day, write):
    """Write 5-minute bars and the 30-minute bars that they make, spoilt by the test."""
    raw = day("2018-03-26", "2018-04-13")
    m30 = resample(assign_sessions(raw, "NYSE", 5))[FIELDS]

    def save(spoil=lambda m30: m30):
        write(raw, "a.csv")
        return write(spoil(m30.copy()), "b.csv")

    return save


def moved(ticks, column="close", row=100):
    def spoil(m30):
        m30.loc[row, column] += ticks * 0.01
        m30.loc[row, "high"] = m30.loc[row, ["open", "high", "low", "close"]].max()
        return m30

    return spoil


def test_equal_files_agree(params, both):
    report = load(params(), SPY, both()).quality
    assert report["agreement"] == 100
    assert report["agreement_rows"] == 0
    assert set(report["files"]) == {"a.csv", "b.csv"}
    assert report["quarters"]["2018Q1"]["agreement"] == 100


def test_without_a_30_minute_file_the_part_is_left_out(params, both):
    assert "agreement" not in load(params(m30_files=[]), SPY, both()).quality


def test_one_tick_is_no_difference(params, both):
    assert load(params(), SPY, both(moved(1))).quality["agreement"] == 100


@pytest.mark.parametrize("column", ["open", "high", "close"])
def test_more_than_a_tick_loses_points_and_no_other_part_does(params, both, column):
    report = load(params(), SPY, both(moved(2, column))).quality
    bars = 14 * 13
    assert report["agreement_rows"] == 1
    assert report["agreement"] == pytest.approx(100 * (1 - 1 / bars / 0.01), abs=1e-5)
    assert {name for name in PARTS if report[name] < 100} == {"agreement"}
    weight = sum(part.weight for part in PARTS.values())
    assert report["score"] == pytest.approx(100 - PARTS["agreement"].weight / weight * (100 - report["agreement"]))
    assert report["quarters"]["2018Q1"]["score"] == 100
    assert report["worst_quarter"] == "2018Q2"


def test_bars_that_the_other_file_lacks_are_not_judged(params, both):
    report = load(params(), SPY, both(lambda m30: m30[50:])).quality
    assert report["agreement"] == 100


def test_a_bar_off_the_half_hour_is_a_fault_with_its_line(params, both):
    def spoil(m30):
        m30.loc[100, "start_utc"] += pd.Timedelta(minutes=10)
        return m30

    folder = both(spoil)
    with pytest.raises(RefusedBars, match=r"b\.csv:102: expected a bar start on a mark of 30 minutes") as caught:
        load(params(), SPY, folder)
    assert caught.value.report["agreement_rows"] == 1
    loaded = load(params(on_invalid="drop"), SPY, folder)
    assert loaded.quality["agreement"] < 100


def test_other_days_are_refused(params, both):
    with pytest.raises(InputError, match=r"b\.csv:2: expected 30-minute bars of the days of data\.files"):
        load(params(), SPY, both(lambda m30: m30.assign(start_utc=m30["start_utc"] + pd.Timedelta(days=364))))


def test_5_minute_bars_are_no_30_minute_file(params, both):
    with pytest.raises(InputError, match=r"a\.csv:2: expected 30-minute bars \(data\.m30_files\), found bars 5 min"):
        load(params(m30_files=["a.csv"]), SPY, both())


def test_the_source_names_both(params, both):
    source = load(params(), SPY, both()).source
    assert [file["path"] for file in source["files"]] == ["a.csv"]
    assert [file["path"] for file in source["m30_files"]] == ["b.csv"]
