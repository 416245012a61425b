import math

import numpy as np
import pytest

from algospace.errors import InputError
from algospace.indicators import mmd
from algospace.indicators.signature import Signature, sig155, signatures

CENTER, SCALE = np.array([1e-5, 2e-3, 0.01, -0.05]), np.array([1e-3, 1e-3, 0.5, 0.4])


@pytest.fixture(scope="module")
def z(bars):
    return mmd.path(bars.ha_open, bars.ha_high, bars.ha_low, bars.ha_close, bars.volume)


@pytest.fixture(scope="module")
def increments():
    return np.random.default_rng(2).normal(size=(60, 5))


def levels(row):
    return row[:5], row[5:30].reshape(5, 5), row[30:].reshape(5, 5, 5)


def iterated_sums(dx):
    """The same by the definition: every ordered choice of pieces, over the number of orders of equal ones."""
    n = len(dx)
    first, second, third = np.meshgrid(*[np.arange(n)] * 3, indexing="ij")
    ordered = (first <= second) & (second <= third)
    equal = np.where(first == third, 6, np.where((first == second) | (second == third), 2, 1))
    pairs = np.triu(np.ones((n, n)), 1) + np.eye(n) / 2
    return (
        dx.sum(axis=0),
        np.einsum("ab,ai,bj->ij", pairs, dx, dx),
        np.einsum("abc,ai,bj,ck->ijk", ordered / equal, dx, dx, dx),
    )


def test_equals_the_iterated_sums(increments):
    for window in (1, 2, 7, 20):
        out = signatures(increments, window)
        assert out.shape == (60, 155)
        assert np.isnan(out[: window - 1]).all()
        for t in range(window - 1, 60):
            expected = iterated_sums(increments[t - window + 1 : t + 1])
            for got, level in zip(levels(out[t]), expected, strict=True):
                np.testing.assert_allclose(got, level, rtol=1e-10, atol=1e-10)


def test_first_level_is_the_way_gone(increments):
    out = signatures(increments, 10)
    np.testing.assert_allclose(out[30, :5], increments[21:31].sum(axis=0))


def test_line_has_the_powers_of_its_increment():
    step = np.array([0.1, -0.7, 1.3, 0.4, 2.0])
    total = 20 * step
    s1, s2, s3 = levels(signatures(np.tile(step, (20, 1)), 20)[-1])
    np.testing.assert_allclose(s1, total)
    np.testing.assert_allclose(s2, np.multiply.outer(total, total) / math.factorial(2))
    np.testing.assert_allclose(s3, np.multiply.outer(np.multiply.outer(total, total), total) / math.factorial(3))


def test_products_are_shuffles(increments):
    for row in signatures(increments, 12)[11:]:
        s1, s2, s3 = levels(row)
        np.testing.assert_allclose(np.multiply.outer(s1, s1), s2 + s2.T, rtol=1e-9, atol=1e-9)
        shuffled = s3 + np.einsum("jik->ijk", s3) + np.einsum("jki->ijk", s3)
        np.testing.assert_allclose(np.multiply.outer(s1, s2), shuffled, rtol=1e-9, atol=1e-9)


def test_chen(increments):
    a1, a2, a3 = levels(signatures(increments[:9], 9)[-1])
    b1, b2, b3 = levels(signatures(increments[9:20], 11)[-1])
    c1, c2, c3 = levels(signatures(increments[:20], 20)[-1])
    outer = np.multiply.outer
    np.testing.assert_allclose(c1, a1 + b1)
    np.testing.assert_allclose(c2, a2 + outer(a1, b1) + b2, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(c3, a3 + outer(a2, b1) + outer(a1, b2) + b3, rtol=1e-10, atol=1e-10)


def test_the_way_back_undoes_the_path(increments):
    there_and_back = np.concatenate([increments[:10], -increments[9::-1]])
    np.testing.assert_allclose(signatures(there_and_back, 20)[-1], 0, atol=1e-10)


def test_path_of_the_market(z):
    out = sig155(z, CENTER, SCALE, 20)
    assert np.isnan(out[:20]).all()  # the first row of the path has no bar before it
    assert np.isfinite(out[20:]).all()
    scaled = ((z - CENTER) / SCALE)[81:101]
    dx = np.column_stack([np.full(20, 1 / 20), scaled[:, 0], scaled[:, 2], scaled[:, 1], scaled[:, 3]])
    for got, level in zip(levels(out[100]), iterated_sums(dx), strict=True):
        np.testing.assert_allclose(got, level, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(out[20:, 0], 1)
    np.testing.assert_array_equal(sig155(z[500:], CENTER, SCALE, 20)[20:], out[520:])


@pytest.mark.parametrize("size", [1, 7, 1000, 2500])
def test_chunks_give_the_bits_of_the_whole(z, size):
    stream = Signature(20, CENTER, SCALE)
    parts = [stream.update(z[:0]), *(stream.update(z[first : first + size]) for first in range(0, len(z), size))]
    np.testing.assert_array_equal(np.concatenate(parts), sig155(z, CENTER, SCALE, 20))


def test_prefix(z, cuts):
    whole = sig155(z, CENTER, SCALE, 20)
    for cut in cuts:
        np.testing.assert_array_equal(sig155(z[:cut], CENTER, SCALE, 20), whole[:cut])


def test_a_window_with_a_hole_is_unknown(increments):
    holed = increments.copy()
    holed[30, 3] = np.nan
    out = signatures(holed, 10)
    assert np.isnan(out[30:40]).all()
    expected = signatures(increments, 10)
    np.testing.assert_array_equal(out[:30], expected[:30])
    np.testing.assert_array_equal(out[40:], expected[40:])


def test_wrong_input(z, increments):
    with pytest.raises(InputError, match=r"z has shape \(2500, 3\)"):
        sig155(z[:, :3], CENTER, SCALE, 20)
    with pytest.raises(InputError, match="center and scale have shapes"):
        Signature(20, CENTER, SCALE[:2])
    with pytest.raises(InputError, match=r"increments have shape \(60, 4\)"):
        signatures(increments[:, :4], 20)
