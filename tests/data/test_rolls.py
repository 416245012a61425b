import numpy as np
import pandas as pd
import pytest

from algospace.data import rolls
from algospace.data.bars import SCHEMA, assign_sessions, fill_gaps, resample
from algospace.data.contracts import resolve
from algospace.data.quality import score
from algospace.data.sources import load
from algospace.errors import InputError

SPY = resolve("SPY", None)


@pytest.fixture
def csv(data_params):
    return lambda **changes: data_params(
        **{"source": "csv", "files": ["a.csv"], "symbol": "SPY", "rolls": "column", **changes}
    )


@pytest.mark.parametrize(
    ("last", "first"),
    # The Mondays before the third Fridays of 2019-06, 2020-03, 2021-12 and 2023-09.
    [(20190614, 20190617), (20200313, 20200316), (20211210, 20211213), (20230908, 20230911)],
)
def test_quarterly_rolls_fall_on_the_monday_before_the_third_friday(last, first):
    count = rolls.quarterly([last, first])
    assert count[1] == count[0] + 1


def test_there_are_four_quarterly_rolls_a_year_and_no_other():
    days = pd.bdate_range("2000-01-03", "2039-12-30")
    count = rolls.quarterly(int(day) for day in days.strftime("%Y%m%d"))
    steps = np.diff(count)
    assert set(steps) == {0, 1}
    assert steps.sum() == 40 * 4
    rolled = days[1:][steps == 1]
    assert set(rolled.month) == {3, 6, 9, 12}
    assert set(rolled.day_of_week) == {0}
    assert {(day + pd.Timedelta(days=4)).day for day in rolled} == set(range(15, 22))


def test_quarterly_contracts_begin_on_sunday_evening(tmp_path, data_params, day, write):
    contract = resolve("ES", None)
    write(day("2022-03-10", "2022-03-15", contract.calendar), "a.csv")
    params = data_params(source="csv", files=["a.csv"], symbol="ES", rolls="quarterly")
    bars = load(params, contract, tmp_path).bars
    first = bars[bars["contract_id"] == 1].iloc[0]
    assert set(bars["contract_id"]) == {0, 1}
    assert first["start_utc"] == pd.Timestamp("2022-03-13 22:00", tz="UTC")
    assert first["session_id"] == 20220314


def test_quarterly_is_refused_for_what_does_not_roll_so(tmp_path, csv):
    with pytest.raises(InputError, match=r"data\.rolls: expected none or column, found quarterly for .*'NYSE'"):
        load(csv(rolls="quarterly"), SPY, tmp_path)


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("true", "false"), ("True", "False"), (" TRUE", "0 ")])
def test_a_roll_column_counts_contracts(tmp_path, csv, day, write, yes, no):
    raw = day("2018-01-02", "2018-01-05")
    write(raw.assign(Roll=[yes if row in (78, 234) else no for row in range(len(raw))]), "a.csv")
    bars = load(csv(), SPY, tmp_path).bars
    assert bars.groupby("session_id")["contract_id"].unique().map(list).tolist() == [[0], [1], [1], [2]]
    assert not load(csv(rolls="none"), SPY, tmp_path).bars["contract_id"].any()


def test_a_roll_column_of_parquet(tmp_path, csv, day):
    raw = day("2018-01-02", "2018-01-05").rename(columns={"start_utc": "timestamp"})
    for name, marks in (("bool", raw.index == 78), ("int", (raw.index == 78).astype(int))):
        raw.assign(roll=marks).to_parquet(tmp_path / f"{name}.parquet")
        bars = load(csv(source="parquet", files=[f"{name}.parquet"]), SPY, tmp_path).bars
        assert np.flatnonzero(np.diff(bars["contract_id"])).tolist() == [77]


def test_a_missing_roll_column_lists_the_columns(tmp_path, csv, day, write):
    write(day("2018-01-02", "2018-01-03"), "a.csv")
    with pytest.raises(InputError, match=r"a\.csv:1: expected a column for roll .* found columns datetime, open"):
        load(csv(), SPY, tmp_path)


