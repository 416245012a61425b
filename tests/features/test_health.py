"""Inputs that say the same are listed, a quarter that has moved is seen, and test bars are not looked at."""

import numpy as np
import pandas as pd
import pytest

from algospace import artefacts, drift
from algospace.data.splits import REPORT, SELECT, TEST, TRAIN
from algospace.features import health, outputs, table, windows
from algospace.features.prepared import RegimeRows


@pytest.fixture(scope="module")
def parts(settings, fitted_state, market_bars):
    built = table.build(market_bars, settings.contract, settings.indicators, settings.gate1, fitted_state.reference)
    rows = windows.rows(built, fitted_state)
    n = len(market_bars)
    codes = np.select([np.arange(n) < n // 2, np.arange(n) < 2 * n // 3, np.arange(n) < 5 * n // 6], [0, 1, 2], TEST)
    main = outputs.main_table(built, codes.astype(np.int8), windows.complete(rows, settings.features))
    none = np.empty(0, np.int64)
    return main, RegimeRows(rows.regime, rows.structure, none, none, none)


def inspect(tmp_path, parts, fitted_state, change=lambda main: main):
    artefacts.write_parquet(tmp_path / "main.parquet", change(parts[0]))
    return health.inspect(tmp_path / "main.parquet", parts[1], fitted_state)


def test_every_input_of_every_quarter_is_judged(tmp_path, parts, fitted_state):
    found = inspect(tmp_path, parts, fitted_state)
    assert list(found["drift"]) == ["2022Q1"]
    assert len(found["drift"]["2022Q1"]) == 8 + 12 + 7 + 9
    assert np.median(list(found["drift"]["2022Q1"].values())) < 0.1  # half of it is train itself
    for a, b, r in found["correlated"]:
        assert abs(r) > health.CORRELATED
        assert a != b


def test_what_moved_is_seen(tmp_path, parts, fitted_state):
    def move(main):
        later = main["split"].isin([SELECT, REPORT])
        moved = main.assign(close_utc=main["close_utc"].where(~later, main["close_utc"] + pd.Timedelta(days=91)))
        return moved.assign(rsi_14=moved["rsi_14"].where(~later, moved["rsi_14"] + 15))

    found = inspect(tmp_path, parts, fitted_state, move)
    assert list(found["drift"]) == ["2022Q1", "2022Q2"]
    scores = found["drift"]["2022Q2"]
    assert scores["side_rsi_14"] > drift.DRIFTED > scores["side_stoch_k"]
    assert health.summary(found)["max_psi"]["2022Q2"] == max(scores.values())
    assert health.summary(found)["drifted_inputs"]["2022Q2"] >= 1


def test_copies_are_listed(tmp_path, parts, fitted_state):
    found = inspect(tmp_path, parts, fitted_state, lambda main: main.assign(ema_21_ratio=main["ema_9_ratio"] * 1.01))
    pairs = {tuple(pair[:2]) for pair in found["correlated"]}
    assert ("side_ema_9_ratio", "side_ema_21_ratio") in pairs


def test_test_bars_change_nothing(tmp_path, parts, fitted_state):
    def poison(main):
        test = main["split"] == TEST
        return main.assign(rsi_14=main["rsi_14"].where(~test, 99.0), volume_ratio=main["volume_ratio"].where(~test, 50))

    assert inspect(tmp_path, parts, fitted_state, poison) == inspect(tmp_path, parts, fitted_state)
    train_only = inspect(tmp_path, parts, fitted_state, lambda main: main[main["split"] == TRAIN])
    assert train_only["correlated"] == inspect(tmp_path, parts, fitted_state)["correlated"]


def test_without_finite_train_rows_there_is_nothing_to_say(tmp_path, parts, fitted_state):
    main, regime = parts
    blank = regime._replace(rows=np.full_like(regime.rows, np.nan))
    found = inspect(tmp_path, (main, blank), fitted_state)
    assert found == {"correlated": [], "drift": {}}
    assert health.summary(found) == {"correlated_pairs": 0, "max_psi": {}, "drifted_inputs": {}}
