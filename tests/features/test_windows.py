"""Rows on hand values, their mirror, which windows are whole, and Gate 1 as the agents see it."""

import numpy as np
import pandas as pd
import pytest

from algospace.features import prepared, table, windows
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows

NOON = pd.Timestamp("2022-01-05 17:00Z")  # in New York


def structure_frame(**changes):
    row = {
        "close": 200.0, "mlmi_value": 75.0, "mlmi_signal": 1, "nwrqk_value": 201.0, "nwrqk_slope": -1.0,
        "lvn_distance_points": 2.0, "lvn_nearest_strength": 40.0, "close_utc": NOON,
    }  # fmt: skip
    return pd.DataFrame([row | changes])


def tactical_frame(**changes):
    row = {
        "close": 200.0, "fvg_bullish_active": True, "fvg_bearish_active": False, "fvg_nearest_level": 198.0,
        "fvg_age": 5, "fvg_mitigation_signal": 1, "momentum_5": 1.5, "volume_ratio": 2.0,
    }  # fmt: skip
    return pd.DataFrame([row | changes])


def test_structure_row_by_hand():
    expected = [0.5, 1, 0.1, -0.5, np.exp(-1.0), 0.4, 0.0, -1.0]
    np.testing.assert_allclose(windows.structure_rows(structure_frame())[0], expected, atol=1e-6)


def test_structure_row_is_cut_and_knows_no_level():
    found = windows.structure_rows(
        structure_frame(
            nwrqk_value=300.0,
            nwrqk_slope=9.0,
            lvn_distance_points=np.nan,
            lvn_nearest_strength=np.nan,
            close_utc=pd.Timestamp("2022-07-05 22:30Z"),  # 18:30 in New York, in summer
        )
    )[0]
    angle = 2 * np.pi * 18.5 / 24
    np.testing.assert_allclose(found[2:], [1, 1, 0, 0, np.sin(angle), np.cos(angle)], atol=1e-6)


def test_tactical_row_by_hand():
    expected = [1, 0, -0.5, np.exp(-0.5), 1, 0.3, 0.6]  # tanh(ln 2) = 3 / 5
    np.testing.assert_allclose(windows.tactical_rows(tactical_frame())[0], expected, atol=1e-6)


def test_tactical_row_without_gap_momentum_and_volume():
    frame = tactical_frame(fvg_nearest_level=np.nan, fvg_age=-1, momentum_5=np.nan, volume_ratio=0.0)
    np.testing.assert_array_equal(windows.tactical_rows(frame)[0, 2:], np.array([0, 0, 1, 0, -1], np.float32))


def test_structure_mirror():
    """Up is down: the formula of the mirrored market is the mirrored row."""
    up = windows.structure_rows(structure_frame())
    down = windows.structure_rows(
        structure_frame(mlmi_value=25.0, mlmi_signal=-1, nwrqk_value=199.0, nwrqk_slope=1.0, lvn_distance_points=-2.0)
    )
    np.testing.assert_allclose(down, up * windows.MIRROR_STRUCTURE, atol=1e-7)


def test_tactical_mirror():
    up = windows.tactical_rows(tactical_frame())
    down = windows.tactical_rows(
        tactical_frame(
            fvg_bullish_active=False,
            fvg_bearish_active=True,
            fvg_nearest_level=202.0,
            fvg_mitigation_signal=-1,
            momentum_5=-1.5,
        )
    )
    mirrored = up[:, windows.MIRROR_TACTICAL_FROM] * windows.MIRROR_TACTICAL
    np.testing.assert_allclose(down, mirrored, atol=1e-7)


def test_side_mirror_flips_what_has_a_direction():
    flipped = {name for name, sign in zip(table.SIDE, windows.MIRROR_SIDE, strict=True) if sign < 0}
    assert flipped == set(table.SIDE) - {"adx_14", "volume_ratio"}


