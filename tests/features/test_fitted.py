"""What is fitted looks at train rows only, and survives an artefact."""

import numpy as np
import pandas as pd
import pytest

from algospace import artefacts
from algospace.data.bars import PRICES
from algospace.errors import InputError
from algospace.features import fitted, table
from algospace.features.fitted import CLIP, Fitted, Scale


def same_bits(a: Fitted, b: Fitted) -> bool:
    left, right = a.tensors(), b.tensors()
    return left.keys() == right.keys() and all(left[name].tobytes() == right[name].tobytes() for name in left)


@pytest.fixture(scope="module")
def refit(settings):
    def make(bars, train):
        return fitted.fit(bars, train, settings.indicators, settings.seed)

    return make


def test_later_bars_change_nothing(refit, market_bars, train_mask, fitted_state):
    poisoned = market_bars.copy()
    rng = np.random.default_rng(1)
    factor = np.exp(rng.normal(0, 0.3, (~train_mask).sum()))
    for name in PRICES:
        poisoned.loc[~train_mask, name] *= factor
    poisoned.loc[~train_mask, "volume"] = 1e12
    assert same_bits(refit(poisoned, train_mask), fitted_state)
    n = train_mask.sum()
    assert same_bits(refit(market_bars.iloc[:n], train_mask[:n]), fitted_state)


def test_train_bars_change_it(refit, market_bars, train_mask, fitted_state):
    changed = market_bars.copy()
    changed.loc[: train_mask.sum() // 2, "volume"] *= 3.0
    assert not same_bits(refit(changed, train_mask), fitted_state)


def test_same_input_gives_the_same_bits(refit, market_bars, train_mask, fitted_state):
    assert same_bits(refit(market_bars, train_mask), fitted_state)


def test_tensors_round_trip(fitted_state, tmp_path):
    artefacts.write_tensors(tmp_path / "fitted.safetensors", fitted_state.tensors(), {})
    tensors, _ = artefacts.read_tensors(tmp_path / "fitted.safetensors")
    assert same_bits(Fitted.from_tensors(tensors), fitted_state)


def test_tables_of_the_restored_state_are_the_same(fitted_state, market_bars, settings):
    restored = Fitted.from_tensors(fitted_state.tensors())
    bars = market_bars.iloc[:6000]
    one, two = (
        table.build(bars, settings.contract, settings.indicators, settings.gate1, state.reference)
        for state in (fitted_state, restored)
    )
    pd.testing.assert_frame_equal(one.m5, two.m5, check_exact=True)


def test_every_missing_tensor_is_named(fitted_state):
    for name in fitted_state.tensors():
        rest = {k: v for k, v in fitted_state.tensors().items() if k != name}
        with pytest.raises(InputError, match=name):
            Fitted.from_tensors(rest)


def test_scale_of_known_quantiles():
    """0..100: median 50, half the distance of the 5 % and 95 % quantiles is 45."""
    rows = np.column_stack([np.arange(101.0), np.full(101, 7.0)])
    rows = np.vstack([rows, [np.nan, np.nan]])
    scale = Scale.fit(rows)
    assert scale.center.tolist() == [50.0, 7.0]
    np.testing.assert_allclose(scale.scale, [45 / 1.6448536269514722, 1.0], rtol=1e-12)  # a constant keeps scale 1


def test_scale_about_a_given_center_reaches_to_the_farther_quantile():
    scale = Scale.fit(np.arange(101.0)[:, None], np.array([10.0]))
    np.testing.assert_allclose(scale.scale, [(95 - 10) / 1.6448536269514722], rtol=1e-12)


def test_scaled_rows_are_cut_and_keep_nan():
    scale = Scale(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    found = scale(np.array([[3.0, np.nan], [1e9, -1e9]]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([[1.0, np.nan], [CLIP, -CLIP]], np.float32))


def test_tactical_rows_by_hand():
    m5 = pd.DataFrame({"close": [200.0]} | {name: [0.0] for name in table.SIDE})
    m5.loc[0, ["rsi_14", "stoch_k", "bb_percent", "macd", "macd_signal"]] = [70.0, 20.0, 0.75, 3.0, -1.0]
    m5.loc[0, ["adx_14", "volume_ratio", "ema_9_ratio", "ema_21_ratio"]] = [25.0, 1.5, 0.01, -0.02]
    found = dict(zip(table.SIDE, fitted.tactical_rows(m5)[0], strict=True))
    assert found == {
        "rsi_14": 20.0, "stoch_k": -30.0, "bb_percent": 0.25, "macd": 1.5, "macd_signal": -0.5, "adx_14": 25.0,
        "volume_ratio": 1.5, "ema_9_ratio": 0.01, "ema_21_ratio": -0.02,
    }  # fmt: skip


def test_directional_features_keep_zero_as_neutral(fitted_state):
    center = dict(zip(table.SIDE, fitted_state.tactical.center, strict=True))
    assert {name for name, value in center.items() if value != 0.0} == {"adx_14", "volume_ratio"}
