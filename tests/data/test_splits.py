import numpy as np
import pandas as pd
import pytest

from algospace.data.bars import assign_sessions, resample
from algospace.data.splits import EMBARGO, REPORT, SELECT, TEST, TRAIN, assign, boundaries, split
from algospace.errors import InputError


@pytest.fixture(scope="module")
def bars(day):
    return assign_sessions(day("2018-01-02", "2019-05-31"), "NYSE", 5)


def test_splits_follow_each_other_by_whole_days(bars, data_params):
    codes = split(bars, data_params())
    assert codes.dtype == np.int8
    changes = codes[np.flatnonzero(np.diff(codes, prepend=9))].tolist()
    assert changes == [TRAIN, EMBARGO, SELECT, EMBARGO, REPORT, EMBARGO, TEST]
    days = bars["session_id"].to_numpy()
    n = len(np.unique(days))
    assert len(np.unique(days[codes == TRAIN])) == round(0.7 * n)
    begins = np.flatnonzero(np.diff((codes == EMBARGO).astype(int)) == 1) + 1
    assert (days[begins] != days[begins - 1]).all()  # the embargo is taken from the start of the later split
    counts = [np.unique(days[:begin]).size for begin in begins]
    assert counts[0] == round(0.7 * n)
    assert counts[2] == round(0.85 * n)
    assert counts[1] - counts[0] == (counts[2] - counts[0]) // 2


@pytest.mark.parametrize(("m30", "m5"), [(96, 100), (1, 100), (20, 3), (0, 0)])
def test_the_embargo_has_its_length_in_both_frames(bars, data_params, m30, m5):
    codes = split(bars, data_params(embargo_m30_bars=m30, embargo_m5_bars=m5))
    edges = np.flatnonzero(np.diff(codes == EMBARGO)) + 1
    if not m30:
        assert not edges.size
        return
    for begin, end in edges.reshape(-1, 2):
        assert end - begin == max(m5, 6 * m30)
        assert len(resample(bars[begin:end].reset_index(drop=True))) >= m30


def test_given_dates_make_prefixes_equal(bars, data_params):
    params = data_params()
    cuts = (20181001, 20181203, 20190201)
    whole = assign(bars, cuts, params)
    for cut in (0, 5_000, 14_600, 15_100, 18_500, len(bars)):
        assert np.array_equal(assign(bars[:cut], cuts, params), whole[:cut])


def test_boundaries_are_the_dates_of_each_split(bars, data_params):
    codes = split(bars, data_params())
    dates = boundaries(bars, codes)
    assert list(dates) == [
        f"{name}_{end}" for name in ("train", "select", "report", "test") for end in ("first", "last")
    ]
    assert dates["train_first"] == "2018-01-02"
    assert dates["test_last"] == "2019-05-31"
    assert list(dates.values()) == sorted(dates.values())
    expected = bars["session_id"].to_numpy()[codes == SELECT][0]
    assert pd.Timestamp(dates["select_first"]).strftime("%Y%m%d") == str(expected)


@pytest.mark.parametrize(
    ("days", "expected"), [(39, "at least 40 trading days, found 39"), (45, "nothing left in select")]
)
def test_too_few_days_are_refused(bars, data_params, days, expected):
    few = bars[bars["session_id"].isin(bars["session_id"].unique()[:days])]
    with pytest.raises(InputError, match=rf"data\.min_sessions: .*{expected}"):
        split(few, data_params())
