import numpy as np
import pytest

from algospace.errors import InputError
from algospace.indicators.lvn import LVN, LVNParams, lvn

PARAMS = LVNParams(bin_ticks=4, window_sessions=20, threshold=0.30, heiken_ashi=True, test_band=0.001, bounce_bars=5)


def run(bars, params=PARAMS, width=2.0, end=None):
    return lvn(
        bars.ha_high[:end],
        bars.ha_low[:end],
        bars.ha_close[:end],
        bars.close[:end],
        bars.volume[:end],
        bars.session_id[:end],
        bars.is_synthetic[:end],
        width,
        params,
    )


def simple(high, low, close, volume, **columns):
    n = len(high)
    columns = {"session_id": np.zeros(n), "is_synthetic": np.zeros(n, dtype=bool), **columns}
    high, low, close, volume = (np.array(x, dtype=float) for x in (high, low, close, volume))
    return lvn(high, low, close, close, volume, bin_width=1.0, params=PARAMS, **columns)


def test_two_humps():
    # Volume per bin 100..104: 90 90 2 90 90, so smoothed 67.5 68 46 68 67.5: nothing below 0.30 of the peak.
    # Wider valley 100..106: 90 90 0 2 0 90 90: smoothed 67.5 67.5 23 1 23 67.5 67.5: the node is bin 103.
    narrow = simple([102, 105, 103], [100, 103, 102], [101, 104, 102.5], [180, 180, 2])
    assert narrow.count.tolist() == [0, 0, 0]
    assert np.isnan(narrow.nearest_price).all()
    wide = simple([102, 107, 104], [100, 105, 103], [101, 106, 103.5], [180, 180, 2])
    # Before the third bar the bins 102..104 are empty and smoothed 22.5 0 22.5.
    assert wide.count.tolist() == [0, 1, 1]
    assert wide.nearest_price[1:].tolist() == [103.5, 103.5]
    assert wide.distance_points[1:].tolist() == [2.5, 0.0]
    assert wide.support_price[1:].tolist() == [103.5, 103.5]
    assert np.isnan(wide.resistance_price).all()


def test_strength_by_hand():
    out = simple([102, 107, 103.55], [100, 105, 103.45], [101, 106, 103.5], [180, 180, 2])
    smoothed = np.array([67.5, 67.5, 23, 1, 23, 67.5, 67.5])
    void = 1 - 1 / smoothed.mean()
    # One test (the newest bar, weight 1), too young for a bounce.
    assert out.nearest_strength[2] == pytest.approx((10 + 5 + 15 * void) / 0.9, rel=1e-12)
    assert out.nearest_strength[1] == pytest.approx(15 / 0.9)


def test_bounce_waits_for_its_bars():
    high = [102, 107, 103.55, *[102] * 6]
    low = [100, 105, 103.45, *[100] * 6]
    close = [101, 106, 103.5, *[101] * 4, 102.0, 101]
    out = simple(high, low, close, [180, 180, 2, *[1] * 6])
    without = simple(high, low, [101, 106, 103.5, *[101] * 4, 103.4, 101], [180, 180, 2, *[1] * 6])
    gain = out.resistance_strength - without.resistance_strength
    assert np.isnan(gain[:3]).all()
    assert (gain[3:7] == 0).all()  # five bars after the test is row 7
    np.testing.assert_allclose(gain[7:], 500 * (1.4 / 103.5) / 0.9)


def test_valley_between_bars_is_level_and_its_middle_is_the_node():
    # One bar spans the whole valley: its bins must be equal to the last bit, whatever the width of the bar.
    out = simple([3, 23.7, 26], [1, 2.3, 23.9], [2, 20, 25], [900, 7, 900])
    assert out.count[2] == 1
    assert out.nearest_price[2] == (4 + 22) / 2


