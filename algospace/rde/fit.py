"""Fit the regime network on windows of train and judge it on windows it has not seen."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from algospace import training
from algospace.errors import InputError
from algospace.params import RuntimeParams
from algospace.rde.model import RegimeVAE, elbo_loss, kl_divergence, reparameterize
from algospace.rde.params import RDEParams


def fit(
    train: Callable[[np.ndarray], np.ndarray],
    n_train: int,
    validation: np.ndarray | None,
    params: RDEParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> tuple[RegimeVAE, training.Fit]:
    """Train on windows drawn from train, stop early on validation, return the model of the best epoch.

    Parameters
    ----------
    train
        Indices (k,) below ``n_train`` -> windows (k, window, features) float32.
    validation
        Windows (m, window, features) of the selecting half of validation. None trains all epochs and keeps the last
        weights.
    seed
        Of every random number, the first weights included: what was fitted before in this process does not matter.
    saver
        Keeps the training state.

    Raises
    ------
    InputError
        When there are no windows, or a window or the loss is not finite.
    """
    selecting = 2 if validation is None else len(validation)
    if n_train < 2 or selecting < 2:
        raise InputError(f"rde: expected windows in train and in select, found {n_train} and {selecting}")
    if validation is not None and not np.isfinite(validation).all():
        raise InputError("rde: expected finite windows in select, found NaN or inf")
    torch.manual_seed(seed)
    arch = {k: getattr(params, k) for k in ("patch", "d_model", "n_heads", "n_layers", "d_ff", "latent_dim", "dropout")}
    _, window, n_features = train(np.arange(1)).shape
    model = RegimeVAE(n_features, window, **arch).to(runtime.device)

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randperm(n_train, generator=generator)[: params.optimizer.samples_per_epoch]

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        beta = params.beta * min(1.0, (epoch + 1) / (params.beta_warmup_epochs + 1))
        x = torch.from_numpy(train(chosen.numpy())).to(runtime.device)
        mu, logvar = (output.float() for output in model.encode(x))  # sums of bfloat16 would lose what they add
        reconstruction = model.decode(reparameterize(mu, logvar, noise)).float()
        return elbo_loss(x, reconstruction, mu, logvar, beta, params.free_bits)

    return model, training.fit(
        "rde",
        model,
        draw,
        loss,
        None if validation is None else partial(evaluate, model, validation, params),
        params.optimizer,
        runtime,
        seed,
        saver,
        accumulation=params.optimizer.accumulation,
        noise=params.latent_dim,
    )


@torch.no_grad()
def evaluate(model: RegimeVAE, windows: np.ndarray, params: RDEParams) -> dict[str, float]:
    """Mean squared error, KL (nats per window) and loss at full beta, from mu: nothing is sampled."""
    device = next(model.parameters()).device
    error = kl = 0.0
    for start in range(0, len(windows), params.optimizer.batch_size):
        x = torch.from_numpy(windows[start : start + params.optimizer.batch_size]).to(device)
        mu, logvar = model.encode(x)
        error += F.mse_loss(model.decode(mu), x).item() * len(x)
        kl += kl_divergence(mu, logvar).sum().item()
    error, kl = error / len(windows), kl / len(windows)
    return {"loss": error + params.beta * kl, "mse": error, "kl": kl}
