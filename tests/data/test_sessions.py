import numpy as np
import pytest

from algospace.data.sessions import bars_per_session, covering, locate, sessions, slots
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
        ("CMEGlobex_CL", 30, 46),
        ("24/7", 5, 288),
    ],
)
def test_bars_per_session(calendar, minutes, bars):
    assert bars_per_session(calendar, minutes) == bars


def test_a_range_does_not_change_its_sessions():
    long, short = sessions("NYSE", "1990-01-01", "2060-12-31"), sessions("NYSE", "2018-11-19", "2018-11-26")
    assert long[long["session_id"].isin(short["session_id"])].reset_index(drop=True).equals(short)


def test_unknown_calendar():
    with pytest.raises(InputError, match=r"data\.calendar: expected a calendar .* found 'MOON'"):
        covering("MOON", 0, 1)
