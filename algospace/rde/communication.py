"""The RDE's communication layer: what regime vector comes next, and how sure that is.

An LSTM reads the regime vectors of consecutive 30-minute closes and predicts the next one as a Gaussian around the
present one. Its intervals are calibrated on the selecting half of validation; a vector that falls outside them is a
surprise that agents may be told of. A prediction for step t + 1 reads the vectors up to t of its own sequence.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from algospace import nets, training
from algospace.errors import InputError
from algospace.params import Params, RuntimeParams

LEVELS = (0.68, 0.95)  # of the calibrated intervals
_SMALLEST_SD = 1e-4


class CommunicationParams(Params):
    """The communication layer of the `rde` section."""

    hidden_dim: int = Field(ge=1)
    n_layers: int = Field(ge=1)
    embedding_dim: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    sequence: int = Field(ge=2)
    temporal: float = Field(ge=0)
    optimizer: training.OptimizerParams


class RegimeLSTM(nn.Module):
    """LSTM with learned initial state -> embedding -> mean and standard deviation of the next vector's change.

    ``unit`` (latent,) is the size of a usual change; ``widths`` (levels, latent) are the half-widths of the calibrated
    intervals, in standard deviations.
    """

    unit: Tensor
    widths: Tensor

    def __init__(self, latent_dim: int, hidden_dim: int, n_layers: int, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.lstm = nn.LSTM(latent_dim, hidden_dim, n_layers, batch_first=True, dropout=dropout * (n_layers > 1))
        self.start = nn.Parameter(torch.zeros(2, n_layers, 1, hidden_dim))
        self.embed = nn.Sequential(nn.Linear(hidden_dim, embedding_dim), nn.LayerNorm(embedding_dim))
        self.change = nn.Linear(embedding_dim, latent_dim)
        self.spread = nn.Linear(hidden_dim, latent_dim)
        nn.init.zeros_(self.change.weight)  # the first prediction: as it is now
        nn.init.zeros_(self.change.bias)
        self.register_buffer("unit", torch.ones(latent_dim))
        self.register_buffer("widths", torch.ones(len(LEVELS), latent_dim))

    def embeddings(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, time, latent) -> embedding (batch, time, e), mean and sd of the next vector (batch, time, latent)."""
        h0, c0 = (s.expand(-1, len(x), -1).contiguous() for s in self.start)
        hidden, _ = self.lstm(x, (h0, c0))
        embedding = self.embed(hidden)
        sd = (F.softplus(self.spread(hidden)) + _SMALLEST_SD) * self.unit
        return embedding, x + self.change(embedding) * self.unit, sd

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, time, latent) -> embedding (batch, e), mean and sd (batch, latent), after the last step."""
        embedding, mean, sd = self.embeddings(x)
        return embedding[:, -1], mean[:, -1], sd[:, -1]


class Prediction(NamedTuple):
    """What is expected of n next vectors."""

    embedding: np.ndarray  # float32 (n, embedding)
    mean: np.ndarray  # float32 (n, latent)
    sd: np.ndarray  # float32 (n, latent)


def sequences(vectors: np.ndarray, consecutive: np.ndarray, chosen: np.ndarray, length: int) -> np.ndarray:
    """All runs (m, length, latent) of vectors (n, latent) of consecutive bars, every one of them ``chosen`` (n,).

    ``consecutive`` (n,) says which vectors follow the one before by one bar.
    """
    breaks = ~consecutive | ~chosen | np.append(True, ~chosen[:-1])
    position = np.arange(len(vectors))
    run = position - np.maximum.accumulate(np.where(breaks, position, 0))
    last = np.flatnonzero(chosen & (run >= length - 1))
    found: np.ndarray = vectors[last[:, None] + np.arange(1 - length, 1)]
    return found


def fit(
    train: np.ndarray,
    select: np.ndarray,
    params: CommunicationParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> tuple[RegimeLSTM, training.Fit]:
    """Train on sequences (m, sequence + 1, latent) of regime vectors; stop early and calibrate on those of ``select``.

    Raises `InputError` when there are no sequences.
    """
    if not len(train) or not len(select):
        raise InputError(
            f"rde.communication: expected sequences in train and in select, found {len(train)} and {len(select)}"
        )
    torch.manual_seed(seed)
    sizes = params.hidden_dim, params.n_layers, params.embedding_dim
    model = RegimeLSTM(train.shape[2], *sizes, params.dropout)
    model.unit.copy_(torch.from_numpy(np.diff(train, axis=1).std(axis=(0, 1)) + _SMALLEST_SD))

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        embedding, mean, sd = model.embeddings(x[:, :-1])
        nll = nets.gaussian_nll((x[:, 1:] - mean) / model.unit, sd / model.unit).mean()
        step = (embedding[:, 1:] - embedding[:, :-1]).abs()
        doubt = (sd / model.unit).mean(dim=2)[:, 1:, None]
        return nll, (step**2 / (1 + doubt) + 0.5 * step).mean()

    model.to(runtime.device)

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randperm(len(train), generator=generator)[: params.optimizer.samples_per_epoch]

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        nll, temporal = objective(torch.from_numpy(train[chosen.numpy()]).to(runtime.device))
        return nll + params.temporal * temporal

    def validate() -> dict[str, float]:
        return {"loss": objective(torch.from_numpy(select).to(runtime.device))[0].item()}

    run = training.fit(
        "rde.communication", model, draw, loss, validate, params.optimizer, runtime.in_float32(), seed, saver
    )
    # Frozen first: the LSTM's kernel gives other bits while its weights ask for gradients.
    calibrate(model.cpu().requires_grad_(False), select)
    return model, run


def calibrate(model: RegimeLSTM, select: np.ndarray) -> None:
    """Set the interval half-widths to the quantiles of |error| / sd on ``select`` (split conformal prediction)."""
    score = surprise(model, select)
    widths = np.quantile(score, LEVELS, axis=0).astype(np.float32)
    model.widths.copy_(torch.from_numpy(widths))


def surprise(model: RegimeLSTM, found: np.ndarray) -> np.ndarray:
    """|error| / sd (m, latent) of the last vector of each sequence (m, sequence + 1, latent)."""
    expected = predict(model, found[:, :-1])
    score: np.ndarray = np.abs(found[:, -1] - expected.mean) / expected.sd
    return score


def predict(model: RegimeLSTM, past: np.ndarray) -> Prediction:
    """Expect the vector after each sequence (m, time, latent).

    Raises `InputError` for sequences with NaN or of another number of dimensions.
    """
    if past.ndim != 3 or past.shape[2] != model.config["latent_dim"]:
        raise InputError(f"rde.communication: expected vectors of {model.config['latent_dim']}, found {past.shape}")
    if not np.isfinite(past).all():
        raise InputError("rde.communication: expected finite regime vectors, found NaN or inf")
    return Prediction(*nets.infer(model, past))


def figures(model: RegimeLSTM, report: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """Calibration and sharpness on sequences that trained nothing, beside a random walk with train's spread.

    Coverage of the intervals at each of `LEVELS`; the negative log likelihood in nats a dimension, in units of train's
    usual change, and that of the random walk.
    """
    expected = predict(model, report[:, :-1])
    unit = model.unit.numpy()
    error = report[:, -1] - expected.mean
    inside = np.abs(error)[None] <= model.widths.numpy()[:, None] * expected.sd
    naive = (report[:, -1] - report[:, -2]) / unit
    usual = (np.diff(train, axis=1) / unit).std(axis=(0, 1))
    result = {f"coverage_{round(100 * level)}": float(inside[i].mean()) for i, level in enumerate(LEVELS)}
    return result | {
        "nll": nets.gaussian_nll(torch.from_numpy(error / unit), torch.from_numpy(expected.sd / unit)).mean().item(),
        "random_walk_nll": nets.gaussian_nll(torch.from_numpy(naive), torch.from_numpy(usual)).mean().item(),
    }


def load(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> RegimeLSTM:
    """Rebuild a frozen layer from its weights and its ``config``."""
    model = RegimeLSTM(**config)
    nets.restore(model, tensors)
    return model
