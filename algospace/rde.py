"""RDE, the regime detection engine: a Transformer-VAE whose latent mean is the market's regime vector.

Vaswani et al. 2017 (encoder), Kingma and Welling 2014 (VAE). It reconstructs its INPUT window: an
encoder that reconstructs its own context is minimised by a constant and carries nothing.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from algospace import nets, training
from algospace.errors import InputError
from algospace.params import Params


class RDEParams(Params):
    """The `rde` section."""

    patch: int = Field(ge=1)
    d_model: int = Field(ge=2, multiple_of=2)
    n_heads: int = Field(ge=2, multiple_of=2)  # with an odd number inference leaves its one path (decision 0003)
    n_layers: int = Field(ge=1)
    d_ff: int = Field(ge=1)
    latent_dim: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    beta: float = Field(ge=0)
    beta_warmup_epochs: int = Field(ge=0)
    free_bits: float = Field(ge=0)
    optimizer: training.OptimizerParams

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"expected d_model to be a multiple of n_heads ({self.n_heads}), found {self.d_model}")
        return self


class RegimeVAE(nn.Module):
    """Transformer encoder, attention pooling, Gaussian latent, decoder of the whole window.

    A token is a patch of consecutive rows (one row in the profile `full`).
    """

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

    def forward(self, x: Tensor) -> Tensor:
        """Regime vectors tanh(mu / 2), (batch, latent_dim), each in (-1, 1)."""
        mu, _ = self.encode(x)
        return torch.tanh(mu / 2)


def _gelu(x: Tensor) -> Tensor:
    # Not F.gelu itself, for which the layer has a fused inference path. Its attention still takes a native one without
    # gradients, so a vector's bits are those of `nets.infer`, the one road of inference, and not of a training pass.
    return F.gelu(x)


def reparameterize(mu: Tensor, logvar: Tensor) -> Tensor:
    """Sample z = mu + sigma eps."""
    return mu + torch.exp(logvar / 2) * torch.randn_like(mu)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q || N(0, 1)) per sample and latent dimension, (batch, latent_dim)."""
    return -0.5 * (1 + logvar - mu**2 - logvar.exp())


def elbo_loss(x: Tensor, reconstruction: Tensor, mu: Tensor, logvar: Tensor, beta: float, free_bits: float) -> Tensor:
    """Mean squared error per element plus beta times the KL summed over the latent.

    A latent dimension's mean KL counts as at least ``free_bits`` nats (Kingma et al. 2016).
    """
    kl = kl_divergence(mu, logvar).mean(dim=0).clamp(min=free_bits).sum()
    return F.mse_loss(reconstruction, x) + beta * kl


def fit(
    train: Callable[[np.ndarray], np.ndarray],
    n_train: int,
    validation: np.ndarray,
    params: RDEParams,
    device: str,
    on_step: training.OnStep,
    resumed: dict[str, Any] | None,
) -> tuple[RegimeVAE, training.Fit]:
    """Train on windows drawn from train, stop early on validation, return the model of the best epoch.

    Parameters
    ----------
    train
        Indices (k,) below ``n_train`` -> windows (k, window, features) float32.
    validation
        Windows (m, window, features) of the selecting half of validation.
    on_step, resumed
        Saver of the training state and the state to go on from.

    Raises
    ------
    InputError
        When there are no windows, or a window or the loss is not finite.
    """
    if n_train < 2 or len(validation) < 2:
        raise InputError(f"rde: expected windows in train and in select, found {n_train} and {len(validation)}")
    if not np.isfinite(validation).all():
        raise InputError("rde: expected finite windows in select, found NaN or inf")
    arch = {k: getattr(params, k) for k in ("patch", "d_model", "n_heads", "n_layers", "d_ff", "latent_dim", "dropout")}
    model = RegimeVAE(validation.shape[2], validation.shape[1], **arch).to(device)

    def draw() -> Tensor:
        return torch.randperm(n_train)[: params.optimizer.samples_per_epoch]

    def loss(chosen: Tensor, epoch: int) -> Tensor:
        beta = params.beta * min(1.0, (epoch + 1) / (params.beta_warmup_epochs + 1))
        x = torch.from_numpy(train(chosen.cpu().numpy())).to(device)
        mu, logvar = model.encode(x)
        return elbo_loss(x, model.decode(reparameterize(mu, logvar)), mu, logvar, beta, params.free_bits)

    def validate() -> dict[str, float]:
        return evaluate(model, validation, params)

    return model, training.fit("rde", model, draw, loss, validate, params.optimizer, on_step, resumed)


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


def quality(model: RegimeVAE, windows: np.ndarray, train_mean: np.ndarray) -> dict[str, float]:
    """What the latent carries, on windows that did not train it.

    Reconstruction R^2 against the train mean of each feature, active units (variance of mu over 0.01, Burda et al.
    2016), and the mean step of the regime vector from window to window.
    """
    with torch.no_grad():
        x = torch.from_numpy(windows).to(next(model.parameters()).device)
        mu, _ = model.encode(x)
        residual = float(((model.decode(mu) - x) ** 2).sum())
        vectors = torch.tanh(mu / 2)
    baseline = float(((windows - train_mean) ** 2).sum())
    return {
        "reconstruction_r2": 1 - residual / baseline,
        "active_units": float((mu.var(dim=0) > 0.01).sum()),
        "mean_step": float((vectors[1:] - vectors[:-1]).norm(dim=1).mean()),
    }


def load(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> RegimeVAE:
    """Rebuild a frozen model from its weights and its ``config``."""
    model = RegimeVAE(**config)
    nets.restore(model, tensors)
    return model


def encode(model: RegimeVAE, windows: Callable[[np.ndarray], np.ndarray], ends: np.ndarray) -> np.ndarray:
    """Regime vectors (len(ends), latent_dim) of the windows that end at ``ends``, float32.

    A vector depends on the rows of its own window alone. Raises `InputError` for a window with NaN.
    """
    vectors = np.empty((len(ends), model.mu.out_features), np.float32)
    block = 20 * nets.INFERENCE_ROWS
    for start in range(0, len(ends), block):
        x = windows(ends[start : start + block])
        if not np.isfinite(x).all():
            raise InputError("rde: expected finite windows, found NaN or inf")
        (vectors[start : start + block],) = nets.infer(model, x)
    return vectors
