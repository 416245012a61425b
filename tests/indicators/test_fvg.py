import numpy as np
import pytest

from algospace.errors import InputError
from algospace.indicators.fvg import FVG, FVGParams, fvg
from algospace.indicators.technical import atr, volume_ratio

ANY = FVGParams(min_size_bp=0.0, min_size_atr=0.0, max_age=50)


def run(rows, params=ANY, session=None, synthetic=None, volume=None, atrs=None):
    """Rows are (high, low, close)."""
    high, low, close = np.array(rows, dtype=float).T
    n = len(rows)
    return fvg(
        high,
        low,
        close,
        np.full(n, 10.0) if volume is None else np.array(volume, dtype=float),
        np.ones(n) if atrs is None else np.array(atrs, dtype=float),
        np.zeros(n, dtype=int) if session is None else session,
        np.zeros(n, dtype=bool) if synthetic is None else np.array(synthetic),
        params,
        20,
    )


GAP = [(100, 99, 99.5), (101.1, 99.5, 101), (102, 101.2, 101.8)]  # bullish [100, 101.2], born at row 2
INSIDE = (101.5, 100.5, 101)
FILL = (101.5, 99.9, 100.5)


def mirror(rows):
    return [(200 - low, 200 - high, 200 - close) for high, low, close in rows]


def test_bullish_gap_is_created_kept_and_mitigated():
    out = run([*GAP, INSIDE, FILL, INSIDE])
    assert out.created.tolist() == [0, 0, 1, 0, 0, 0]
    assert out.bullish_active.tolist() == [False, False, True, True, False, False]
    assert not out.bearish_active.any()
    assert out.age.tolist() == [-1, -1, 0, 1, -1, -1]
    np.testing.assert_array_equal(out.nearest_level, [np.nan, np.nan, 101.2, 101.2, np.nan, np.nan])
    assert out.mitigation_signal.tolist() == [0, 0, 0, 0, 1, 0]
    assert out.mitigation_level[4] == 101.2
    assert out.mitigation_size[4] == pytest.approx(1.2)
    assert out.mitigation_penetration[4] == 1.0
    # n = 2, volume ratio unknown = 1
    assert out.mitigation_strength[4] == pytest.approx(0.4 + 0.3 * 0.9 + 0.2 * 0.5 + 0.1 * 0.96)
    assert np.isnan(np.delete(out.mitigation_strength, 4)).all()


def test_bearish_gap_is_the_mirror_image():
    up, down = run([*GAP, INSIDE, FILL, INSIDE]), run(mirror([*GAP, INSIDE, FILL, INSIDE]))
    np.testing.assert_array_equal(down.created, -up.created)
    np.testing.assert_array_equal(down.mitigation_signal, -up.mitigation_signal)
    np.testing.assert_array_equal(down.bearish_active, up.bullish_active)
    np.testing.assert_allclose(down.nearest_level, 200 - up.nearest_level)
    np.testing.assert_allclose(down.mitigation_strength, up.mitigation_strength)


def test_touching_the_far_edge_mitigates_and_less_does_not():
    assert run([*GAP, (101, 100.0, 100.5)]).mitigation_signal[3] == 1
    assert run([*GAP, (101, 100.01, 100.5)]).mitigation_signal[3] == 0


def test_age_50_still_lives_and_51_does_not():
    for wait, alive in ((49, True), (50, False)):
        out = run([*GAP, *[INSIDE] * wait, FILL])
        assert bool(out.mitigation_signal[-1] == 1) is alive
    out = run([*GAP, *[INSIDE] * 51])
    assert out.age[2 + 50] == 50
    assert out.age[2 + 51] == -1
    assert not out.bullish_active[2 + 51]


def test_middle_bar_must_close_beyond():
    rows = [*GAP]
    rows[1] = (101.1, 99.5, 100.0)
    assert not run(rows).created.any()


def test_sizes():
    size = 1.2
    assert run(GAP, FVGParams(min_size_bp=0.0, min_size_atr=size + 0.01, max_age=50)).created[2] == 0
    assert run(GAP, FVGParams(min_size_bp=0.0, min_size_atr=size - 0.01, max_age=50)).created[2] == 1
    assert run(GAP, FVGParams(min_size_bp=1e4 * 1.21 / 101.8, min_size_atr=0.0, max_age=50)).created[2] == 0
    assert run(GAP, FVGParams(min_size_bp=1e4 * 1.19 / 101.8, min_size_atr=0.0, max_age=50)).created[2] == 1
    unknown = [np.nan] * 3
    assert run(GAP, FVGParams(min_size_bp=0.0, min_size_atr=0.1, max_age=50), atrs=unknown).created[2] == 0
    assert run(GAP, ANY, atrs=unknown).created[2] == 1


def test_never_across_a_session_or_a_synthetic_bar():
    for session in ([0, 1, 1], [0, 0, 1]):
        assert not run(GAP, session=session).created.any()
    for hole in range(3):
        assert not run(GAP, synthetic=[i == hole for i in range(3)]).created.any()
    out = run([*GAP, INSIDE, FILL], session=[0, 0, 0, 1, 1])
    assert not out.bullish_active[3]
    assert not out.mitigation_signal.any()


