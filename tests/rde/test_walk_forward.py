import numpy as np
import pandas as pd
import pytest

from algospace.rde import figures, walk_forward

LENGTH = 96


def test_each_block_is_encoded_once_by_a_model_that_shares_no_row_with_it():
    ends = np.arange(95, 3095)
    plan = walk_forward.blocks(ends, 3, LENGTH)
    assert np.array_equal(np.concatenate([block for _, block in plan]), np.arange(len(ends)))
    for k, (seen, block) in enumerate(plan):
        rows = {row for end in ends[seen] for row in (end, end - LENGTH + 1)}
        first, last = ends[block[0]] - LENGTH + 1, ends[block[-1]]
        assert not any(first <= row <= last for row in rows)
        if k:
            assert ends[seen].max() < first, "only the past"
            assert len(seen) == block[0] - LENGTH + 1, "and all of it but the purged windows"
        else:
            assert ends[seen].min() - LENGTH + 1 > last


def test_shift_by_hand():
    rng = np.random.default_rng(0)
    final, later = rng.standard_normal((500, 2)), rng.standard_normal((500, 2)) + 5
    found = walk_forward.shift(final + final.std(axis=0), final, later)
    assert found["rms_difference"] == pytest.approx(1.0)
    assert found["ks_in_sample_to_later"] > found["ks_out_of_fold_to_later"] > 0.9
    assert walk_forward.shift(final, final, final)["ks_in_sample_to_later"] == 0


def test_a_probe_finds_what_is_there_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 4))
    y = pd.DataFrame({"known": x[:, 0] + 0.5 * rng.standard_normal(3000), "noise": rng.standard_normal(3000)})
    known = (x[:2000], y[:2000]), (x[2000:], y[2000:].reset_index(drop=True))
    found = figures.probe(*known, 10.0, 0)
    assert found["known_r2"] == pytest.approx(0.8, abs=0.03)
    assert found["known_r2_low"] < 0.8 < found["known_r2_high"]
    assert abs(found["noise_r2"]) < 0.01


@pytest.mark.parametrize("sizes", [(20, 0), (0, 20)])
def test_a_probe_without_windows_has_no_figures(sizes):
    known, asked = ((np.zeros((n, 4)), pd.DataFrame({"trend": np.zeros(n)})) for n in sizes)
    assert figures.probe(known, asked, 10.0, 0) == {"trend_r2": None, "trend_r2_low": None, "trend_r2_high": None}