@pytest.mark.parametrize(
    ("row", "mark", "expected"),
    [
        (78, "2", r"a\.csv:80: expected 0, 1, true or false for roll, found '2'"),
        (78, "", r"a\.csv:80: expected 0, 1, true or false for roll, found ''"),
        (80, "1", r"a\.csv:82: expected a roll at the first bar of a session, found it inside one"),
    ],
)
def test_what_is_no_roll_is_a_fault_of_its_row(tmp_path, csv, day, write, row, mark, expected):
    raw = day("2018-01-02", "2018-01-05")
    write(raw.assign(roll=[mark if i == row else "0" for i in raw.index]), "a.csv")
    with pytest.raises(InputError, match=expected):
        load(csv(), SPY, tmp_path)
    bars = load(csv(on_invalid="drop", min_quality=0.0), SPY, tmp_path).bars
    assert not bars["contract_id"].any()


def test_a_roll_counts_though_its_row_is_dropped(tmp_path, csv, day, write):
    raw = day("2018-01-02", "2018-01-03").assign(roll=0)
    raw.loc[78, ["roll", "volume"]] = 1, -1.0
    write(raw, "a.csv")
    bars = load(csv(on_invalid="drop", min_quality=0.0), SPY, tmp_path).bars
    assert bars.groupby("session_id")["contract_id"].unique().map(list).tolist() == [[0], [1]]


def test_longer_and_filled_bars_keep_their_contract(day):
    raw = day("2018-01-02", "2018-01-05")
    raw["contract_id"] = (raw.index >= 156).astype(np.int32)
    bars = fill_gaps(assign_sessions(raw.drop([5, 6, 160, 161]), "NYSE", 5), "NYSE", 5)
    assert {name: str(kind) for name, kind in bars.dtypes.items()} == SCHEMA
    assert bars["contract_id"].tolist() == raw["contract_id"].tolist()
    assert resample(bars)["contract_id"].tolist() == [0] * 26 + [1] * 26


def test_a_jump_at_a_roll_is_no_jump(day):
    raw = day("2018-01-02", "2018-01-05")
    raw.loc[156:, ["open", "high", "low", "close"]] *= 1.2
    assert score(raw, "NYSE", 5)["session_jumps"] == 1
    assert score(raw.assign(contract_id=(raw.index >= 156).astype(np.int32)), "NYSE", 5)["session_jumps"] == 0


@pytest.mark.parametrize("rogue", [0, 20])
def test_one_stamp_gone_wrong_takes_no_later_roll_with_it(tmp_path, csv, day, write, rogue):
    raw = day("2018-01-02", "2018-01-05")
    write(raw.assign(roll=["1" if i == 156 else "0" for i in raw.index]), "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    lines[rogue + 1] = "2018-11-02 15:00:00" + lines[rogue + 1][lines[rogue + 1].index(",") :]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    found = load(csv(on_invalid="drop", min_quality=0.0, rolls="column"), SPY, tmp_path)
    assert [(fault.kind, fault.total) for fault in found.faults] == [("order", 1)]
    last_two = found.bars["session_id"] >= 20180104
    assert found.bars["contract_id"].tolist() == last_two.astype(int).tolist()


@pytest.mark.parametrize("stamp", ["garbage", "2018-01-03 03:00:00", "2018-11-02 15:00:00"])
def test_a_roll_is_not_dropped_with_its_row(tmp_path, csv, day, write, stamp):
    raw = day("2018-01-02", "2018-01-05")
    write(raw.assign(roll=["1" if i == 78 else "0" for i in raw.index]), "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    lines[79] = stamp + lines[79][lines[79].index(",") :]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"a\.csv:80: expected a roll at a bar in order, inside a session of NYSE"):
        load(csv(on_invalid="drop", min_quality=0.0), SPY, tmp_path)