def test_of_several_the_newest_wins_and_all_are_removed():
    rows = [*GAP, (103, 101, 102.9), (104, 103.1, 103.5), (104, 99, 99.5), (104, 99, 100)]
    out = run(rows)
    assert out.created.tolist() == [0, 0, 1, 0, 1, 0, 0]
    assert out.mitigation_level[5] == 103.1
    assert out.mitigation_signal.tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert not out.bullish_active[5]


def test_of_two_equally_near_edges_the_newer_counts():
    out = run([*GAP, (102, 101.2, 101.8), INSIDE])  # the second gap is [101.1, 101.2]
    assert out.created.tolist() == [0, 0, 1, 1, 0]
    assert out.nearest_level[3] == 101.2
    assert out.age[3] == 0


def test_volume_counts_in_the_strength():
    out = run([*GAP, *[INSIDE] * 18, FILL], volume=[10] * 21 + [15])
    assert out.mitigation_strength[-1] == pytest.approx(0.4 + 0.3 * 0.05 + 0.2 * 0.75 + 0.1 * 0.62)


def naive(bars, atrs, params, window):
    """The rules written over a list of gaps."""
    gaps, rows = [], []
    ratio = volume_ratio(bars.volume, window)
    for t in range(bars.close.size):
        if t and bars.session_id[t] != bars.session_id[t - 1]:
            gaps = []
        hit = [g for g in gaps if (bars.low[t] <= g["lo"] if g["side"] > 0 else bars.high[t] >= g["hi"])]
        hit = [g for g in hit if t - g["t"] <= params.max_age]
        gaps = [g for g in gaps if g not in hit and t - g["t"] <= params.max_age]
        made = 0
        triple = slice(t - 2, t + 1)
        if t >= 2 and len(set(bars.session_id[triple])) == 1 and not bars.is_synthetic[triple].any():
            for side, lo, hi, beyond in (
                (1, bars.high[t - 2], bars.low[t], bars.close[t - 1] > bars.high[t - 2]),
                (-1, bars.high[t], bars.low[t - 2], bars.close[t - 1] < bars.low[t - 2]),
            ):
                if hi > lo and beyond and hi - lo >= params.min_size_atr * atrs[t]:
                    made = side
                    gaps.append({"t": t, "side": side, "lo": lo, "hi": hi})
        near = min(
            gaps,
            key=lambda g: (abs(bars.close[t] - (g["hi"] if g["side"] > 0 else g["lo"])), -g["t"]),
            default=None,
        )
        won = max(hit, key=lambda g: g["t"], default=None)
        strength = np.nan
        if won:
            v = 1.0 if np.isnan(ratio[t]) else ratio[t]
            n = t - won["t"]
            strength = 0.4 + 0.3 * max(0, 1 - n / 20) + 0.2 * min(v / 2, 1) + 0.1 * max(0, 1 - n / 50)
        rows.append(
            (
                any(g["side"] > 0 for g in gaps),
                any(g["side"] < 0 for g in gaps),
                np.nan if near is None else near["hi"] if near["side"] > 0 else near["lo"],
                -1 if near is None else t - near["t"],
                won["side"] if won else 0,
                np.nan if won is None else won["hi"] if won["side"] > 0 else won["lo"],
                won["hi"] - won["lo"] if won else np.nan,
                1.0 if won else np.nan,
                strength,
                made,
            )
        )
    return FVG(*np.array(rows, dtype=float).T)


@pytest.mark.parametrize("max_age", [5, 50])
def test_equals_the_rules_over_lists(bars, max_age):
    params = FVGParams(min_size_bp=0.0, min_size_atr=0.02, max_age=max_age)
    atrs = atr(bars.high, bars.low, bars.close, 14)
    out = fvg(bars.high, bars.low, bars.close, bars.volume, atrs, bars.session_id, bars.is_synthetic, params, 20)
    for name, got, expected in zip(FVG._fields, out, naive(bars, atrs, params, 20), strict=True):
        np.testing.assert_allclose(got.astype(float), expected, rtol=1e-12, err_msg=name)
    assert {-1, 0, 1} == set(out.mitigation_signal.tolist()) == set(out.created.tolist())


def test_prefix(bars, cuts):
    def compute(end):
        b = [x[:end] for x in (bars.high, bars.low, bars.close, bars.volume)]
        return fvg(*b, atr(*b[:3], 14), bars.session_id[:end], bars.is_synthetic[:end], ANY, 20)

    whole = compute(bars.close.size)
    for cut in cuts:
        for got, expected in zip(compute(cut), whole, strict=True):
            np.testing.assert_array_equal(got, expected[:cut])


def test_flat_prices_make_no_gap():
    out = run([(100, 100, 100)] * 80)
    assert not out.created.any()
    assert not out.mitigation_signal.any()


def test_lengths_must_agree():
    with pytest.raises(InputError, match="session_id"):
        run(GAP, session=[0, 0])
