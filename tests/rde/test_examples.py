import numpy as np
import pytest
import torch

from algospace.rde.examples import AMPLE, Windows
from algospace.rde.model import forecast_loss


def test_window_means_by_hand():
    rows = np.arange(12.0).reshape(6, 2)
    np.testing.assert_allclose(Windows(rows, 3, 3).means(np.array([2, 5])), [[2, 3], [8, 9]])


def test_rows_of_the_warm_up_touch_no_whole_window():
    rows = np.arange(12.0).reshape(6, 2)
    rows[:2] = np.nan
    np.testing.assert_allclose(Windows(rows, 3, 3).means(np.array([4])), [[6, 7]])


def test_targets_by_hand():
    rows = np.array([[0.0], [1], [2], [4], [8], [16], [32], [64]])
    train, select = np.array([1, 2, 3, 4, 5]), np.array([6, 7])
    known, later = Windows(rows, 2, 2).later((train, select))
    # Windows of two rows that end two rows later and still in train, at rows 3, 4 and 5, have means 3, 6 and 12.
    means = np.array([3.0, 6, 12])
    expected = (means - means.mean()) / means.std()
    np.testing.assert_allclose(known[:, 0], [*expected, np.nan, np.nan], rtol=1e-6)
    assert np.isnan(later).all()  # rows 8 and 9 do not exist
    assert known.dtype == later.dtype == np.float32


def test_another_split_is_standardised_by_train():
    rows = np.arange(40.0)[:, None] ** 2
    train, select = np.arange(1, 20), np.arange(20, 40)
    known, later = Windows(rows, 2, 3).later((train, select))
    means = Windows(rows, 2, 3).means(np.arange(4, 20))
    expected = (Windows(rows, 2, 3).means(np.array([23])) - means.mean()) / means.std()
    np.testing.assert_allclose(later[0], expected[0], rtol=1e-6)
    assert np.isnan(known[-3:]).all()
    assert np.isfinite(known[:-3]).all()


def test_no_target_reads_another_split():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3))
    ends = np.arange(3, 30), np.arange(36, 60)  # an embargo between them, since a window is 4 rows long
    before = Windows(rows, 4, 6).later(ends)
    rows[30:] += 100.0
    np.testing.assert_array_equal(Windows(rows, 4, 6).later(ends)[0], before[0])


def test_a_gap_in_the_windows_is_nothing_to_foretell():
    rows = np.random.default_rng(0).normal(size=(30, 1))
    ends = np.array([3, 4, 5, 10, 11, 12])
    (found,) = Windows(rows, 2, 6).later((ends,))
    assert np.isfinite(found[:, 0]).tolist() == [False, True, True, False, False, False]  # 10 - 4 and 11 - 5
    assert all(np.isnan(part).all() for part in Windows(rows, 2, 20).later((ends, ends)))


def test_a_constant_feature_is_no_trouble():
    rows = np.column_stack([np.arange(20.0), np.ones(20)])
    (found,) = Windows(rows, 2, 2).later((np.arange(1, 20),))
    assert (found[:-2, 1] == 0).all()


def test_a_short_history_teaches_in_proportion():
    windows = Windows(np.zeros((1, 1)), 96, 192)
    assert windows.evidence(np.arange(192 * 40)) == pytest.approx(40 / AMPLE)
    assert windows.evidence(np.arange(192 * AMPLE * 2)) == 1.0


def test_loss_by_hand():
    target = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
    made = torch.tensor([[3.0, 1.0], [7.0, 7.0]], requires_grad=True)
    loss = forecast_loss(made, target)
    assert loss.item() == pytest.approx(5 / 4)
    loss.backward()
    np.testing.assert_allclose(made.grad, [[1.0, 0.5], [0.0, 0.0]])
