import gzip
import hashlib
import re

import numpy as np
import pandas as pd
import pytest

from algospace.data.bars import SCHEMA
from algospace.data.contracts import resolve
from algospace.data.sources import RefusedBars, load, read
from algospace.errors import InputError

SPY = resolve("SPY", None)
HEADER = "datetime,open,high,low,close,volume\n"
GOOD = "2018-01-02 14:30:00,10,12,9,11,5\n2018-01-02 14:35:00,11,12,9,11,5\n"


@pytest.fixture
def csv(data_params):
    return lambda **changes: data_params(**{"source": "csv", "files": ["a.csv"], "symbol": "SPY", **changes})


def message(tmp_path, content, params, contract=SPY):
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        load(params, contract, tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(tmp_path.as_posix() + "/", "")


ROW = "2018-01-02 14:40:00,"
CASES = {
    "high below low": (HEADER + GOOD + ROW + "10,8,9,8.5,5\n", "a.csv:4: expected low <= open"),
    "open above high": (HEADER + GOOD + ROW + "13,12,9,10,5\n", "a.csv:4: expected low <= open"),
    "close below low": (HEADER + GOOD + ROW + "10,12,9,8,5\n", "a.csv:4: expected low <= open"),
    "duplicate": (
        HEADER + GOOD + "2018-01-02 14:35:00,11,12,9,11,5\n",
        "a.csv:4: expected a bar that starts after",
    ),
    "backward": (
        HEADER + GOOD + "2018-01-02 14:30:00,11,12,9,11,5\n",
        "a.csv:4: expected a bar that starts after",
    ),
    "NaN": (HEADER + GOOD + ROW + "10,nan,9,10,5\n", "a.csv:4: expected a number for high, found 'nan'"),
    "infinite": (HEADER + GOOD + ROW + "10,inf,9,10,5\n", "a.csv:4: expected a number for high, found 'inf'"),
    "empty cell": (HEADER + GOOD + ROW + "10,12,,10,5\n", "a.csv:4: expected a number for low, found ''"),
    "word": (HEADER + GOOD + ROW + "10,12,9,ten,5\n", "a.csv:4: expected a number for close, found 'ten'"),
    "hexadecimal": (
        HEADER + GOOD + ROW + "0x10,12,9,10,5\n",
        "a.csv:4: expected a number for open, found '0x10'",
    ),
    "underscore": (
        HEADER + GOOD + ROW + "1_0,12,9,10,5\n",
        "a.csv:4: expected a number for open, found '1_0'",
    ),
    "thousands": (HEADER + GOOD + ROW + '10,12,9,10,"1,234.5"\n', "a.csv:4: expected a number for volume"),
    "overflow": (HEADER + GOOD + ROW + "10,1e999,9,10,5\n", "a.csv:4: expected a number for high"),
    "negative volume": (
        HEADER + GOOD + ROW + "10,12,9,10,-5\n",
        "a.csv:4: expected a volume of 0 or more, found -5",
    ),
    "price of zero": (HEADER + GOOD + ROW + "10,12,0,10,5\n", "a.csv:4: expected prices above 0"),
    "negative price": (HEADER + GOOD + ROW + "-1,12,-1,10,5\n", "a.csv:4: expected prices above 0"),
    "too few fields": (HEADER + GOOD + ROW + "10,12,9\n", "a.csv:4: expected 6 fields, found 4"),
    "too many fields": (HEADER + GOOD + ROW + "10,12,9,10,5,6\n", "a.csv:4: expected 6 fields, found 7"),
    "no time": (HEADER + GOOD + "2018-01-02,10,12,9,10,5\n", "a.csv:4: expected a date"),
    "no stamp": (HEADER + GOOD + "noon,10,12,9,10,5\n", "a.csv:4: expected a date"),
    "no such day": (HEADER + GOOD + "2018-02-30 14:40:00,10,12,9,10,5\n", "a.csv:4: expected a date"),
    "no such hour": (HEADER + GOOD + "2018-01-02 24:40:00,10,12,9,10,5\n", "a.csv:4: expected a date"),
    "two-digit year": (HEADER + GOOD + "02/01/18 14:40,10,12,9,10,5\n", "a.csv:4: expected a date"),
    "far year": (HEADER + GOOD + "9999-01-02 14:40:00,10,12,9,10,5\n", "a.csv:4: expected a date"),
    "other form": (HEADER + GOOD + "02/01/2018 14:40,10,12,9,10,5\n", "a.csv:4: expected a date"),
    "outside session": (
        HEADER + GOOD + "2018-01-02 21:00:00,10,12,9,10,5\n",
        "a.csv:4: expected a bar inside a session of NYSE",
    ),
    "holiday": (
        HEADER + GOOD + "2018-01-15 15:00:00,10,12,9,10,5\n",
        "a.csv:4: expected a bar inside a session of NYSE",
    ),
    "off the mark": (
        HEADER + GOOD + "2018-01-02 14:42:00,10,12,9,10,5\n",
        "a.csv:4: expected a bar start on a mark of 5",
    ),
    "empty": ("", "a.csv:1: expected a header and bars, found an empty file"),
    "blank": (" \n\n", "a.csv:1: expected a header and bars, found an empty file"),
    "header only": (HEADER, "a.csv: expected bars, found none"),
    "one bar": (HEADER + GOOD[:33], "a.csv:2: expected at least 2 bars, found 1"),
    "no header": (GOOD, "a.csv:1: expected a column for open"),
    "no volume": (HEADER.replace(",volume", ",turnover") + GOOD, "a.csv:1: expected a column for volume"),
    "no time column": (HEADER.replace("datetime", "when") + GOOD, "a.csv:1: expected a column for datetime"),
    "two closes": (HEADER.replace("volume", "volume,Close") + GOOD, "a.csv:1: expected one column for close"),
    "UTF-16": ((HEADER + GOOD).encode("utf-16"), "a.csv:1: expected UTF-8 text, found UTF-16"),
    "UTF-16 without mark": (
        (HEADER + GOOD).encode("utf-16-le"),
        "a.csv:1: expected UTF-8 text, found a NUL byte",
    ),
    "NUL": (HEADER + GOOD + "\0", "a.csv:4: expected UTF-8 text, found a NUL byte"),
    "Latin-1": ((HEADER + GOOD + "é").encode("latin-1"), "a.csv:4: expected UTF-8 text, found byte 0xe9"),
    "truncated gzip": (
        gzip.compress((HEADER + GOOD * 99).encode())[:-20],
        "a.csv: expected a whole gzip file",
    ),
    "altered gzip": (
        gzip.compress((HEADER + GOOD).encode())[:-8] + b"12345678",
        "a.csv: expected a whole gzip file",
    ),
    "open quote": (
        HEADER + GOOD + '"2018-01-02 14:40:00,10,12\n',
        "a.csv:4: expected comma-separated values",
    ),
    "30 minutes": (
        HEADER + GOOD.replace("14:35", "15:00") + "2018-01-02 15:30:00,10,12,9,10,5\n",
        "a.csv:2: expected 5-minute bars (data.bar_minutes), as prepare needs 5-minute bars",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_in_one_line_that_names_the_place(tmp_path, csv, case):
    content, expected = CASES[case]
    assert message(tmp_path, content, csv()).startswith(expected)


def test_stamps_that_another_reading_would_fit_are_told_which(tmp_path, csv):
    content = HEADER + "2018-01-02 14:34:00,10,12,9,10,5\n2018-01-02 14:39:00,10,12,9,10,5\n"
    said = message(tmp_path, content, csv())
    assert "(data.stamp is start; last_minute would fit every bar), found 2018-01-02T14:34:00Z" in said
    assert "data.on_invalid" not in said, "nothing would be left"
    more = "2018-01-02 14:44:00,10,12,9,10,5\n2018-01-02 14:50:00,10,12,9,10,5\n"
    said = message(tmp_path, content + more, csv())
    assert "(data.stamp is start), found" in said


def test_the_refusal_counts_all_faults_and_carries_the_report(tmp_path, csv):
    bad = "2018-01-02 14:40:00,10,8,9,8.5,5\n2018-01-02 14:45:00,10,x,9,9,5\n2018-01-02 14:50:00,10,x,9,9,5\n"
    (tmp_path / "a.csv").write_text(HEADER + GOOD + bad)
    with pytest.raises(RefusedBars, match=r"3 of 5 rows are faulty \(range 1, number 2\)") as caught:
        load(csv(), SPY, tmp_path)
    assert caught.value.report["faults"]["number"]["rows"] == 2
    assert caught.value.report["faults"]["number"]["first"].endswith("a.csv:5: expected a number for high, found 'x'")
    assert 0 <= caught.value.report["score"] < 100


def test_drop_removes_and_counts(tmp_path, csv, day, write):
    raw = day("2018-01-02", "2018-02-28")
    raw.loc[100, "high"] = 1.0
    raw.loc[200, "volume"] = -1.0
    write(raw, "a.csv")
    loaded = load(csv(on_invalid="drop", min_quality=0.0), SPY, tmp_path)
    assert {fault.kind: fault.total for fault in loaded.faults} == {"range": 1, "volume": 1}
    assert np.flatnonzero(loaded.bars["is_synthetic"]).tolist() == [100, 200]
    assert loaded.quality["validity_rows"] == 2


def test_nothing_left_is_refused(tmp_path, csv):
    content = HEADER + GOOD.replace("14:3", "03:3")
    assert "expected valid bars, found none among 2 rows" in message(
        tmp_path, content, csv(on_invalid="drop", min_quality=0.0)
    )


def test_low_quality_is_refused_with_its_report(tmp_path, csv, day, write):
    raw = day("2018-01-02", "2018-01-31")
    raw.loc[:200, "volume"] = 0.0
    write(raw.drop(range(300, 500)), "a.csv")
    with pytest.raises(RefusedBars, match=r"expected a quality of at least 90 \(data.min_quality\), found") as caught:
        load(csv(min_quality=90.0), SPY, tmp_path)
    assert caught.value.report["score"] < 90


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "data.files: expected at least one path"),
        (["../a.csv"], "data.files: expected a path below"),
        (["/etc/passwd"], "data.files: expected a path below"),
        (["none.csv"], r"none\.csv: expected a bar file"),
        (["folder"], r"folder: expected a bar file"),
    ],
)
def test_files_must_be_there_and_below_the_folder(tmp_path, csv, files, expected):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=expected):
        load(csv(files=files), SPY, tmp_path)
    if files:
        (tmp_path / "a.csv").write_text(HEADER + GOOD)
        with pytest.raises(InputError, match=expected.replace("data.files", "data.m30_files")) as caught:
            load(csv(m30_files=files), SPY, tmp_path)
        assert "data.m30_files" in str(caught.value)


