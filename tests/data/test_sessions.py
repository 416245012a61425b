import numpy as np
import pandas as pd
import pytest

from algospace.data.sessions import bars_per_session, covering, locate, per_year, sessions, slots
from algospace.errors import InputError


def test_new_york_day_and_half_day():
    table = sessions("NYSE", "2018-11-21", "2018-11-26").set_index("session_id")
    assert table.index.tolist() == [20181121, 20181123, 20181126]  # Thanksgiving is closed
    assert table["open_utc"][20181123].isoformat() == "2018-11-23T14:30:00+00:00"
    assert table["close_utc"][20181123].isoformat() == "2018-11-23T18:00:00+00:00"


def test_globex_day_begins_the_evening_before_and_halts_an_hour():
    table = sessions("CME Globex Equity", "2022-01-10", "2022-01-11").set_index("session_id")
    assert table["open_utc"][20220110].isoformat() == "2022-01-09T23:00:00+00:00"  # Sunday 17:00 Chicago
    assert table["close_utc"][20220110].isoformat() == "2022-01-10T22:00:00+00:00"
    assert table["open_utc"][20220111].isoformat() == "2022-01-10T23:00:00+00:00"


def test_summer_time_moves_the_session_in_utc():
    table = sessions("NYSE", "2018-03-09", "2018-03-12")
    assert table["open_utc"].dt.strftime("%H:%M").tolist() == ["14:30", "13:30"]


def test_breaks_are_no_slots():
    table = sessions("CME_Equity", "2019-11-26", "2019-11-26")
    laid = slots(table, 5)
    assert laid.start_ms.size == 276 - 3
    pause = np.array([np.datetime64("2019-11-26T21:15", "ms"), np.datetime64("2019-11-26T21:30", "ms")]).astype(
        np.int64
    )
    assert locate(table, pause, 5).tolist() == [-1, 0]


def test_every_slot_is_found_in_its_session_and_nothing_else_is():
    table = sessions("NYSE", "2018-11-19", "2018-11-26")
    laid = slots(table, 5)
    assert np.array_equal(locate(table, laid.start_ms, 5), laid.session)
    every = np.arange(laid.start_ms[0] - 10**8, laid.start_ms[-1] + 10**8, 300_000)
    assert (locate(table, every, 5) >= 0).sum() == laid.start_ms.size == 4 * 78 + 42


@pytest.mark.parametrize(
    ("calendar", "minutes", "bars"),
    [
        ("NYSE", 5, 78),
        ("NYSE", 30, 13),
        ("CME Globex Equity", 5, 276),
        ("CME Globex Equity", 30, 46),
        ("CMEGlobex_CL", 5, 276),
        ("CMEGlobex_CL", 30, 46),
        ("CMEGlobex_FX", 5, 276),
        ("CMEGlobex_FX", 30, 46),
        ("24/7", 5, 288),
    ],
)
def test_bars_per_session(calendar, minutes, bars):
    assert bars_per_session(calendar, minutes) == bars


def test_a_range_does_not_change_its_sessions():
    long, short = sessions("NYSE", "1990-01-01", "2060-12-31"), sessions("NYSE", "2018-11-19", "2018-11-26")
    assert long[long["session_id"].isin(short["session_id"])].reset_index(drop=True).equals(short)


def test_unknown_calendar():
    with pytest.raises(InputError, match=r"data\.calendar: expected a calendar .* such as 'NYSE' .* found 'MOON'"):
        covering("MOON", 0, 1)


@pytest.mark.parametrize("calendar", ["FOREX", "FX", "Forex"])
def test_foreign_exchange_trades_five_days_a_week(calendar):
    week = sessions(calendar, "2024-03-08", "2024-03-15")
    assert week["session_id"].tolist() == [20240308, 20240311, 20240312, 20240313, 20240314, 20240315]
    assert str(week["open_utc"].iloc[1]) == "2024-03-10 21:00:00+00:00", "Sunday evening is Monday's"
    assert per_year(calendar, 20240101, 20241231) == 262


@pytest.mark.parametrize("calendar", ["ASEX", "XSGO"])
def test_a_calendar_without_sessions(calendar):
    with pytest.raises(InputError, match=f"expected a calendar whose sessions are known, found '{calendar}'"):
        covering(calendar, 0, 1)


@pytest.mark.parametrize("calendar", ["CME Globex Equity", "CMEGlobex_CL"])
def test_globex_closed_a_quarter_of_an_hour_later_from_2012_to_2015(calendar):
    table = sessions(calendar, "2012-11-12", "2015-09-25")
    hours = [clock(table, day, "America/Chicago")[1] for day in (20121116, 20121119, 20130506, 20150918, 20150921)]
    assert hours == ["Fri 16:00", "Mon 16:15", "Mon 16:15", "Fri 16:15", "Mon 16:00"]
    assert clock(table, 20131129, "America/Chicago")[1] < "Fri 14:00"  # the day after Thanksgiving is short as ever


