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
from algospace.rde.examples import Examples
from algospace.rde.model import RegimeVAE, elbo_loss, forecast_loss, kl_divergence, reparameterize
from algospace.rde.params import RDEParams


def fit(
    train: Callable[[np.ndarray], Examples],
    n_train: int,
    validation: Examples | None,
    params: RDEParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> tuple[RegimeVAE, training.Fit]:
    """Train on windows drawn from train, stop early on validation, return the model of the best epoch.

    Parameters
    ----------
    train
        Indices (k,) below ``n_train`` -> their examples.
    validation
        Examples of the selecting half of validation. None trains all epochs and keeps the last weights.
    seed
        Of every random number, the first weights included: what was fitted before in this process does not matter.
    saver
        Keeps the training state.

    Raises
    ------
    InputError
        When there are no windows, or a window or the loss is not finite.
    """
    selecting = 2 if validation is None else len(validation.windows)
    if n_train < 2 or selecting < 2:
        raise InputError(f"rde: expected windows in train and in select, found {n_train} and {selecting}")
    if validation is not None and not np.isfinite(validation.windows).all():
        raise InputError("rde: expected finite windows in select, found NaN or inf")
    torch.manual_seed(seed)
    arch = {k: getattr(params, k) for k in ("patch", "d_model", "n_heads", "n_layers", "d_ff", "latent_dim", "dropout")}
    _, window, n_features = train(np.arange(1)).windows.shape
    model = RegimeVAE(n_features, window, **arch).to(runtime.device)

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randperm(n_train, generator=generator)[: params.optimizer.samples_per_epoch]

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        beta = params.beta * min(1.0, (epoch + 1) / (params.beta_warmup_epochs + 1))
        x, later = (torch.from_numpy(array).to(runtime.device) for array in train(chosen.numpy()))
        mu, logvar = (output.float() for output in model.encode(x))  # sums of bfloat16 would lose what they add
        z = reparameterize(mu, logvar, noise)
        elbo = elbo_loss(x, model.decode(z).float(), mu, logvar, beta, params.free_bits)
        return elbo + params.forecast * forecast_loss(model.forecast(z).float(), later)

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
def evaluate(model: RegimeVAE, examples: Examples, params: RDEParams) -> dict[str, float]:
    """Mean squared errors, KL (nats per window) and loss at full beta, from mu: nothing is sampled."""
    device = next(model.parameters()).device
    total = np.zeros(3)
    n = len(examples.windows)
    for start in range(0, n, params.optimizer.batch_size):
        part = slice(start, start + params.optimizer.batch_size)
        x, later = (torch.from_numpy(array[part]).to(device) for array in examples)
        mu, logvar = model.encode(x)
        errors = F.mse_loss(model.decode(mu), x), forecast_loss(model.forecast(mu), later)
        kl = kl_divergence(mu, logvar).sum(1).mean()
        total += len(x) * np.array([value.item() for value in (*errors, kl)])
    mse, forecast, kl_mean = (total / n).tolist()
    loss = mse + params.forecast * forecast + params.beta * kl_mean
    return {"loss": loss, "mse": mse, "forecast_mse": forecast, "kl": kl_mean}
