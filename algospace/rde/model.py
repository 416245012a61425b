"""RDE, the regime detection engine: a Transformer-VAE whose latent mean is the market's regime vector.

Vaswani et al. 2017 (encoder), Kingma and Welling 2014 (VAE). It reconstructs its INPUT window: an
encoder that reconstructs its own context is minimised by a constant and carries nothing. And it forecasts a later
window (`algospace.rde.examples`): a reconstruction alone spends the latent on noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algospace import nets
from algospace.errors import InputError

ROWS = 4  # windows in a batch of inference: a single one, in a stream, costs what 4 cost


class RegimeVAE(nn.Module):
    """Transformer encoder, attention pooling, Gaussian latent, decoder of the whole window, forecast of a later one.

    A token is a patch of consecutive rows (one row in the profile `full`).
    """

    centre: Tensor
    axes: Tensor

    def __init__(
        self,
        n_features: int,
        window: int,
        patch: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        d_ff: int,
        latent_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if window % patch:
            raise InputError(f"rde.patch: expected a divisor of the window of {window} rows, found {patch}")
        tokens = window // patch
        self.project = nn.Linear(patch * n_features, d_model)
        self.register_buffer("positions", nets.sinusoidal_positions(tokens, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(d_model, n_heads, d_ff, dropout, _gelu, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.pool = nets.AttentionPooling(d_model)
        self.head = nn.Sequential(nn.Linear(d_model, d_model), nn.LayerNorm(d_model), nn.GELU())
        self.mu = nn.Linear(d_model, latent_dim)
        self.logvar = nn.Linear(d_model, latent_dim)
        self.expand = nn.Linear(latent_dim, d_model)
        self.queries = nn.Parameter(0.02 * torch.randn(tokens, d_model))
        self.decode_steps = nn.Sequential(
            nn.GELU(), nn.Linear(d_model, d_model), nn.GELU(), nn.Linear(d_model, patch * n_features)
        )
        # Linear, so that what can be foretold lies along straight lines of the latent, where clustering looks for it.
        self.forecast = nn.Linear(latent_dim, n_features)
        # Where the regime vector's axes lie in the latent; `algospace.rde.space` turns them once training is over.
        self.register_buffer("centre", torch.zeros(latent_dim))
        self.register_buffer("axes", torch.eye(latent_dim))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, window, features) -> mean and log variance, each (batch, latent_dim)."""
        tokens = x.reshape(len(x), self.queries.shape[0], -1)
        h = self.dropout(self.project(tokens) + self.positions)
        c = self.head(self.pool(self.encoder(h)))
        return self.mu(c), self.logvar(c)

    def decode(self, z: Tensor) -> Tensor:
        """(batch, latent_dim) -> (batch, window, features)."""
        steps: Tensor = self.decode_steps(self.expand(z)[:, None, :] + self.queries)
        return steps.reshape(len(z), self.config["window"], self.config["n_features"])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Regime vectors (batch, latent_dim), each in (-1, 1), and the confidence (batch,) in each.

        A vector is tanh(y / 2) of y, the posterior mean along the space's axes; the confidence is the share of the
        prior's variance that the window removes.
        """
        mu, logvar = self.encode(x)
        confidence = (1 - logvar.exp().mean(dim=1)).clamp(0, 1)
        return torch.tanh((mu - self.centre) @ self.axes / 2), confidence


def _gelu(x: Tensor) -> Tensor:
    # Not F.gelu itself, for which the layer has a fused inference path. Its attention still takes a native one without
    # gradients, so a vector's bits are those of `nets.infer`, the one road of inference, and not of a training pass.
    return F.gelu(x)


def reparameterize(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """Sample z = mu + sigma eps, with eps the standard normal ``noise``."""
    return mu + torch.exp(logvar / 2) * noise


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q || N(0, 1)) per sample and latent dimension, (batch, latent_dim)."""
    return -0.5 * (1 + logvar - mu**2 - logvar.exp())


def elbo_loss(x: Tensor, reconstruction: Tensor, mu: Tensor, logvar: Tensor, beta: float, free_bits: float) -> Tensor:
    """Mean squared error per element plus beta times the KL summed over the latent.

    A latent dimension's KL counts as at least ``free_bits`` nats. Kingma et al. 2016 hold the mean of a minibatch to
    that; here every sample is, so that the loss of a batch is the mean of its samples' and means the same in parts.
    """
    kl = kl_divergence(mu, logvar).clamp(min=free_bits).sum(dim=1).mean()
    return F.mse_loss(reconstruction, x) + beta * kl


def forecast_loss(forecast: Tensor, later: Tensor) -> Tensor:
    """Mean squared error per element, (batch, features) each; a target of NaN counts as foretold."""
    return ((forecast - later).nan_to_num() ** 2).mean()


def load(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> RegimeVAE:
    """Rebuild a frozen model from its weights and its ``config``."""
    model = RegimeVAE(**config)
    nets.restore(model, tensors)
    return model


class Encoded(NamedTuple):
    """Regimes of n windows."""

    vectors: np.ndarray  # float32 (n, latent)
    confidence: np.ndarray  # float32 (n,)


def encode(model: RegimeVAE, windows: Callable[[np.ndarray], np.ndarray], ends: np.ndarray) -> Encoded:
    """Regimes of the windows that end at ``ends``.

    A vector depends on the rows of its own window alone. Raises `InputError` for a window with NaN, of another length
    or with another number of features.
    """
    config = model.config
    expected = (config["window"], config["n_features"])
    vectors = np.empty((len(ends), config["latent_dim"]), np.float32)
    confidence = np.empty(len(ends), np.float32)
    block = 250 * ROWS
    for start in range(0, len(ends), block):
        x = windows(ends[start : start + block])
        if x.shape[1:] != expected:
            raise InputError(f"rde: expected windows of {expected} rows and features, found {x.shape[1:]}")
        if not np.isfinite(x).all():
            raise InputError("rde: expected finite windows, found NaN or inf")
        at = slice(start, start + block)
        vectors[at], confidence[at] = nets.infer(model, x, rows=ROWS)
    return Encoded(vectors, confidence)
