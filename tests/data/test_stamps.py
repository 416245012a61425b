from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algospace.data.stamps import Texts, parse, zone
from algospace.errors import InputError


def read(texts, order="auto", local="UTC"):
    return parse(Texts(texts), order, zone(local), lambda row: f"a.csv:{row + 2}")


def iso(stamps):
    return [str(np.datetime64(int(ms), "ms"))[:16] for ms in stamps.utc_ms]


def test_mixed_forms_of_one_file_are_day_first():
    texts = ["29/06/2020 01:00:00", "1/7/2020 1:00", "02/07/2020 23:30:00"]
    assert iso(read(texts)) == ["2020-06-29T01:00", "2020-07-01T01:00", "2020-07-02T23:30"]


def test_month_first_is_found_where_only_it_reads():
    assert iso(read(["6/29/2020 1:00", "7/1/2020 1:00"])) == ["2020-06-29T01:00", "2020-07-01T01:00"]


def test_two_readings_are_refused_with_both():
    with pytest.raises(
        InputError, match=r"a\.csv:3: .*'02/03/2020' .*2020-03-02 \(day_first\).*2020-02-03 \(month_first\)"
    ):
        read(["01/01/2020 10:00", "02/03/2020 10:00"])


def test_a_date_with_both_readings_equal_is_no_riddle():
    assert iso(read(["01/01/2020 10:00", "02/02/2020 10:00"])) == ["2020-01-01T10:00", "2020-02-02T10:00"]


@pytest.mark.parametrize(("order", "expected"), [("day_first", "2020-03-02"), ("month_first", "2020-02-03")])
def test_the_order_may_be_stated(order, expected):
    assert iso(read(["02/03/2020 10:00"], order)) == [expected + "T10:00"]


def test_damage_does_not_decide_the_order():
    stamps = read(["29/06/2020 01:00", "30/06/2020 01:00", "7/31/2020 01:00"])
    assert stamps.unreadable.tolist() == [False, False, True]


def test_local_time_follows_the_clocks():
    texts = ["2018-03-09 09:30", "2018-03-12 09:30", "2018-11-05 09:30"]
    assert iso(read(texts, local="America/New_York")) == [
        "2018-03-09T14:30",
        "2018-03-12T13:30",
        "2018-11-05T14:30",
    ]


def test_times_that_the_clocks_skipped_or_showed_twice_are_marked():
    texts = [
        "2018-03-11 01:30",
        "2018-03-11 02:30",
        "2018-11-04 01:30",
        "2018-11-04 02:30",
        "2018-11-04 01:30-05:00",
    ]
    stamps = read(texts, local="America/New_York")
    assert stamps.skipped.tolist() == [False, True, False, False, False]
    assert stamps.repeated.tolist() == [False, False, True, False, False]
    assert iso(stamps)[4] == "2018-11-04T06:30"


@pytest.mark.parametrize(
    "text",
    ["", "2020-01-01", "2020-13-01 10:00", "2020-01-01 10:60", "2020-01-01 13:00 PM", "1577872800", "10:00"],
)
def test_what_is_no_stamp_is_unreadable(text):
    assert read([text, "2020-01-02 10:00"]).unreadable.tolist() == [True, False]


def test_what_is_said_of_clock_changes(tmp_path, data_params):
    from algospace.data.sources import read as read_files

    (tmp_path / "a.csv").write_text(
        "time,open,high,low,close,volume\n2018-11-04 01:30,1,1,1,1,1\n2018-03-11 02:30,1,1,1,1,1\n"
    )
    params = data_params(source="csv", files=["a.csv"], timezone="America/New_York")
    said = {fault.kind: fault.first for fault in read_files(params, tmp_path).faults}
    assert "a.csv:2: expected a time that comes once in America/New_York" in said["repeated time"]
    assert "a.csv:3: expected a time that exists in America/New_York" in said["skipped time"]


FORMS = {
    "%Y-%m-%d %H:%M:%S": "iso", "%Y-%m-%dT%H:%M": "iso", "%Y%m%d %H:%M": "iso", "%Y/%m/%d %I:%M %p": "iso",
    "%d/%m/%Y %H:%M:%S": "day_first", "%d.%m.%Y %H:%M": "day_first", "%m/%d/%Y %H:%M": "month_first",
    "%m-%d-%Y %I:%M:%S %p": "month_first",
}  # fmt: skip
moments = st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1)).map(lambda m: m.replace(second=0, microsecond=0))


@given(times=st.lists(moments, min_size=1, max_size=30), form=st.sampled_from(sorted(FORMS)))
def test_whatever_is_written_is_read_back_or_has_two_readings(times, form):
    texts = [time.strftime(form) for time in times]
    expected = [int(time.replace(tzinfo=UTC).timestamp() * 1000) for time in times]
    assert read(texts, FORMS[form]).utc_ms.tolist() == expected
    swapped = FORMS[form] != "iso" and all(time.day <= 12 for time in times)
    if swapped and any(time.day != time.month for time in times):
        with pytest.raises(InputError, match="expected one reading of the dates"):
            read(texts)
    else:
        assert read(texts).utc_ms.tolist() == expected


@given(
    times=st.lists(moments, min_size=1, max_size=30),
    zone_name=st.sampled_from(["America/New_York", "Asia/Jerusalem", "Europe/London", "Australia/Lord_Howe"]),
)
def test_local_times_are_read_back_or_marked(times, zone_name):
    """A moment written in local time comes back, unless the clocks showed that time twice."""
    local = [time.replace(tzinfo=UTC).astimezone(ZoneInfo(zone_name)) for time in times]
    found = read([time.strftime("%Y-%m-%d %H:%M") for time in local], "iso", zone_name)
    twice = np.array([time.replace(fold=0).utcoffset() != time.replace(fold=1).utcoffset() for time in local])
    np.testing.assert_array_equal(found.repeated, twice)
    assert not found.skipped.any()
    expected = np.array([int(time.timestamp() * 1000) for time in local])
    np.testing.assert_array_equal(found.utc_ms[~twice], expected[~twice])


def test_one_odd_row_is_no_evidence():
    texts = [f"{1 + i % 12:02d}/{1 + i // 40 % 12:02d}/2024 10:00" for i in range(480)]
    with pytest.raises(InputError, match="expected one reading of the dates"):
        read([*texts, "13/12/2024 10:00"])


@pytest.mark.parametrize("text", ["2024-01-02 10:00+99:99", "2024-01-02 10:00+14:30", "2024-01-02 10:00-05:75"])
def test_zones_that_are_none(text):
    assert read([text], "iso").unreadable.tolist() == [True]