def naive(bars, params, width, t):
    """The profile of the window from nothing, then the recipe."""
    ids = np.unique(bars.session_id[: t + 1])[-params.window_sessions :]
    rows = np.flatnonzero(np.isin(bars.session_id[: t + 1], ids) & ~bars.is_synthetic[: t + 1])
    h, lo, c, v = (x[rows] for x in (bars.ha_high, bars.ha_low, bars.ha_close, bars.volume))
    first, last = int(lo.min() // width), int(-(-h.max() // width)) - 1
    edges = np.arange(first, last + 2) * width
    profile = np.zeros(last - first + 1)
    for i in range(rows.size):
        overlap = np.clip(np.minimum(h[i], edges[1:]) - np.maximum(lo[i], edges[:-1]), 0, None)
        profile += v[i] * overlap / overlap.sum()
    smooth = np.convolve(profile, [0.25, 0.5, 0.25], mode="same")
    nodes = []
    b = 1
    while b < smooth.size - 1:
        e = b
        while e < smooth.size - 1 and abs(smooth[e + 1] - smooth[b]) < 1e-9:
            e += 1
        inside = e < smooth.size - 1 and smooth[b - 1] - smooth[b] > 1e-9 and smooth[e + 1] > smooth[b]
        if inside and smooth[b] < params.threshold * smooth.max():
            nodes.append(((first + (b + e + 1) / 2) * width, smooth[b]))
        b = e + 1

    def strength(level, volume):
        tests = (np.abs(lo - level) / level < params.test_band) | (np.abs(h - level) / level < params.test_band)
        weight = np.linspace(0.5, 1, rows.size)
        old = np.flatnonzero(tests[: -params.bounce_bars])
        moves = np.abs(c[old + params.bounce_bars] - c[old]) / c[old]
        bounce = min(500 * moves.mean(), 25) if old.size else 0
        return (
            min(10 * tests.sum(), 30)
            + bounce
            + min(5 * weight[tests].sum(), 20)
            + 15 * max(0, 1 - volume / smooth.mean())
        ) / 0.9

    price = bars.close[t]
    below = max((x for x in nodes if x[0] <= price), default=None)
    above = min((x for x in nodes if x[0] > price), default=None)
    near = min((x for x in (below, above) if x), key=lambda x: abs(x[0] - price), default=None)
    out = []
    for node in (near, below, above):
        out += [np.nan, np.nan] if node is None else [node[0], strength(*node)]
    out.insert(2, np.nan if near is None else abs(near[0] - price))
    return [*out, len(nodes)]


@pytest.mark.parametrize("sessions", [2, 20])
def test_equals_the_profile_from_nothing(bars, sessions):
    params = PARAMS.model_copy(update={"window_sessions": sessions})
    out = run(bars, params)
    rows = np.random.default_rng(3).integers(5, bars.close.size, 150)
    found = 0
    for t in rows:
        got = [column[t] for column in out]
        np.testing.assert_allclose(got, naive(bars, params, 2.0, t), rtol=1e-9, err_msg=str(t))
        found += got[-1] > 0
    assert found > 50


def test_prefix(bars, cuts):
    whole = run(bars)
    for cut in cuts:
        for got, expected in zip(run(bars, end=cut), whole, strict=True):
            np.testing.assert_array_equal(got, expected[:cut])


def test_forgets_what_left_the_window(bars):
    params = PARAMS.model_copy(update={"window_sessions": 3})
    whole, late = run(bars, params), 46 * 10
    columns = (bars.ha_high, bars.ha_low, bars.ha_close, bars.close, bars.volume)
    part = lvn(*[x[late:] for x in columns], bars.session_id[late:], bars.is_synthetic[late:], 2.0, params)
    for got, expected in zip(part, whole, strict=True):
        np.testing.assert_array_equal(got[2 * 46 :], expected[late + 2 * 46 :])


def test_synthetic_bars_do_not_count():
    high, low, close, volume = [102, 107, 104], [100, 105, 103], [101, 106, 103.5], [180, 180, 500]
    out = simple(high, low, close, volume, is_synthetic=np.array([False, False, True]))
    assert out.nearest_price[2] == 103.5
    assert simple(high, low, close, volume).count[2] == 0


def test_flat_short_and_wrong_input():
    flat = simple([100] * 30, [100] * 30, [100] * 30, [5] * 30)
    assert not flat.count.any()
    assert np.isnan(flat.nearest_price).all()
    assert all(column.size == 0 for column in simple([], [], [], []))
    no_volume = simple([102, 107], [100, 105], [101, 106], [0, 0])
    assert not no_volume.count.any()
    with pytest.raises(InputError, match="bin_width is 0"):
        lvn(*[np.ones(2)] * 5, np.ones(2), np.zeros(2), 0.0, PARAMS)
    with pytest.raises(InputError, match="finite"):
        simple([np.nan], [1], [1], [1])


def test_ranges(bars):
    out = run(bars)
    assert isinstance(out, LVN)
    for strength in (out.nearest_strength, out.support_strength, out.resistance_strength):
        known = strength[np.isfinite(strength)]
        assert known.min() >= 0
        assert known.max() <= 100
    assert (out.support_price[np.isfinite(out.support_price)] <= bars.close[np.isfinite(out.support_price)]).all()
