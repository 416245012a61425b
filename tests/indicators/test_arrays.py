import numpy as np
import pytest

from algospace.indicators.arrays import Tail


def test_tail_puts_the_last_rows_in_front():
    tail = Tail(2)
    x, y = np.arange(7.0), np.arange(14).reshape(7, 2)
    fronts = []
    for first, last in ((0, 1), (1, 1), (1, 2), (2, 6), (6, 7)):
        a, b = tail.join(x[first:last], y[first:last])
        fronts.append(tail.front)
        np.testing.assert_array_equal(a, x[first - tail.front : last])
        np.testing.assert_array_equal(b, y[first - tail.front : last])
    assert fronts == [0, 1, 1, 2, 2]


def test_tail_without_rows_gives_the_new_ones():
    tail = Tail(0)
    for _ in range(2):
        (joined,) = tail.join(np.arange(3))
        assert tail.front == 0
        np.testing.assert_array_equal(joined, [0, 1, 2])


def test_tail_is_a_copy():
    tail = Tail(3)
    buffer = np.array([1.0, 2.0])
    tail.join(buffer)
    buffer[:] = 9.0
    np.testing.assert_array_equal(tail.join(buffer)[0], [1, 2, 9, 9])


def test_tail_wants_the_same_columns():
    tail = Tail(1)
    tail.join(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="argument"):
        tail.join(np.ones(2))
