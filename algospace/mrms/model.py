"""The risk ensemble: position, stop and target agents on one state, and a coordinator that weighs them."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algospace import nets
from algospace.errors import InputError
from algospace.mrms.params import AdjustmentParams, LVNParams, MRMSParams
from algospace.mrms.state import SIDE, feature_names

AGENTS = ("position", "stop", "target")
EMBEDDING = 8
LEAST_SPREAD = 1e-6
FARTHEST = 5.0  # standard deviations of train beyond which a feature counts no more
COORDINATOR = 32  # width of its hidden layer
OUT_OF_REACH = -1e9  # logit of a choice that no state can bring back; finite, as every weight of a bundle is


class Output(NamedTuple):
    """What the ensemble says of a batch of states."""

    units: Tensor  # (batch, units + 1) probabilities of 0..units
    stop: Tensor  # (batch, stops) probabilities over the grid
    target: Tensor  # (batch, rewards)
    weights: Tensor  # (batch, 3) of the agents, in the order of AGENTS, summing to 1
    confidence: Tensor  # (batch,) weighted mean of the agents' own confidences
    embedding: Tensor  # (batch, 8) in -1..1
    deviation: Tensor  # (batch,) mean square of what the networks add to the linear logits


class Agent(nn.Module):
    """A distribution over choices: logits linear in the state of each side, plus what a network adds.

    The network starts at zero, so that an agent that finds nothing more keeps the linear answer that it begins with.
    """

    def __init__(self, n_features: int, hidden_dim: int, n_choices: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * n_features, n_choices)
        self.network = nets.mlp([n_features, hidden_dim, max(hidden_dim // 2, 1), n_choices], dropout)
        for layer in (self.linear, self.network[-1]):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, sided: Tensor) -> tuple[Tensor, Tensor]:
        """Answer states (batch, n_features), given also as `RiskEnsemble.sided` makes them.

        Returns probabilities (batch, n_choices) and the mean square (batch,) of the network's part.
        """
        own = self.network(x)
        return (self.linear(sided) + own).softmax(-1), (own**2).mean(-1)


class RiskEnsemble(nn.Module):
    """Three agents and their coordinator.

    The first step is to scale the features by the rows that trained.

    Parameters
    ----------
    features
        Names of the state's features, in their order; `algospace.mrms.state.SIDE` is one of them.
    n_units
        Most units the position agent may propose.
    stops, rewards
        Grids of the stop (in 30-minute ATR) and of target over stop.
    lvn, adjustment
        `LVNParams` and `AdjustmentParams` as mappings: how a proposal becomes a stop and a size.
    """

    def __init__(
        self,
        features: list[str],
        hidden_dim: int,
        n_units: int,
        stops: list[float],
        rewards: list[float],
        dropout: float,
        lvn: dict[str, Any],
        adjustment: dict[str, Any],
    ) -> None:
        super().__init__()
        self.center: Tensor
        self.scale: Tensor
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.lvn, self.adjustment = LVNParams(**lvn), AdjustmentParams(**adjustment)
        n = len(features)
        self.side = features.index(SIDE)
        # Set by `scale_to` on the rows that train: features differ in size by a factor of a hundred.
        self.register_buffer("center", torch.zeros(n))
        self.register_buffer("scale", torch.ones(n))
        self.position = Agent(n, hidden_dim, n_units + 1, dropout)
        self.stop = Agent(n, hidden_dim, len(stops), dropout)
        self.target = Agent(n, hidden_dim, len(rewards), dropout)
        self.embed = nn.Linear(n, EMBEDDING)
        self.coordinator = nets.mlp([EMBEDDING + len(AGENTS), COORDINATOR, len(AGENTS)], dropout=0.0)

    def scale_to(self, x: Tensor) -> None:
        """Centre and scale every feature by the rows (n, features) that train; a constant one keeps its size."""
        spread = x.std(0)
        self.center.copy_(x.mean(0))
        self.scale.copy_(torch.where(spread > LEAST_SPREAD, spread, 1.0))

    def limit_units(self, most: int) -> None:
        """Put every size above ``most`` units out of the position agent's reach, whatever the state."""
        with torch.no_grad():
            self.position.linear.bias[most + 1 :] = OUT_OF_REACH

    def scaled(self, x: Tensor) -> Tensor:
        """States (batch, features) in standard deviations of train."""
        return ((x - self.center) / self.scale).clamp(-FARTHEST, FARTHEST)

    def sided(self, x: Tensor) -> Tensor:
        """Scaled states (batch, features), and each feature times the side: (batch, 2 features).

        What is linear in these is linear in the state of each side on its own: the same market may pay the one and not
        the other.
        """
        return torch.cat([x, x * x[:, self.side, None]], dim=-1)

    def forward(self, x: Tensor) -> Output:
        """(batch, features) -> `Output`."""
        x = self.scaled(x)
        sided = self.sided(x)
        agents = [agent(x, sided) for agent in (self.position, self.stop, self.target)]
        # The coordinator judges the agents; it must not bend them.
        own = torch.stack([probabilities.detach().amax(-1) for probabilities, _ in agents], dim=-1)
        embedding = torch.tanh(self.embed(x))
        weights = self.coordinator(torch.cat([embedding, own], dim=-1)).softmax(-1)
        deviation = torch.stack([square for _, square in agents]).mean(0)
        (units, _), (stop, _), (target, _) = agents
        return Output(units, stop, target, weights, (weights * own).sum(-1), embedding, deviation)


def new(features: tuple[str, ...], n_units: int, params: MRMSParams) -> RiskEnsemble:
    """An untrained ensemble."""
    return RiskEnsemble(
        list(features), params.hidden_dim, n_units, list(params.stop_grid), list(params.reward_risk_grid),
        params.dropout, params.lvn.model_dump(), params.adjustment.model_dump(),
    )  # fmt: skip


def load(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> RiskEnsemble:
    """Rebuild a frozen model from its weights and its ``config``.

    Raises
    ------
    InputError
        For a model of features that are not the ones of `algospace.mrms.state`, naming the first.
    """
    model = RiskEnsemble(**config)
    found = config["features"]
    expected = feature_names(max(0, len(found) - len(feature_names(0))))
    require_features(tuple(found), expected)
    nets.restore(model, tensors)
    return model


def require_features(found: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Raise `InputError` that names the first feature of ``found`` that is not the expected one."""
    if len(found) != len(expected):
        raise InputError(f"mrms: expected {len(expected)} features, found {len(found)}")
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a != b:
            raise InputError(f"mrms: expected {b} as feature {i}, found {a}")
