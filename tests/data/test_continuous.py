from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from algospace.data.continuous import Continuous

BARS = pd.DataFrame(
    {
        "open": [100.0, 101, 205, 206, 420],
        "high": [102.0, 103, 208, 210, 425],
        "low": [99.0, 100, 204, 205, 415],
        "close": [101.0, 102, 206, 208, 424],
        "contract_id": [0, 0, 1, 1, 3],
    }
)


def test_no_jump_is_left_at_a_roll():
    factor, (o, h, l, c) = Continuous().update(BARS)
    assert factor.tolist() == pytest.approx([1, 1, 102 / 205, 102 / 205, 102 / 205 * 208 / 420])
    assert o[2] == pytest.approx(c[1])
    assert o[4] == pytest.approx(c[3])
    assert c[3] / c[2] == pytest.approx(208 / 206)
    for column, prices in zip(("open", "high", "low", "close"), (o, h, l, c), strict=True):
        np.testing.assert_array_equal(prices, BARS[column] * factor)


def test_without_rolls_prices_are_untouched():
    bars = BARS.assign(contract_id=7)
    factor, prices = Continuous().update(bars)
    assert (factor == 1).all()
    for column, found in zip(("open", "high", "low", "close"), prices, strict=True):
        np.testing.assert_array_equal(found, bars[column])


@pytest.mark.parametrize("bounds", [(0, 1, 2, 3, 4, 5), (0, 2, 5), (0, 0, 3, 3, 5)])
def test_any_chunks_give_the_same_bits(bounds):
    whole, _ = Continuous().update(BARS)
    stream = Continuous()
    parts = [stream.update(BARS.iloc[a:b])[0] for a, b in pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
