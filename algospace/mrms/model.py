"""The risk ensemble: position, stop and target agents on one state."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from algospace import nets


class RiskEnsemble(nn.Module):
    """Three sub-agents on one state: position (0..max units), stop and target distributions over their grids."""

    def __init__(
        self,
        n_context: int,
        hidden_dim: int,
        n_units: int,
        stops: list[float],
        rewards: list[float],
        dropout: float,
    ) -> None:
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        half = hidden_dim // 2
        self.position = nets.mlp([n_context, hidden_dim, half, n_units + 1], dropout)
        self.stop = nets.mlp([n_context, hidden_dim, half, len(stops)], dropout)
        self.target = nets.mlp([n_context, hidden_dim, half, len(rewards)], dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, n_context) -> probabilities (batch, units + 1), (batch, stops), (batch, rewards)."""
        return self.position(x).softmax(-1), self.stop(x).softmax(-1), self.target(x).softmax(-1)


def load(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> RiskEnsemble:
    """Rebuild a frozen model from its weights and its ``config``."""
    model = RiskEnsemble(**config)
    nets.restore(model, tensors)
    return model