def clock(table, day, zone):
    row = table.set_index("session_id").loc[day]
    return [row[column].tz_convert(zone).strftime("%a %H:%M") for column in ("open_utc", "close_utc")]


@pytest.mark.parametrize(
    ("calendar", "zone", "day", "hours"),
    [
        ("NYSE", "America/New_York", 20240703, ["Wed 09:30", "Wed 13:00"]),
        ("NYSE", "America/New_York", 20241129, ["Fri 09:30", "Fri 13:00"]),
        ("NYSE", "America/New_York", 20241224, ["Tue 09:30", "Tue 13:00"]),
        ("CME Globex Equity", "America/Chicago", 20240701, ["Sun 17:00", "Mon 16:00"]),
        ("CME Globex Equity", "America/Chicago", 20240704, ["Wed 17:00", "Thu 12:00"]),
        ("CME Globex Equity", "America/Chicago", 20241129, ["Thu 17:00", "Fri 12:15"]),
        ("CMEGlobex_CL", "America/Chicago", 20240701, ["Sun 17:00", "Mon 16:00"]),
        ("CMEGlobex_CL", "America/Chicago", 20240704, ["Wed 17:00", "Thu 13:30"]),
        ("CMEGlobex_FX", "America/Chicago", 20240701, ["Sun 17:00", "Mon 16:00"]),
        ("CMEGlobex_FX", "America/Chicago", 20241129, ["Thu 17:00", "Fri 12:15"]),
    ],
)
def test_hours_and_half_days(calendar, zone, day, hours):
    assert clock(sessions(calendar, "2024-06-24", "2024-12-31"), day, zone) == hours


@pytest.mark.parametrize("calendar", ["NYSE", "CME Globex Equity", "CMEGlobex_CL", "CMEGlobex_FX"])
def test_christmas_and_new_year_have_no_session(calendar):
    days = sessions(calendar, "2023-12-20", "2024-01-05")["session_id"].tolist()
    assert 20231226 in days
    assert not {20231225, 20240101} & set(days)


@pytest.mark.parametrize("calendar", ["CME Globex Equity", "CMEGlobex_CL", "CMEGlobex_FX"])
def test_summer_time_moves_the_globex_session_in_utc(calendar):
    table = sessions(calendar, "2024-03-08", "2024-03-11")
    assert table["open_utc"].dt.strftime("%a %H:%M").tolist() == ["Thu 23:00", "Sun 22:00"]
    assert table["close_utc"].dt.strftime("%a %H:%M").tolist() == ["Fri 22:00", "Mon 21:00"]


def test_equity_index_futures_paused_until_june_2021():
    table = sessions("CME Globex Equity", "2018-01-02", "2021-07-02")
    laid = slots(table, 5)
    days = dict(zip(table["session_id"], np.bincount(laid.session).tolist(), strict=True))
    assert [days[day] for day in (20210624, 20210625, 20210628, 20210629)] == [273, 273, 276, 276]
    assert days[20181123] == 231  # closed at 12:15, before any pause
    pause = np.array(["2021-06-25T20:15", "2021-06-25T20:25", "2021-06-28T20:15"], "datetime64[ms]").astype(np.int64)
    assert (locate(table, pause, 5) >= 0).tolist() == [False, False, True]
    half_hour = np.array(["2021-06-25T20:00", "2021-06-25T20:30"], "datetime64[ms]").astype(np.int64)
    assert (locate(table, half_hour, 30) >= 0).all()  # fifteen minutes of it are traded
    theirs = sessions("CME_Equity", "2018-01-02", "2021-06-25")
    both = table.merge(theirs, on="session_id", suffixes=("", "_theirs"))
    whole = both["close_utc"] == both["close_utc_theirs"]
    assert whole.sum() > 850
    assert both.loc[whole, "break_start_utc"].equals(both.loc[whole, "break_start_utc_theirs"])
    assert both.loc[whole, "break_end_utc"].equals(both.loc[whole, "break_end_utc_theirs"])


@pytest.mark.parametrize(
    ("date", "clock"),
    [("2021-09-06", "12:00"), ("2022-09-05", "13:30"), ("2024-09-02", "13:30"), ("2023-11-24", "12:45"),
     ("2024-11-29", "13:45"), ("2022-07-04", "13:30")],
)  # fmt: skip
def test_crude_oil_closes_on_holidays_when_it_did(date, clock):
    (close,) = sessions("CMEGlobex_CL", date, date)["close_utc"]
    assert close == pd.Timestamp(f"{date} {clock}", tz="America/Chicago")
