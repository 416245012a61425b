"""The RDE with one more term in its loss: from the latent of a window it forecasts a later, disjoint one.

What two disjoint windows have in common is the regime; noise is not. The stage's RDE does not have this term yet.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algospace import training
from algospace.errors import InputError
from algospace.params import RuntimeParams
from algospace.rde.model import RegimeVAE, elbo_loss, kl_divergence, reparameterize
from algospace.rde.params import RDEParams

RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)


class ForecastingVAE(RegimeVAE):
    """`RegimeVAE` and a linear forecast.

    Linear, so that what can be foretold lies along straight lines of the latent, where clustering looks for it.
    """

    def __init__(self, n_features: int, window: int, **sizes: float) -> None:
        super().__init__(n_features, window, **sizes)  # type: ignore[arg-type]
        self.forecast = nn.Linear(self.mu.out_features, n_features)


def later_means(rows: np.ndarray, ends: Sequence[np.ndarray], window: int, horizon: int) -> list[np.ndarray]:
    """What a latent forecasts: the mean row of the window that ends ``horizon`` rows after its own.

    Parameters
    ----------
    rows
        Row table (n, features).
    ends
        Rows on which whole windows end, rising, one array a split, train's first.
    horizon
        Far enough that the two windows share no bar: the rows of a window, and as many more as a row itself sums up.

    Returns
    -------
    list of float32 arrays (len(ends), features)
        Standardised by train's means and spreads. NaN where the later window is not among the split's own: none
        looks into another split.
    """
    found = []
    for own in ends:
        known = np.isin(own + horizon, own)
        means = np.full((len(own), rows.shape[1]), np.nan)
        for at in np.flatnonzero(known):
            end = own[at] + horizon
            means[at] = rows[end - window + 1 : end + 1].mean(axis=0)
        found.append(means)
    known = np.isfinite(found[0]).all(axis=1)
    if not known.any():
        raise InputError(f"rde: expected windows {horizon} rows apart in train, found none")
    centre, spread = found[0][known].mean(axis=0), found[0][known].std(axis=0)
    return [((means - centre) / np.where(spread > 0, spread, 1.0)).astype(np.float32) for means in found]


def forecast_loss(forecast: Tensor, later: Tensor) -> Tensor:
    """Mean squared error per element, (batch, features) each; a target of NaN counts as foretold."""
    return ((forecast - later).nan_to_num() ** 2).mean()


def fit(
    every: np.ndarray,
    n_train: int,
    validation: np.ndarray,
    later: Sequence[np.ndarray],
    params: RDEParams,
    weight: float,
    seed: int,
) -> ForecastingVAE:
    """Train on the first ``n_train`` windows of ``every``, stop early on ``validation``; ``later`` are their targets.

    As `algospace.rde.fit.fit`, with the forecast's error, times ``weight``, added to the loss.
    """  # fmt: skip
    torch.manual_seed(seed)
    sizes = {
        k: getattr(params, k) for k in ("patch", "d_model", "n_heads", "n_layers", "d_ff", "latent_dim", "dropout")
    }
    model = ForecastingVAE(every.shape[2], every.shape[1], **sizes)
    wanted, kept, x_val = (torch.from_numpy(array) for array in (*later, np.ascontiguousarray(validation)))

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randperm(n_train, generator=generator)[: params.optimizer.samples_per_epoch]

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        beta = params.beta * min(1.0, (epoch + 1) / (params.beta_warmup_epochs + 1))
        x = torch.from_numpy(every[chosen.numpy()])
        mu, logvar = model.encode(x)
        z = reparameterize(mu, logvar, noise)
        elbo = elbo_loss(x, model.decode(z), mu, logvar, beta, params.free_bits)
        return elbo + weight * forecast_loss(model.forecast(z), wanted[chosen])

    def validate() -> dict[str, float]:
        mu, logvar = model.encode(x_val)
        error = F.mse_loss(model.decode(mu), x_val) + weight * forecast_loss(model.forecast(mu), kept)
        return {"loss": (error + params.beta * kl_divergence(mu, logvar).sum(1).mean()).item()}

    training.fit(
        "rde", model, draw, loss, validate, params.optimizer, RUNTIME, seed, training.Unsaved(), noise=params.latent_dim
    )
    return model
