"""Every indicator is one kernel with a state: bar by bar, in chunks or at once, the bits are the same."""

from itertools import pairwise

import numpy as np
import pytest

from algospace import synergy
from algospace.indicators import fvg, lvn, mlmi, mmd, nwrqk
from algospace.synergy import Gate1Params

N = 2500
MLMI = mlmi.MLMIParams(
    k=5, max_points=40, ma_fast=5, ma_slow=20, rsi_fast=5, rsi_slow=20, rsi_smooth=20, smooth=5
)  # few points, so that old ones are forgotten
NWRQK = nwrqk.NWRQKParams(h=8.0, alpha=8.0, lookback_h=10.0, slope_window=100)
FVG = fvg.FVGParams(min_size_bp=0.0, min_size_atr=0.1, max_age=12)
LVN = lvn.LVNParams(bin_ticks=4, window_sessions=5, threshold=0.3, heiken_ashi=True, test_band=0.001, bounce_bars=5)
GATE1 = Gate1Params(
    window=30, cooldown=5, mlmi_dead_band=0.0, nwrqk_min_slope=0.0, fvg_strength_size=0.01, min_train_events=0
)


def reference(z):
    rng = np.random.default_rng(0)
    return mmd.MMDReference(
        np.nanmedian(z, axis=0), np.nanstd(z, axis=0), rng.normal(size=(3, 20, 4)), np.array(2.5),
        np.array(mmd.KERNEL_SCALES),
    )  # fmt: skip


def columns_of(bars):
    """Name -> (a fresh stream, its columns)."""
    rng = np.random.default_rng(1)
    z = mmd.path(bars.ha_open, bars.ha_high, bars.ha_low, bars.ha_close, bars.volume)
    value = nwrqk.nwrqk(bars.ha_close, NWRQK)
    atr = np.where(np.arange(N) < 14, np.nan, bars.high - bars.low)
    events = [rng.choice([-1, 0, 1], N, p=[0.03, 0.94, 0.03]) for _ in range(3)]
    strengths = [rng.random(N) for _ in range(3)]
    return {
        "mlmi": (mlmi.Stream(MLMI), (bars.ha_close, bars.close)),
        "nwrqk": (nwrqk.Stream(NWRQK), (bars.ha_close,)),
        "slope": (nwrqk.SlopeStream(NWRQK.slope_window), (value,)),
        "fvg": (
            fvg.Stream(FVG, 20),
            (bars.high, bars.low, bars.close, bars.volume, atr, bars.session_id, bars.is_synthetic),
        ),
        "lvn": (
            lvn.Stream(2.0, LVN),
            (bars.ha_high, bars.ha_low, bars.ha_close, bars.close, bars.volume, bars.session_id, bars.is_synthetic),
        ),
        "path": (mmd.PathStream(), (bars.ha_open, bars.ha_high, bars.ha_low, bars.ha_close, bars.volume)),
        "mmd": (mmd.Stream(reference(z), 24), (z, bars.ha_close, bars.volume)),
        "gate1": (synergy.Stream(GATE1), (*events, *strengths, bars.session_id)),
    }


def fed(name, bars, bounds):
    stream, columns = columns_of(bars)[name]
    parts = [stream.update(*(column[a:b] for column in columns)) for a, b in pairwise(bounds)]
    parts = [part if isinstance(part, tuple) else (part,) for part in parts]
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


@pytest.mark.parametrize("name", ["mlmi", "nwrqk", "slope", "fvg", "lvn", "path", "mmd", "gate1"])
def test_any_chunks_give_the_same_bits(bars, name):
    whole = fed(name, bars, [0, N])
    assert all(len(column) == N for column in whole)
    ragged = np.sort(np.random.default_rng(2).integers(0, N, 40)).tolist()  # some of them empty
    for bounds in (range(N + 1), [*range(0, N, 7), N], [*range(0, N, 1000), N], [0, 0, *ragged, N, N]):
        for alone, together in zip(fed(name, bars, bounds), whole, strict=True):
            assert alone.dtype == together.dtype
            np.testing.assert_array_equal(alone, together)


def test_a_stream_remembers_no_more_than_its_window(bars):
    _, columns = columns_of(bars)["lvn"]
    stream = lvn.Stream(2.0, LVN)
    stream.update(*columns)
    kept = bars.session_id[-1] - LVN.window_sessions  # the window holds the last five sessions
    assert len(stream._window[0]) == (~bars.is_synthetic & (bars.session_id > kept)).sum()


def test_too_wide_a_window_is_refused(bars):
    _, columns = columns_of(bars)["lvn"]
    high = columns[0].copy()
    high[700] = 1e8
    with pytest.raises(lvn.InputError, match="bin_ticks: expected a window of at most"):
        lvn.Stream(2.0, LVN).update(high, *columns[1:])