STAMPS = [f"2018-01-02 {14 + m // 60}:{m % 60:02}" for m in range(30, 100, 5)]


@pytest.mark.parametrize(
    ("row", "stamp", "expected"),
    [
        (
            4,
            "2028-01-03 14:50",
            "a.csv:6: expected a bar that starts before the next, 2018-01-02T14:55:00Z",
        ),
        (
            4,
            "2018-11-02 14:50",
            "a.csv:6: expected a bar that starts before the next, 2018-01-02T14:55:00Z",
        ),
        (
            0,
            "2028-01-03 14:50",
            "a.csv:2: expected a bar that starts before the next, 2018-01-02T14:35:00Z",
        ),
        (4, "2018-01-02 14:30", "a.csv:6: expected a bar that starts after 2018-01-02T14:45:00Z, found 2018"),
    ],
)
def test_one_stamp_gone_wrong_is_that_row_s_fault(tmp_path, csv, row, stamp, expected):
    stamps = [stamp if k == row else right for k, right in enumerate(STAMPS)]
    (tmp_path / "a.csv").write_text(HEADER + "".join(f"{at}:00,10,12,9,11,5\n" for at in stamps))
    with pytest.raises(RefusedBars, match=re.escape(expected)):
        load(csv(), SPY, tmp_path)
    kept = load(csv(on_invalid="drop", min_quality=0.0), SPY, tmp_path)
    assert [fault.total for fault in kept.faults if fault.kind == "order"] == [1]
    assert len(kept.bars) >= len(STAMPS) - 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"timezone": "Mars/Olympus"}, "data.timezone: expected an IANA time zone"),
        ({"timezone": "America"}, "data.timezone: expected an IANA time zone"),
        ({"columns": {"price": "close"}}, "data.columns: expected"),
        ({"columns": {"close": "last"}}, "a.csv:1: expected column 'last'"),
    ],
)
def test_wrong_keys_are_named(tmp_path, csv, change, expected):
    (tmp_path / "a.csv").write_text(HEADER + GOOD)
    with pytest.raises(InputError, match=expected):
        read(csv(**change), tmp_path)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("Timestamp,Open,High,Llow,Close,Volume", {}),
        ("TIMESTAMP,O,H,L,C,V", {}),
        (" Date_Time , open,high,low,close,Vol", {}),
        ("<Date>,<Open>,<High>,<Low>,<Close>,<Vol>", {}),
        ("<Date>,<Open>,<High>,<Low>,<Close>,<TickVol>", {}),
        ("<Date>,<Open>,<High>,<Low>,<Close>,<TickVol>", {"volume": "<TickVol>"}),
        (
            "when,op,hi,lo,Px,Close",
            {"datetime": "when", "open": "op", "high": "hi", "low": "lo", "close": "Px", "volume": "Close"},
        ),
    ],
)
def test_columns_are_found_by_alias_or_override(tmp_path, csv, header, columns):
    (tmp_path / "a.csv").write_text(header + "\n" + GOOD)
    rows = read(csv(columns=columns), tmp_path).rows
    assert rows.loc[0, ["open", "high", "low", "close", "volume"]].tolist() == [10, 12, 9, 11, 5]
    assert rows["line"].tolist() == [2, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("5\n", "5,x,\n").replace("volume", "volume,average,barcount"),
        lambda text: text + "\n\n",
        lambda text: text.replace(" ", "T"),
        lambda text: text.replace(":00,", ":00.000,"),
        lambda text: text.replace(":00,", ":00Z,"),
        lambda text: text.replace("14:3", "09:3").replace(":00,", ":00-05:00,"),
        lambda text: text.replace("14:30:00", "2:30 PM").replace("14:35:00", "2:35 PM"),
        lambda text: text.replace("2018-01-02 ", "2018-01-02,").replace("datetime", "Date,Time"),
    ],
)
def test_harmless_variants_read_the_same(tmp_path, csv, change):
    (tmp_path / "a.csv").write_bytes(change(HEADER + GOOD).encode())
    raw = read(csv(), tmp_path)
    assert raw.faults == ()
    assert raw.rows["start_utc"].dt.strftime("%Y%m%d%H%M").tolist() == ["201801021430", "201801021435"]
    assert raw.rows["close"].tolist() == [11, 11]


