import copy
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from savers import RUNTIME, Hook
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from algospace import nets, training
from algospace.errors import InputError
from algospace.pipeline.config import load_params
from algospace.rde import figures
from algospace.rde import fit as fitting
from algospace.rde import model as rde
from algospace.rde.examples import Examples
from algospace.rde.model import RegimeVAE
from algospace.rde.params import RDEParams

DEFAULT = load_params("rde", RDEParams, Path(__file__).parents[2] / "params.yaml")
SMALL = {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 32, "latent_dim": 3, "dropout": 0.1}


pytestmark = pytest.mark.usefixtures("one_thread")


def params(**changes):
    optimizer = {"batch_size": 16, "epochs": 3, "samples_per_epoch": 48, "patience": 100, "min_delta": 0.0}
    optimizer |= {k: changes.pop(k) for k in list(changes) if k in DEFAULT.optimizer.model_dump()}
    update = SMALL | {"patch": 4, "beta_warmup_epochs": 0} | changes
    return DEFAULT.model_copy(update=update | {"optimizer": DEFAULT.optimizer.model_copy(update=optimizer)})


def small_model(seed=0, window=16, features=3):
    torch.manual_seed(seed)
    return RegimeVAE(features, window, 4, **SMALL).eval()


def toy(n, seed=0, window=16, features=3):
    """Windows of rank two: two latent numbers decide every entry."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(123).normal(size=(2, window, features))
    return np.einsum("nk,kwf->nwf", rng.normal(size=(n, 2)), basis).astype(np.float32)


class Watch(Hook):
    """Keeps the state of every step."""

    def __init__(self, resumed=None):
        super().__init__(self._keep, resumed)
        self.states = {}

    def _keep(self, step, snapshot):
        self.states[step] = copy.deepcopy(snapshot())


def examples(windows):
    """Windows whose future is their own mean row, unknown for every third."""
    later = windows.mean(axis=1)
    later[::3] = np.nan
    return Examples(windows, later)


def fit(run, train, validation, saver=None, seed=0, runtime=RUNTIME):
    saver = saver or training.Unsaved()
    known = examples(train)

    def chosen_ones(chosen):
        return Examples(*(array[chosen] for array in known))

    return fitting.fit(chosen_ones, len(train), examples(validation), run, runtime, seed, saver)


# The loss


def test_kl_is_the_closed_form():
    mu, logvar = torch.randn(7, 4), torch.randn(7, 4)
    expected = reference_kl(Normal(mu, (logvar / 2).exp()), Normal(torch.zeros(7, 4), torch.ones(7, 4)))
    torch.testing.assert_close(rde.kl_divergence(mu, logvar), expected)
    assert (rde.kl_divergence(torch.zeros(2, 2), torch.zeros(2, 2)) == 0).all()


def test_loss_by_hand():
    x = torch.zeros(2, 2, 1)
    reconstruction = torch.tensor([[[1.0], [0.0]], [[2.0], [1.0]]])  # mean square 6 / 4
    mu, logvar = torch.tensor([[2.0, 0.0], [0.0, 0.1]]), torch.zeros(2, 2)
    # KL per sample and dimension: 2 and 0, 0 and 0.005; all but the 2 are lifted to the free 0.02.
    assert rde.elbo_loss(x, reconstruction, mu, logvar, 0.5, 0.02).item() == pytest.approx(1.5 + 0.5 * 2.06 / 2)
    assert rde.elbo_loss(x, reconstruction, mu, logvar, 0.5, 0.0).item() == pytest.approx(1.5 + 0.5 * 1.0025)
    assert rde.elbo_loss(x, reconstruction, mu, logvar, 0.0, 0.02).item() == pytest.approx(1.5)


def test_the_loss_is_the_mean_over_samples():
    torch.manual_seed(0)
    x, reconstruction = torch.randn(6, 4, 2), torch.randn(6, 4, 2)
    mu, logvar = 0.3 * torch.randn(6, 3), 0.1 * torch.randn(6, 3)
    losses = [rde.elbo_loss(*(t[i : i + 1] for t in (x, reconstruction, mu, logvar)), 0.5, 0.05) for i in range(6)]
    whole = rde.elbo_loss(x, reconstruction, mu, logvar, 0.5, 0.05)
    torch.testing.assert_close(torch.stack(losses).mean(), whole)


def test_free_bits_have_no_gradient():
    mu, logvar = torch.full((3, 2), 0.01, requires_grad=True), torch.zeros(3, 2)
    rde.elbo_loss(torch.zeros(3, 1, 1), torch.zeros(3, 1, 1), mu, logvar, 1.0, 0.02).backward()
    assert (mu.grad == 0).all()


def test_reparameterize_draws_from_the_posterior():
    torch.manual_seed(0)
    noise = torch.randn(200_000, 1)
    z = rde.reparameterize(torch.full((200_000, 1), 3.0), torch.full((200_000, 1), math.log(4.0)), noise)
    assert z.mean().item() == pytest.approx(3.0, abs=4 * 2 / math.sqrt(200_000))
    assert z.std().item() == pytest.approx(2.0, rel=0.01)


def test_beta_warms_up(monkeypatch):
    seen, loss = [], rde.elbo_loss

    def spy(x, reconstruction, mu, logvar, beta, free_bits):
        seen.append((beta, free_bits))
        return loss(x, reconstruction, mu, logvar, beta, free_bits)

    monkeypatch.setattr(fitting, "elbo_loss", spy)
    fit(params(beta=0.6, beta_warmup_epochs=2, epochs=4, free_bits=0.3), toy(48), toy(8, 1))
    assert [beta for beta, _ in seen] == pytest.approx([0.2] * 3 + [0.4] * 3 + [0.6] * 6)
    assert {bits for _, bits in seen} == {0.3}


# The model


def test_shapes():
    model = small_model()
    mu, logvar = model.encode(torch.zeros(5, 16, 3))
    assert mu.shape == logvar.shape == (5, 3)
    assert model.decode(mu).shape == (5, 16, 3)


def test_a_token_is_a_patch_of_consecutive_rows():
    model = small_model()
    windows = torch.randn(2, 16, 3)
    seen = []
    model.project.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.encode(windows)
    assert torch.equal(seen[0][1, 2], windows[1, 8:12].flatten())
    # The decoder lays its patches out the same way.
    model.decode_steps.register_forward_hook(lambda module, inputs, output: seen.append(output))
    whole = model.decode(torch.randn(2, 3))
    assert torch.equal(seen[1][1, 2], whole[1, 8:12].flatten())


def test_order_of_the_rows_matters():
    model = small_model()
    windows = torch.randn(1, 16, 3)
    patches = windows.view(1, 4, 4, 3)
    for other in (patches.flip(1), patches.flip(2)):  # of the patches, and inside them
        assert not torch.allclose(model(windows)[0], model(other.reshape(1, 16, 3))[0], atol=1e-4)


def test_a_regime_vector_is_the_squashed_mean():
    model = small_model()
    windows = torch.randn(4, 16, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(windows)[0], torch.tanh(model.encode(windows)[0] / 2))


@pytest.mark.parametrize("patch", [5, 32])
def test_a_patch_that_does_not_divide_the_window_is_refused(patch):
    with pytest.raises(InputError, match=rf"rde.patch: expected a divisor of the window of 16 rows, found {patch}"):
        RegimeVAE(3, 16, patch, **SMALL)


def test_the_default_model():
    arch = {k: getattr(DEFAULT, k) for k in ("patch", *SMALL)}
    assert sum(p.numel() for p in RegimeVAE(12, 96, **arch).parameters()) == 15_596


# Training


def test_it_overfits_windows_of_low_rank():
    windows = toy(64)
    run = params(
        beta=0.0, dropout=0.0, epochs=120, samples_per_epoch=64, batch_size=16, learning_rate=1e-2, weight_decay=0.0
    )
    model, found = fit(run, windows, windows)
    judged = figures.reconstruction(model, windows, windows.mean((0, 1)))
    assert judged["reconstruction_r2"] > 0.95
    assert judged["active_units"] >= 2
    assert found.history[-1]["validation/loss"] < found.history[0]["validation/loss"] / 10


def test_the_latent_carries_what_generated_the_windows():
    # Two numbers generate a window, so a regression on the regime vector finds them in windows it never saw.
    run = params(dropout=0.0, epochs=60, samples_per_epoch=256, batch_size=64, learning_rate=5e-3)
    model, _ = fit(run, toy(256), toy(64, 1))
    truth = np.random.default_rng(2).normal(size=(200, 2))
    vectors = rde.encode(model, lambda ends: toy(200, 2)[ends], np.arange(200)).vectors
    design = np.column_stack([np.ones(200), np.arctanh(vectors)])
    half = slice(0, 100)
    weights = np.linalg.lstsq(design[half], truth[half], rcond=None)[0]
    residual = truth[100:] - design[100:] @ weights
    assert (residual**2).sum() < 0.2 * (truth[100:] ** 2).sum()


@pytest.mark.parametrize("at", [1, 3, 7])
def test_a_resumed_run_ends_with_the_same_bytes(at):
    train, validation = toy(48), toy(8, 1)
    watch = Watch()
    straight, found = fit(params(), train, validation, watch, seed=4)
    torch.manual_seed(1000)
    resumed, again = fit(params(), train, validation, Watch(watch.states[at]), seed=4)
    assert again == found
    for a, b in zip(resumed.state_dict().values(), straight.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("parts", [2, 5])
def test_a_batch_in_parts_means_the_same(parts):
    train, validation = toy(48), toy(8, 1)
    whole, found = fit(params(dropout=0.0, free_bits=0.2), train, validation)
    cut, again = fit(params(dropout=0.0, free_bits=0.2, accumulation=parts), train, validation)
    for one, other in zip(found.history, again.history, strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    for (name, a), b in zip(whole.state_dict().items(), cut.state_dict().values(), strict=True):
        if not name.endswith("in_proj_bias"):  # softmax cancels the keys' part: its gradient is rounding
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_it_trains_in_bfloat16():
    windows = toy(64)
    run = params(beta=0.0, dropout=0.0, epochs=90, samples_per_epoch=64, learning_rate=1e-2)
    _, found = fit(run, windows, windows, runtime=RUNTIME.model_copy(update={"precision": "bfloat16"}))
    assert found.history[-1]["validation/loss"] < found.history[0]["validation/loss"] / 5


def test_the_seed_decides_whatever_was_drawn_before():
    first, found = fit(params(), toy(48), toy(8, 1))
    torch.manual_seed(5)
    second, again = fit(params(), toy(48), toy(8, 1))
    assert again == found
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert fit(params(), toy(48), toy(8, 1), seed=1)[1] != found


@pytest.mark.parametrize(("n_train", "n_select"), [(1, 8), (48, 1), (0, 0)])
def test_too_few_windows_are_refused(n_train, n_select):
    with pytest.raises(InputError, match=rf"rde: expected windows .* found {n_train} and {n_select}"):
        fit(params(), toy(n_train), toy(n_select))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_windows_that_are_not_finite_are_refused(bad):
    broken = toy(48)
    broken[20, 3, 1] = bad
    with pytest.raises(InputError, match="finite windows in select"):
        fit(params(), toy(48), broken)
    with pytest.raises(InputError, match="rde: expected a finite loss"):
        fit(params(), broken, toy(8))
    with pytest.raises(InputError, match="rde: expected finite windows"):
        rde.encode(small_model(), lambda ends: broken[ends], np.arange(48))


# Judging


def test_evaluate_draws_no_random_numbers():
    model, windows = small_model(), toy(40)
    before = torch.get_rng_state()
    first = fitting.evaluate(model, examples(windows), params())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert fitting.evaluate(model, examples(windows), params()) == first


def test_evaluate_is_the_mean_over_all_windows():
    model, windows = small_model(), toy(40)  # batches of 16, 16 and 8
    run = params(beta=0.5, forecast=0.3)
    asked = examples(windows)
    found = fitting.evaluate(model, asked, run)
    with torch.no_grad():
        x = torch.from_numpy(windows)
        mu, logvar = model.encode(x)
        mse = ((model.decode(mu) - x) ** 2).mean().item()
        kl = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(1).mean().item()
        misses = (model.forecast(mu).numpy() - asked.later) ** 2
        misses[np.isnan(asked.later)] = 0
    assert found["mse"] == pytest.approx(mse, rel=1e-5)
    assert found["forecast_mse"] == pytest.approx(misses.mean(), rel=1e-5)
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    assert found["loss"] == pytest.approx(mse + 0.5 * kl + 0.3 * misses.mean(), rel=1e-5)


def test_quality_by_hand():
    model, windows = small_model(), toy(10)
    mean = np.array([0.1, -0.2, 0.3])
    found = figures.reconstruction(model, windows, mean)
    with torch.no_grad():
        x = torch.from_numpy(windows)
        mu, _ = model.encode(x)
        residual = ((model.decode(mu) - x) ** 2).sum().item()
    vectors = np.tanh(mu.numpy() / 2)
    assert found["reconstruction_r2"] == pytest.approx(1 - residual / ((windows - mean) ** 2).sum(), rel=1e-5)
    assert found["active_units"] == (mu.numpy().var(axis=0, ddof=1) > 0.01).sum()
    steps = [np.linalg.norm(b - a) for a, b in pairwise(vectors)]
    consecutive = np.append(False, np.ones(9, bool))
    assert figures.mean_step(vectors, consecutive) == pytest.approx(np.mean(steps), rel=1e-5)


# Encoding


def test_encode_is_deterministic_and_bounded():
    model, windows = small_model(), 10 * toy(130)
    first = rde.encode(model, lambda ends: windows[ends], np.arange(130)).vectors
    assert np.array_equal(first, rde.encode(model, lambda ends: windows[ends], np.arange(130)).vectors)
    assert first.dtype == np.float32
    assert first.shape == (130, 3)
    assert (np.abs(first) < 1).all()


def test_a_vector_depends_on_its_own_window_only():
    model = small_model()
    table = np.random.default_rng(0).normal(size=(1300, 3)).astype(np.float32)

    def cut(rows):
        return lambda ends: rows[ends[:, None] + np.arange(-15, 1)]

    ends = np.arange(15, 1300)  # more than one block of 1000
    whole = rde.encode(model, cut(table), ends).vectors
    for n in (1, 49, 51, 1000, 1001):
        assert np.array_equal(rde.encode(model, cut(table), ends[:n]).vectors, whole[:n]), "a prefix"
    order = np.random.default_rng(1).permutation(len(ends))
    assert np.array_equal(rde.encode(model, cut(table), ends[order]).vectors, whole[order])
    changed = table.copy()
    changed[700:] = 1e6
    assert np.array_equal(rde.encode(model, cut(changed), ends[ends < 700]).vectors, whole[ends < 700])
    changed = table.copy()
    changed[700] += 1
    differ = (rde.encode(model, cut(changed), ends).vectors != whole).any(axis=1)
    assert ends[differ].tolist() == list(range(700, 716))


def test_nothing_to_encode():
    assert rde.encode(small_model(), lambda ends: toy(4)[ends], np.arange(0)).vectors.shape == (0, 3)


def test_a_loaded_model_gives_the_same_bits():
    model, windows = small_model(), toy(60)
    config = json.loads(json.dumps(model.config))
    loaded = rde.load(nets.arrays(model), config)
    both = [rde.encode(m, lambda ends: windows[ends], np.arange(60)).vectors for m in (model, loaded)]
    assert np.array_equal(*both)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_no_statistic_of_a_batch():
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in small_model().modules())
