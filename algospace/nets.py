"""Blocks shared by two models or more."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_ROWS = 65_535  # of a batch, in one call of attention on CUDA: an axis of its grid holds no more
INFERENCE_ROWS = 50  # of a batch of inference: kernels give other bits at other batch sizes


class AttentionPooling(nn.Module):
    """Weighted mean over time with learned weights: a = softmax(w h), c = sum a h."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.score = nn.Linear(d_model, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """(batch, time, d_model) -> (batch, d_model)."""
        weights = torch.softmax(self.score(h), dim=1)
        return (weights * h).sum(dim=1)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017) without dropout: (batch, time, width) -> the same shape.

    On short sequences the kernels behind `nn.MultiheadAttention` take twice as long on a CPU as three plain products
    (25 steps of width 32: 20 ms against 10 ms, forward and backward, 256 rows); on a GPU they save the memory of the
    weights.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.project.weight)
        for layer in (self.project, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Let every step attend to all."""
        batch, time, _ = h.shape
        heads = self.project(h).view(batch, time, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.flatten(1, 2).unbind(0)  # (batch x heads, time, width / heads) each
        if h.is_cuda:  # its fused kernels want the heads on an axis of their own, and so many rows at most
            split = (part.unflatten(0, (batch, self.n_heads)).split(MOST_ROWS) for part in (query, key, value))
            parts = [F.scaled_dot_product_attention(*rows) for rows in zip(*split, strict=True)]
            mixed = parts[0] if len(parts) == 1 else torch.cat(parts)
        else:
            scores = torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2))
            mixed = torch.bmm(scores.softmax(-1), value)
        attended: Tensor = self.out(mixed.reshape(batch, self.n_heads, time, -1).transpose(1, 2).flatten(2))
        return attended


def sinusoidal_positions(length: int, d_model: int) -> Tensor:
    """Positions (length, d_model): sines in even columns, cosines in odd ones (Vaswani et al. 2017)."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float32) * (-math.log(10000.0) / d_model))
    encoding = torch.zeros(length, d_model)
    encoding[:, 0::2] = torch.sin(position * rate)
    encoding[:, 1::2] = torch.cos(position * rate)
    return encoding


def mlp(sizes: list[int], dropout: float) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them; the last is linear."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(n_in, n_out))
        if i < len(sizes) - 2:
            layers += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def gaussian_nll(error: Tensor, sd: Tensor) -> Tensor:
    """Negative log-likelihood of a Gaussian, nats: e^2 / (2 s^2) + ln s + ln(2 pi) / 2, a proper score."""
    return 0.5 * (error / sd) ** 2 + sd.log() + 0.5 * math.log(2 * math.pi)


def dropout_masks(seeds: Tensor, units: int, p: float) -> Tensor:
    """Dropout masks that are a function of their seeds alone.

    Parameters
    ----------
    seeds
        int64 (batch,): one seed a row. The same seed gives the same mask in any batch, on any device; that is what
        lets PPO replay the mask of a rollout in its update, and a consensus be repeated.
    units
        Length of a mask.
    p
        Probability that a unit is dropped.

    Returns
    -------
    Tensor
        float32 (batch, units): 0 where dropped, 1 / (1 - p) elsewhere.

    Notes
    -----
    Counter-based: splitmix64's finaliser (Steele, Lea, Flood 2014) of seed and unit number.
    """
    counter = torch.arange(1, units + 1, dtype=torch.int64, device=seeds.device)
    x = seeds[:, None] + counter * -0x61C8864680B583EB  # the golden ratio in 64 bits, two's complement
    x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
    x = x ^ _shift(x, 31)
    uniform = _shift(x, 40).to(torch.float32) * 2.0**-24
    return (uniform >= p).to(torch.float32) / (1 - p)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


@torch.no_grad()
def infer(module: nn.Module, *inputs: np.ndarray, rows: int = INFERENCE_ROWS) -> list[np.ndarray]:
    """Run a frozen module over its inputs' rows in batches of exactly ``rows``, the last one padded.

    Every road from data to decisions comes through here or through a batch of the same shape, so that a row gives
    the same bits wherever it stands. The module returns a tensor or a tuple of them; rows are their first axis.
    """
    if module.training:  # asked first: to set it takes as long as a small network's answer
        module.eval()
    count = len(inputs[0])
    device = next(module.parameters()).device
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, count, rows):
        batch = [torch.from_numpy(pad(array[start : start + rows], rows)).to(device) for array in inputs]
        output = module(*batch)
        parts.append(output if isinstance(output, tuple) else (output,))
    return [torch.cat(tensors).cpu().numpy()[:count] for tensors in zip(*parts, strict=True)]


def pad(array: np.ndarray, rows: int) -> np.ndarray:
    """Repeat the last row until there are ``rows``."""
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else np.ascontiguousarray(array)


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """A module's weights as NumPy arrays, for an artefact."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}


def restore(module: nn.Module, tensors: dict[str, np.ndarray]) -> None:
    """Load the weights that `arrays` gave and freeze the module."""
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    module.eval().requires_grad_(False)