def test_gzip_and_parquet_read_the_same_as_csv(tmp_path, csv, day, write):
    raw = day("2018-01-02", "2018-01-05")
    write(raw, "a.csv")
    write(raw, "b.csv.gz")
    raw.rename(columns={"start_utc": "timestamp"}).to_parquet(tmp_path / "naive.parquet")
    raw.assign(start_utc=raw["start_utc"].dt.tz_convert("America/New_York")).set_index("start_utc").rename_axis(
        "Datetime"
    ).to_parquet(tmp_path / "zoned.parquet")
    expected = load(csv(), SPY, tmp_path)
    for source, name in (("csv", "b.csv.gz"), ("parquet", "naive.parquet"), ("parquet", "zoned.parquet")):
        loaded = load(csv(source=source, files=[name]), SPY, tmp_path)
        pd.testing.assert_frame_equal(loaded.bars, expected.bars)
        assert loaded.quality["files"].pop(name) == expected.quality["files"]["a.csv"]
        assert {**loaded.quality, "files": 0} == {**expected.quality, "files": 0}


def test_a_file_that_is_not_parquet_is_refused(tmp_path, csv):
    (tmp_path / "a.csv").write_text(HEADER + GOOD)
    with pytest.raises(InputError, match=r"a\.csv: expected a Parquet file"):
        read(csv(source="parquet"), tmp_path)


