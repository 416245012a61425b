import numpy as np
import pytest
import torch
from savers import RUNTIME

from algospace import nets
from algospace.errors import InputError
from algospace.rde import communication
from algospace.rde.communication import CommunicationParams, RegimeLSTM
from algospace.training import OptimizerParams, Unsaved

OPTIMIZER = OptimizerParams(
    batch_size=64, learning_rate=0.01, weight_decay=0.0, max_grad_norm=1.0, epochs=15, samples_per_epoch=512,
    patience=15, min_delta=0.0,
)  # fmt: skip
PARAMS = CommunicationParams(
    hidden_dim=8, n_layers=1, embedding_dim=8, dropout=0.0, sequence=8, temporal=0.01, optimizer=OPTIMIZER
)


def oscillating(m, seed, length=9):
    """Runs whose next step is known up to a little noise: four rotations."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (4, m, 1)) + 0.5 * np.arange(length)
    path = 0.5 * np.concatenate([np.cos(phase), np.sin(phase)]).transpose(1, 2, 0)
    return (path + 0.01 * rng.standard_normal(path.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return communication.fit(oscillating(800, 0), oscillating(400, 1), PARAMS, RUNTIME, 0, Unsaved())[0]


def test_it_learns_what_can_be_known(fitted):
    found = communication.figures(fitted, oscillating(600, 2), oscillating(800, 0))
    assert found["nll"] < found["random_walk_nll"] - 0.5


def test_its_intervals_cover_what_they_say(fitted):
    found = communication.figures(fitted, oscillating(2000, 2), oscillating(800, 0))
    assert found["coverage_68"] == pytest.approx(0.68, abs=0.05)
    assert found["coverage_95"] == pytest.approx(0.95, abs=0.03)


def test_a_layer_that_is_not_calibrated_does_not_cover(fitted):
    wide = communication.load(nets.arrays(fitted), fitted.config)
    wide.widths.mul_(3.0)
    assert communication.figures(wide, oscillating(2000, 2), oscillating(800, 0))["coverage_68"] > 0.9


def test_untrained_it_expects_no_change():
    torch.manual_seed(0)
    model, past = RegimeLSTM(8, 8, 1, 8, 0.0), oscillating(5, 0)
    np.testing.assert_array_equal(communication.predict(model, past).mean, past[:, -1])


def test_a_prediction_reads_the_past_of_its_own_sequence_alone(fitted):
    past = oscillating(120, 3)
    whole = communication.predict(fitted, past)
    order = np.random.default_rng(0).permutation(120)
    for a, b in zip(whole, communication.predict(fitted, past[order]), strict=True):
        # Its place in a batch may move a number's last bit, on some processors; nothing is decided by this layer.
        np.testing.assert_allclose(a[order], b, rtol=1e-6)
    x = torch.from_numpy(past[:4])
    poisoned = x.clone()
    poisoned[:, 5:] = 9.0
    with torch.no_grad():
        for a, b in zip(fitted.embeddings(x), fitted.embeddings(poisoned), strict=True):
            torch.testing.assert_close(a[:, :5], b[:, :5], rtol=0, atol=0)


def test_sequences_cross_no_break_and_leave_no_split():
    vectors = np.arange(12, dtype=np.float32)[:, None]
    consecutive = np.ones(12, bool)
    consecutive[[0, 6]] = False
    chosen = np.arange(12) != 10
    found = communication.sequences(vectors, consecutive, chosen, 3)[..., 0]
    assert found.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [6, 7, 8], [7, 8, 9]]


def test_no_sequences_are_refused():
    with pytest.raises(InputError, match="expected sequences in train and in select, found 0"):
        communication.fit(oscillating(0, 0), oscillating(9, 1), PARAMS, RUNTIME, 0, Unsaved())


@pytest.mark.parametrize(
    ("past", "message"),
    [
        (np.zeros((3, 8, 5), np.float32), "expected vectors of 8, found"),
        (np.full((3, 8, 8), np.nan, np.float32), "expected finite regime vectors"),
    ],
)
def test_bad_vectors_are_refused(fitted, past, message):
    with pytest.raises(InputError, match=message):
        communication.predict(fitted, past)


def test_a_loaded_layer_gives_the_same_bits(fitted):
    past = oscillating(60, 4)
    loaded = communication.load(nets.arrays(fitted), fitted.config)
    for a, b in zip(communication.predict(fitted, past), communication.predict(loaded, past), strict=True):
        np.testing.assert_array_equal(a, b)
