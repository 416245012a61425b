"""Gate 1's rates are counted from the very signals of the feature table, under any thresholds."""

import numpy as np
import pandas as pd
import pytest

from algospace.features import census, table
from algospace.signals import SignalStream


@pytest.fixture(scope="module")
def m5(settings, fitted_state, gappy_bars):
    return table.build(gappy_bars, settings.contract, settings.indicators, settings.gate1, fitted_state.reference).m5


def test_signals_are_those_of_the_table(m5, gappy_bars, settings):
    found = SignalStream(settings.indicators, settings.gate1).update(gappy_bars)
    for name in ("mlmi", "nwrqk", "fvg"):
        np.testing.assert_array_equal(getattr(found, name), m5[f"{name}_sig"])
        assert np.count_nonzero(m5[f"{name}_sig"]) > 100
    np.testing.assert_array_equal(found.m30_atr, m5["m30_atr"])


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_signals_do_not_depend_on_the_chunks(gappy_bars, settings, rows):
    bars = gappy_bars.iloc[:800]
    whole = SignalStream(settings.indicators, settings.gate1).update(bars)
    stream = SignalStream(settings.indicators, settings.gate1)
    parts = [stream.update(chunk) for chunk in table.chunks(bars, rows)]
    for pieces, column in zip(zip(*parts, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), column)


def test_counts(m5, gappy_bars, settings):
    counts = census.census(gappy_bars, settings.indicators, settings.gate1, (10, settings.gate1.window))
    assert counts["signals"] == {n: int((m5[f"{n}_sig"] != 0).sum()) for n in ("mlmi", "nwrqk", "fvg")}
    assert counts["signal_bars"] == (m5[["mlmi_sig", "nwrqk_sig", "fvg_sig"]] != 0).any(axis=1).sum()
    found = counts[f"window_{settings.gate1.window}"]
    fired = m5[m5["gate1_type"] != 0]
    assert found["synergies"] == len(fired) > counts["window_10"]["synergies"] > 0
    for kind in range(1, 5):
        for side, sign in (("long", 1), ("short", -1)):
            same = (fired["gate1_type"] == kind) & (fired["gate1_direction"] == sign)
            assert found[f"type_{kind}_{side}"] == same.sum()
    months = fired["session_id"].floordiv(100).value_counts()
    assert found["months"] == {
        f"{m // 100}-{m % 100:02d}": int(months.get(m, 0)) for m in pd.unique(m5["session_id"] // 100)
    }