def test_bars_have_the_schema_and_the_source_is_told(tmp_path, csv, day, write):
    raw = day("2018-01-02", "2018-01-05")
    write(raw, "a.csv")
    loaded = load(csv(), SPY, tmp_path)
    assert {name: str(kind) for name, kind in loaded.bars.dtypes.items()} == SCHEMA
    assert isinstance(loaded.bars.index, pd.RangeIndex)
    pd.testing.assert_frame_equal(loaded.bars[list(raw)], raw)
    assert loaded.source["files"][0]["sha256"] == hashlib.sha256((tmp_path / "a.csv").read_bytes()).hexdigest()
    assert loaded.source["kind"] == "csv"
    assert loaded.source["rows"] == len(raw)
    assert (loaded.source["first_utc"], loaded.source["last_utc"]) == (
        "2018-01-02T14:30:00+00:00",
        "2018-01-05T20:55:00+00:00",
    )
    assert loaded.faults == ()


@pytest.mark.parametrize(("stamp", "later"), [("start", 0), ("end", 5), ("last_minute", 4)])
def test_the_stamp_names_one_moment_of_the_bar(tmp_path, csv, day, write, stamp, later):
    raw = day("2018-01-02", "2018-01-05")
    write(raw.assign(start_utc=raw["start_utc"] + pd.Timedelta(minutes=later)), "a.csv")
    loaded = load(csv(stamp=stamp), SPY, tmp_path)
    assert (loaded.bars["start_utc"] == raw["start_utc"]).all()
    assert (loaded.bars["close_utc"] - loaded.bars["start_utc"] == pd.Timedelta(minutes=5)).all()