def random_rows(seed: int, holes: float) -> Rows:
    rng = np.random.default_rng(seed)
    n5, n30 = 300, 50

    def rows(n: int, width: int) -> np.ndarray:
        values = rng.normal(size=(n, width)).astype(np.float32)
        values[: rng.integers(0, n // 6)] = np.nan
        values[rng.random(n) < holes, rng.integers(width)] = np.nan
        return values

    m30_row = np.minimum(np.sort(rng.integers(-3, n30, n5)), np.arange(n5) // 2)
    return Rows(rows(n30, 8), rows(n30, 12), rows(n5, 7), rows(n5, 9), np.maximum.accumulate(m30_row))


def is_whole(rows: Rows, end: int, params: FeatureParams) -> bool:
    """Cut every window and look."""
    newest = rows.m30_row[end]
    starts = (
        newest + 1 - params.window_30m, newest + 1 - params.window_regime, end + 1 - params.window_5m,
        end + 1 - params.window_arbitrage,
    )  # fmt: skip
    if min(starts) < 0:
        return False
    past = slice(starts[3], end + 1)
    slow = rows.m30_row[past]
    if (slow < 0).any():
        return False
    parts = (
        rows.structure[starts[0] : newest + 1], rows.regime[starts[1] : newest + 1], rows.tactical[starts[2] : end + 1],
        rows.tactical[past], rows.structure[slow], rows.side[end],
    )  # fmt: skip
    return all(np.isfinite(part).all() for part in parts)


@pytest.mark.parametrize("sizes", [(4, 6, 9, 7), (5, 12, 8, 3), (1, 1, 1, 1), (3, 2, 40, 5)])
@pytest.mark.parametrize("seed", range(6))
def test_complete_marks_exactly_the_rows_with_finite_windows(sizes, seed):
    names = ("window_30m", "window_5m", "window_arbitrage", "window_regime")
    params = FeatureParams(**dict(zip(names, sizes, strict=True)))
    rows = random_rows(seed, 0.02)
    found = windows.complete(rows, params)
    expected = [is_whole(rows, end, params) for end in range(len(rows.m30_row))]
    assert found.tolist() == expected
    assert any(expected)


def test_complete_on_the_market(settings, fitted_state, market_bars):
    built = table.build(
        market_bars.iloc[:9000], settings.contract, settings.indicators, settings.gate1, fitted_state.reference
    )
    rows = windows.rows(built, fitted_state)
    found = windows.complete(rows, settings.features)
    changes = np.flatnonzero(np.diff(found))
    ends = np.unique(np.r_[np.arange(0, 9000, 97), changes, changes + 1])
    assert [bool(x) for x in found[ends]] == [is_whole(rows, int(end), settings.features) for end in ends]
    assert found.any()
    assert not found.all()


def test_complete_without_a_half_hour(settings, fitted_state, market_bars):
    built = table.build(
        market_bars.iloc[:3], settings.contract, settings.indicators, settings.gate1, fitted_state.reference
    )
    rows = windows.rows(built, fitted_state)
    assert windows.complete(rows, settings.features).tolist() == [False] * 3


def test_gather_cuts_the_rows_before_and_at_the_end():
    rows = np.arange(20.0).reshape(10, 2)
    found = prepared.gather(rows, np.array([4, 9]), 3)
    assert found.shape == (2, 3, 2)
    np.testing.assert_array_equal(found[0], rows[2:5])
    np.testing.assert_array_equal(found[1], rows[7:10])


def gate1_frame():
    """A completed synergy of type 3 going long, and a short signal beside an unfinished long sequence."""
    frame = pd.DataFrame(
        {
            "gate1_type": [3, 0], "mlmi_sig": [1, 0], "nwrqk_sig": [0, -1], "fvg_sig": [0, 1],
            "strength_mlmi_now": [0.25, 0.5], "strength_nwrqk_now": [0.75, 0.125], "strength_fvg_now": [0.5, 0.625],
            "gate1_stage_long": [0, 2], "gate1_stage_short": [1, 1],
            "gate1_first_kind_long": [0, 1], "gate1_first_kind_short": [1, 2],
            "gate1_second_kind_long": [0, 3], "gate1_second_kind_short": [0, 0],
            "gate1_age_long": [-1, 6], "gate1_age_short": [4, 3],
            "gate1_bars_to_complete": [15, 0], "gate1_quality": [0.5, np.nan],
            "m30_atr": [2.0, 25.0], "close": [200.0, 1000.0], "activity": [0.0, -0.25],
        }
    )  # fmt: skip
    return pd.concat([frame.iloc[:0], frame, frame]).reset_index(drop=True)


def test_gate1_code_by_hand(settings):
    gate1 = settings.gate1.model_copy(update={"window": 30})
    found = windows.gate1_code(gate1_frame(), np.array([0, 3]), np.array([1, -1]), gate1)
    assert found.shape == (2, windows.GATE1_CODE)
    assert found.dtype == np.float32
    synergy = [
        0, 0, 1, 0,  # type 3
        1, 0, 0,  # MLMI fires
        0.25, 0, 0,  # its strength alone
        0, 0, 0, 0, 0, 0, 0, 0,  # the long tracker is empty
        0,  # age
        0.5, 0.5, 1,  # 15 of 30 bars, quality, long
        0, 0,  # an ATR of one per cent, as busy as usual
    ]  # fmt: skip
    signal = [
        0, 0, 0, 0,
        0, 1, -1,  # NW-RQK agrees with short, FVG does not
        0, 0.125, 0.625,
        1, 0,  # the short tracker: one signal,
        0, 1, 0,  # NW-RQK,
        0, 0, 0,  # no second,
        0.1,  # 3 bars old
        0, 0, -1,
        np.log(2.5), -0.25,  # 2.5 per cent, quieter than usual
    ]  # fmt: skip
    np.testing.assert_allclose(found, np.array([synergy, signal]), atol=1e-7)


def test_gate1_code_of_the_market_is_finite_and_small(settings, fitted_state, market_bars):
    built = table.build(market_bars, settings.contract, settings.indicators, settings.gate1, fitted_state.reference)
    direction = built.m5["candidate_direction"].to_numpy()
    ends = np.flatnonzero(direction)
    found = windows.gate1_code(built.m5, ends, direction[ends], settings.gate1)
    assert np.isfinite(found).all()
    assert np.abs(found[:, :22]).max() <= (settings.gate1.window + 1) / settings.gate1.window
    volatility = found[:, 22]  # log per cent
    assert -5 < volatility.min() < volatility.max() < 2
    assert np.abs(found[:, 23]).max() <= 1
