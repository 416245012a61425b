"""What teams of actors share: rounds of communication, a centralised critic; and a team whose agents see vectors.

The trading team (`algospace.agents`) and `VectorTeam` differ in what their agents see and do. An agent alone is a team
of one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algospace.ppo import Observation


class Output(Protocol):
    """What one pass of a team gives, for a batch of rows."""

    @property
    def states(self) -> Tensor:
        """States (batch, agents, width) after communication."""
        ...

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions (batch, agents, ...) from the heads."""
        ...

    def log_prob_entropy(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of actions and entropy, both (batch, agents)."""
        ...

    def float(self) -> Self:
        """Give the same in float32."""
        ...


class Communication(nn.Module):
    """Rounds of messages between the agents' states.

    Message m_j = W h_j; agent i hears the messages weighted by row i of a learned softmax matrix and updates its
    state by a GRU cell. Without rounds the states stay as they are.
    """

    def __init__(self, n_agents: int, width: int, message_dim: int, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.message = nn.Linear(width, message_dim)
        self.attention = nn.Parameter(torch.zeros(n_agents, n_agents))
        self.update = nn.GRUCell(n_agents * message_dim, width)

    def forward(self, states: Tensor) -> Tensor:
        """(batch, agents, width) -> the same shape."""
        batch, n, width = states.shape
        weights = torch.softmax(self.attention, dim=-1)
        for _ in range(self.rounds):
            messages = self.message(states)
            heard = weights[None, :, :, None] * messages[:, None]
            states = self.update(heard.reshape(batch * n, -1), states.reshape(batch * n, width)).view(batch, n, width)
        return states


class Critic(nn.Module):
    """Centralised value: all agents' states (detached) and what else it sees -> V (batch,). No dropout of its own.

    Parameters
    ----------
    n_agents, width
        Of the states.
    n_context
        Width of everything under ``names`` together.
    names
        Entries (batch, features) of the observation that it sees beside the states.
    """

    def __init__(self, n_agents: int, width: int, n_context: int, hidden_dim: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.layers = nn.Sequential(
            nn.Linear(n_agents * width + n_context, hidden_dim), nn.LayerNorm(hidden_dim), nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim), nn.ReLU(),
            nn.Linear(hidden_dim, 1),
        )  # fmt: skip
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, 2**0.5 if layer.out_features > 1 else 1.0)
                nn.init.zeros_(layer.bias)

    def forward(self, output: Output, observation: Observation) -> Tensor:
        """Value of each row, (batch,)."""
        seen = [observation[name] for name in self.names]
        value: Tensor = self.layers(torch.cat([output.states.detach().flatten(1), *seen], dim=1))[:, 0]
        return value


class VectorOutput(NamedTuple):
    """What one pass of a `VectorTeam` gives."""

    logits: tuple[Tensor, ...]  # of each agent, (batch, its actions)
    states: Tensor  # (batch, agents, width) after communication

    def float(self) -> "VectorOutput":
        """The same in float32."""
        return VectorOutput(tuple(x.float() for x in self.logits), self.states.float())

    def sample(self, generator: torch.Generator) -> Tensor:
        """Actions (batch, agents) drawn from the heads."""
        drawn = [torch.multinomial(x.softmax(-1), 1, generator=generator) for x in self.logits]
        return torch.cat(drawn, dim=1)

    def greedy(self) -> Tensor:
        """Most probable actions (batch, agents)."""
        return torch.stack([x.argmax(-1) for x in self.logits], dim=1)

    def log_prob_entropy(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of actions and entropy, both (batch, agents)."""
        tables = [F.log_softmax(x, -1) for x in self.logits]
        log_probs = [table.gather(1, actions[:, i : i + 1]) for i, table in enumerate(tables)]
        entropies = [-(table.exp() * table).sum(-1, keepdim=True) for table in tables]
        return torch.cat(log_probs, dim=1), torch.cat(entropies, dim=1)


class VectorTeam(nn.Module):
    """Actors with own networks that see vectors and choose one of a few actions each. No dropout.

    Parameters
    ----------
    features, actions
        Width of what each agent sees, under its name in the observation, and the number of its actions.
    width
        Of an agent's state and of the layer below it.
    rounds
        Of communication, between trunks and heads.
    """

    def __init__(
        self, features: dict[str, int], actions: dict[str, int], width: int, message_dim: int, rounds: int
    ) -> None:
        super().__init__()
        self.features, self.width = features, width
        self.trunks = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(n, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
                for name, n in features.items()
            }
        )
        self.communication = Communication(len(features), width, message_dim, rounds)
        self.heads = nn.ModuleDict({name: nn.Linear(width, actions[name]) for name in features})
        gains = [(2**0.5, self.trunks), (0.01, self.heads)]
        for layer, gain in [(layer, gain) for gain, part in gains for layer in part.modules()]:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, gain)
                nn.init.zeros_(layer.bias)

    def critic(self, hidden_dim: int) -> Critic:
        """A critic that sees what all agents see."""
        return Critic(len(self.features), self.width, sum(self.features.values()), hidden_dim, tuple(self.features))

    def forward(self, observation: Observation, seeds: Tensor | None) -> VectorOutput:
        """One pass; nothing is drawn in it, whatever the ``seeds``."""
        states = torch.stack([trunk(observation[name]) for name, trunk in self.trunks.items()], dim=1)
        shared = self.communication(states)
        return VectorOutput(tuple(head(shared[:, i]) for i, head in enumerate(self.heads.values())), shared)