def test_files_are_joined_in_order_and_faults_keep_their_file(tmp_path, csv, day, write):
    raw = day("2018-01-02", "2018-01-05")
    write(raw[:150], "a.csv")
    write(raw[150:], "b.csv")
    both = csv(files=["a.csv", "b.csv"])
    pd.testing.assert_frame_equal(load(both, SPY, tmp_path).bars[list(raw)], raw)
    with pytest.raises(InputError, match=r"a\.csv:2: expected a bar that starts after"):
        load(csv(files=["b.csv", "a.csv"]), SPY, tmp_path)
    text = (tmp_path / "b.csv").read_text().splitlines()
    (tmp_path / "b.csv").write_text("\n".join([*text[:3], "2018-01-04 15:00:00,x,1,1,1,1", *text[3:]]))
    with pytest.raises(InputError, match=r"b\.csv:4: expected a number for open, found 'x'"):
        load(both, SPY, tmp_path)


def test_one_minute_bars_are_merged_to_five(tmp_path, csv, day, write):
    raw = day("2018-01-02", "2018-01-03", minutes=1)
    write(raw, "a.csv")
    bars = load(csv(bar_minutes=1), SPY, tmp_path).bars
    assert len(bars) == 2 * 78
    assert bars.loc[1, "open"] == raw.loc[5, "open"]
    assert bars.loc[1, "high"] == raw.loc[5:9, "high"].max()
    assert bars.loc[1, "low"] == raw.loc[5:9, "low"].min()
    assert bars.loc[1, "close"] == raw.loc[9, "close"]
    assert bars.loc[1, "volume"] == raw.loc[5:9, "volume"].sum()
    with pytest.raises(InputError, match="found bars 1 minutes apart"):
        load(csv(), SPY, tmp_path)


def test_a_calendar_that_is_not_the_contracts_is_a_mistake_of_the_caller(tmp_path, csv):
    with pytest.raises(ValueError, match=r"data\.calendar"):
        load(csv(calendar="CMEGlobex_CL"), SPY, tmp_path)


def test_spy_sample_loads_cleanly(csv, sample):
    name = "spy_5min_2018_2019.csv.gz"
    loaded = load(csv(files=[name], stamp="last_minute"), SPY, sample(name))
    assert loaded.faults == ()
    assert len(loaded.bars) == loaded.source["rows"] == 38_598  # no gap inside a session
    counts = loaded.bars.groupby("session_id").size()
    assert len(counts) == 503
    # Half days have 42 bars. While the clocks of New York and Europe differ, the first hour is missing.
    assert counts.value_counts().to_dict() == {78: 462, 66: 35, 42: 6}
    assert loaded.quality["missing_bars"] == 35 * 12
    assert loaded.quality["zero_volume_rows"] == 1
    assert loaded.quality["score"] > 80


@pytest.fixture
def half_hours(csv, sample):
    """Read one of the 30-minute samples."""

    def make(symbol, **changes):
        name = f"{symbol.lower()}_30min_eth_2020_2025.csv.gz"
        return (
            csv(files=[name], symbol=symbol, timezone="Asia/Jerusalem", **changes),
            resolve(symbol, None),
            sample(name),
        )

    return make


