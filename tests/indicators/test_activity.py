import itertools

import numpy as np
import pytest

from algospace.errors import InputError
from algospace.indicators.activity import ActivityParams, Stream, activity

PARAMS = ActivityParams(bars=40, sessions=500)
BARS = 78  # of a session


def session_bars(days, factors=None, seed=0, noise=0.3):
    """Volumes with a day's shape and a factor a day; each bar's start and session."""
    rng = np.random.default_rng(seed)
    shape = 1000 * np.exp(1.5 * np.cos(np.linspace(0, 2 * np.pi, BARS)))
    factors = np.ones(days) if factors is None else factors
    volume = np.concatenate([factor * shape * np.exp(noise * rng.standard_normal(BARS)) for factor in factors])
    session = np.repeat(np.arange(days), BARS)
    start = 86_400_000 * session + 300_000 * np.tile(np.arange(BARS), days)
    return volume, start, session, np.zeros(volume.size, bool)


def by_hand(volume, start, filled, params):
    """The definition: running means whose length is bounded, a dictionary of what is usual."""
    usual, mean, compared, found = {}, 0.0, 0, []
    for v, slot, none in zip(volume, start % 86_400_000, filled, strict=True):
        if v > 0 and not none:
            k, before = usual.get(slot, (0, 0.0))
            if k:
                compared += 1
                mean += (np.log(v) - before - mean) / min(compared, params.bars)
            usual[slot] = k + 1, before + (np.log(v) - before) / min(k + 1, params.sessions)
        found.append(mean)
    return found


@pytest.mark.parametrize("params", [PARAMS, ActivityParams(bars=1, sessions=1), ActivityParams(bars=7, sessions=3)])
def test_equals_the_definition(params):
    volume, start, session, filled = session_bars(12)
    volume[[5, 100, 101]] = 0.0
    filled[[7, 300]] = True
    np.testing.assert_allclose(
        activity(volume, start, session, filled, params), by_hand(volume, start, filled, params), atol=1e-12
    )


def test_a_day_like_the_others_is_0_whatever_its_shape():
    volume, start, session, filled = session_bars(5, noise=0.0)
    np.testing.assert_allclose(activity(volume, start, session, filled, PARAMS), 0.0, atol=1e-12)
    assert not activity(*session_bars(1), PARAMS).any()


def test_twice_the_volume_reads_as_the_logarithm_of_two():
    factors = np.array([1.0] * 30 + [2.0] * 2)
    found = activity(*session_bars(32, factors, noise=0.1), PARAMS).reshape(32, BARS)
    assert found[5:30].std() < 0.05
    assert found[30, -1] == pytest.approx(np.log(2), abs=0.15)
    assert found[31, -1] == pytest.approx(np.log(2), abs=0.1)


def test_a_session_that_closes_early_is_compared_with_the_mornings():
    columns = session_bars(12, noise=0.0)
    keep = ~((columns[2] == 8) & (np.arange(columns[0].size) % BARS >= 30))
    np.testing.assert_allclose(activity(*(x[keep] for x in columns), PARAMS), 0.0, atol=1e-12)


def test_filled_bars_and_bars_without_volume_count_for_nothing():
    volume, start, session, filled = session_bars(6)
    keep = np.ones(volume.size, bool)
    keep[[90, 91, 200]] = False
    expected = activity(volume[keep], start[keep], session[keep], filled[keep], PARAMS)
    volume[[90, 91]], volume[200], filled[200] = 0.0, 1e9, True
    found = activity(volume, start, session, filled, PARAMS)
    np.testing.assert_array_equal(found[keep], expected)
    assert found[90] == found[89]


def test_prefix_and_chunks():
    columns = session_bars(20, seed=4)
    whole = activity(*columns, PARAMS)
    for cut in np.random.default_rng(1).integers(0, whole.size, 20):
        np.testing.assert_array_equal(activity(*(x[:cut] for x in columns), PARAMS), whole[:cut])
    stream = Stream(PARAMS)
    edges = [0, 1, 2, 50, 700, whole.size]
    parts = [stream.update(*(x[a:b] for x in columns)) for a, b in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_columns_of_two_lengths_are_refused():
    volume, start, session, filled = session_bars(2)
    with pytest.raises(InputError, match="activity: start_ms has shape"):
        activity(volume, start[1:], session, filled, PARAMS)