@pytest.mark.parametrize(
    ("symbol", "rows", "last"), [("NQ", 56_083, "2025-07-02T07:00"), ("CL", 59_217, "2025-07-02T07:30")]
)
def test_30_minute_samples_read_day_first_but_are_no_5_minute_bars(half_hours, symbol, rows, last):
    params, contract, folder = half_hours(symbol)
    raw = read(params, folder)
    start = raw.rows["start_utc"]
    assert len(start) == rows
    assert start.is_monotonic_increasing
    assert start.is_unique
    assert raw.faults == ()
    assert start.iloc[0].isoformat()[:16] == "2020-06-28T22:00"
    assert start.iloc[-1].isoformat()[:16] == last
    with pytest.raises(InputError, match="found bars 30 minutes apart"):
        load(params, contract, folder)


def test_every_half_hour_of_the_nq_sample_lies_in_a_session(half_hours):
    """Also in the weeks in which the clocks of Chicago and Jerusalem change at different times."""
    with pytest.raises(RefusedBars, match=r"found 60\.9 \(completeness 0"):  # it lacks 3,203 of 59,286 half hours
        load(*half_hours("NQ"), m30=True)
    loaded = load(*half_hours("NQ", min_quality=60.0), m30=True)
    assert loaded.minutes == 30
    assert loaded.faults == ()
    assert loaded.quality["outside_rows"] == 0
    real = loaded.bars[~loaded.bars["is_synthetic"]]
    assert len(real) == 56_083
    assert loaded.bars["start_utc"].is_monotonic_increasing
    assert loaded.bars["start_utc"].is_unique
    assert {name: str(kind) for name, kind in loaded.bars.dtypes.items()} == SCHEMA
    assert (loaded.bars["close_utc"] - loaded.bars["start_utc"]).max() == pd.Timedelta(minutes=30)


def test_every_half_hour_of_the_cl_sample_lies_in_a_session(half_hours):
    """Also on the four holidays on which crude oil traded past the close that the calendar library has."""
    params, contract, folder = half_hours("CL")
    loaded = load(params, contract, folder, m30=True)
    assert loaded.faults == ()
    assert (~loaded.bars["is_synthetic"]).sum() == 59_217


@pytest.mark.parametrize(("stamp", "later"), [("start", 0), ("end", 30), ("last_minute", 29)])
@pytest.mark.parametrize("bar_minutes", [1, 5])
def test_a_30_minute_bar_is_stamped_by_its_own_length(tmp_path, csv, day, write, stamp, later, bar_minutes):
    raw = day("2018-11-20", "2018-11-26", minutes=30)
    write(raw.assign(start_utc=raw["start_utc"] + pd.Timedelta(minutes=later)).drop([3, 20]), "a.csv")
    loaded = load(csv(stamp=stamp, bar_minutes=bar_minutes), SPY, tmp_path, m30=True)
    assert loaded.minutes == 30
    assert loaded.bars["start_utc"].tolist() == raw["start_utc"].tolist()
    assert np.flatnonzero(loaded.bars["is_synthetic"]).tolist() == [3, 20]


def test_5_minute_files_load_as_ever_where_30_minutes_may_be(tmp_path, csv, day, write):
    write(day("2018-01-02", "2018-01-05"), "a.csv")
    loaded = load(csv(), SPY, tmp_path, m30=True)
    assert loaded.minutes == 5
    pd.testing.assert_frame_equal(loaded.bars, load(csv(), SPY, tmp_path).bars)


def test_files_of_two_lengths_are_refused(tmp_path, csv, day, write):
    write(day("2018-01-02", "2018-01-03"), "a.csv")
    write(day("2018-01-04", "2018-01-05", minutes=30), "b.csv")
    with pytest.raises(InputError, match=r"b\.csv:2: expected 5-minute bars as in .*a\.csv, found 30-minute bars"):
        load(csv(files=["a.csv", "b.csv"]), SPY, tmp_path, m30=True)


def test_the_report_has_a_score_for_each_file(tmp_path, csv, day, write):
    raw = day("2018-01-02", "2018-01-05")
    raw.loc[200, "volume"] = 0.0
    write(raw[:150], "a.csv")
    write(raw[150:], "b.csv")
    report = load(csv(files=["a.csv", "b.csv"]), SPY, tmp_path).quality
    assert {name: file["rows"] for name, file in report["files"].items()} == {"a.csv": 150, "b.csv": len(raw) - 150}
    assert report["files"]["a.csv"]["score"] == 100
    assert report["files"]["b.csv"]["zero_volume"] < report["zero_volume"] < 100
