"""The trading team: Structure, Tactical and Arbitrageur with three rounds of communication, or any of them alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algospace import nets
from algospace.env import ARBITRAGEUR, DELAYS, PASS, TACTICAL
from algospace.ppo import Observation
from algospace.teams import Communication, Critic

ROUNDS = 3  # of communication, in every pass
CONTEXT = ("context", "account")  # what every agent knows beside its own windows, and the critic too
LEAST_SPREAD = 0.1  # of a number of the context: what hardly varies on train must not be magnified later
FIRST_LOGIT = 10.0  # of a side that a linear forecast expects to earn 1 R
FARTHEST = 5.0  # standard deviations of train beyond which a number of the context counts no more


class Trunk(nn.Module):
    """Three convolutions over time, self-attention, mean over time: (batch, time, features) -> (batch, width)."""

    def __init__(self, n_features: int, channels: Sequence[int], stride: int, n_heads: int) -> None:
        super().__init__()
        sizes, strides = (n_features, *channels), (1, stride, stride)
        self.convs = nn.ModuleList(
            nn.Conv1d(a, b, kernel_size=3, padding=1, stride=s)
            for a, b, s in zip(sizes[:-1], sizes[1:], strides, strict=True)
        )
        # One group: every row is normalised alone, so no statistic of a batch enters a decision.
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for c in channels)
        self.attention = nets.SelfAttention(channels[-1], n_heads)
        self.norm = nn.LayerNorm(channels[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Pool one agent's window."""
        h = x.transpose(1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(h)))
        h = h.transpose(1, 2)
        pooled: Tensor = self.norm(h + self.attention(h)).mean(dim=1)
        return pooled


class TeamOutput(NamedTuple):
    """What one pass of the team gives."""

    action: Tensor  # logits (batch, agents, 3)
    timing: Tensor  # logits (batch, agents, DELAYS)
    confidence: Tensor  # logits (batch, agents, 2) of net R > 0, with and against the signal
    inefficiency: Tensor | None  # (batch, 2) expected net R, the Arbitrageur's; None in a team without it
    states: Tensor  # (batch, agents, width) after communication

    def float(self) -> "TeamOutput":
        """The same in float32."""
        return TeamOutput(
            self.action.float(), self.timing.float(), self.confidence.float(),
            None if self.inefficiency is None else self.inefficiency.float(), self.states.float(),
        )  # fmt: skip

    def sample(self, generator: torch.Generator) -> Tensor:
        """Actions (batch, agents, 2) drawn from the heads: vote and delay."""

        def draw(logits: Tensor) -> Tensor:
            p = logits.softmax(-1)
            return torch.multinomial(p.flatten(0, 1), 1, generator=generator).view(p.shape[:-1])

        return torch.stack([draw(self.action), draw(self.timing)], dim=-1)

    def log_prob_entropy(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of actions and entropy, both (batch, agents).

        The delay is part of an action only where the vote is not to pass: log p(vote) + [vote != pass] log p(delay).
        """
        vote, delay = F.log_softmax(self.action, -1), F.log_softmax(self.timing, -1)
        trades = (actions[..., 0] != PASS).to(vote.dtype)
        chosen = (table.gather(-1, actions[..., i : i + 1])[..., 0] for i, table in enumerate((vote, delay)))
        vote_log_prob, delay_log_prob = chosen
        log_prob = vote_log_prob + trades * delay_log_prob
        vote_entropy, delay_entropy = (-(table.exp() * table).sum(-1) for table in (vote, delay))
        entropy = vote_entropy + (1 - vote[..., PASS].exp()) * delay_entropy
        return log_prob, entropy


class Team(nn.Module):
    """Actors with own trunks and heads and shared communication.

    ``agents`` names them, in the order of `algospace.env.AGENTS`; an observation may hold the windows of others too.
    The first steps are to scale the context by the rows that train, and to begin with a linear forecast.
    Dropout is a function of the seeds that are passed in, one a row; without seeds there is none. It begins after the
    trunks (decision 0011), so that many passes over one row need `encode` once.
    """

    def __init__(
        self,
        agents: Sequence[str],
        n_context: int,
        channels: Sequence[int],
        stride: int,
        n_heads: int,
        message_dim: int,
        head_dim: int,
        dropout: float,
        features: dict[str, int],
        n_side: int,
    ) -> None:
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.center: Tensor
        self.scale: Tensor
        self.agents, self.p = tuple(agents), dropout
        width = channels[-1]
        self.register_buffer("center", torch.zeros(n_context))
        self.register_buffer("scale", torch.ones(n_context))
        self.trunks = nn.ModuleDict({name: Trunk(features[name], channels, stride, n_heads) for name in agents})
        if TACTICAL in agents:
            self.join_side = nn.Linear(width + n_side, width)
        self.communication = Communication(len(agents), width, message_dim, ROUNDS)
        outputs = 3 + DELAYS + 2
        self.hidden = nn.ModuleList(nn.Linear(width + n_context, head_dim) for _ in agents)
        self.hidden_norm = nn.ModuleList(nn.LayerNorm(head_dim) for _ in agents)
        self.out = nn.ModuleList(nn.Linear(head_dim, outputs + (2 if a == ARBITRAGEUR else 0)) for a in agents)
        self.linear = nn.Linear(n_context, 3 * len(agents))
        for head in self.out.parameters():
            if head.ndim > 1:
                nn.init.orthogonal_(head, 0.01)
            else:
                nn.init.zeros_(head)
        for head in self.linear.parameters():
            nn.init.zeros_(head)
        self.mask_sizes = [width, head_dim] * len(agents)

    def scale_to(self, context: Tensor) -> None:
        """Centre and scale the context by the rows (n, c) that train; the account stays as it is."""
        spread = context.std(0)
        self.center[: len(spread)] = context.mean(0)
        self.scale[: len(spread)] = spread.clamp(min=LEAST_SPREAD)

    @torch.no_grad()
    def begin_with(self, weights: Tensor, bias: Tensor) -> None:
        """Begin with a linear forecast of the sides' net R from the scaled context: ``weights`` (c, 2), ``bias`` (2,).

        It becomes the first action logits of every agent, beside 0 for a pass: what the networks add must beat it.
        """
        self.linear.weight.view(len(self.agents), 3, -1)[:, 1:, : len(weights)] = FIRST_LOGIT * weights.T
        self.linear.bias.view(len(self.agents), 3)[:, 1:] = FIRST_LOGIT * bias

    def critic(self, hidden_dim: int) -> Critic:
        """A critic that sees context and account beside the agents' states."""
        return Critic(len(self.agents), self.config["channels"][-1], self.config["n_context"], hidden_dim, CONTEXT)

    def look(self, name: str, observation: Observation) -> Tensor:
        """State (batch, width) that one agent makes of its windows alone."""
        state: Tensor = self.trunks[name](observation[name])
        if name == TACTICAL:
            state = F.relu(self.join_side(torch.cat([state, observation["side"]], dim=1)))
        return state

    def encode(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """What no dropout touches: states (batch, agents, width) before communication, scaled context (batch, c)."""
        states = torch.stack([self.look(name, observation) for name in self.agents], dim=1)
        return states, self.context(observation)

    def context(self, observation: Observation) -> Tensor:
        """What every agent knows beside its windows, scaled: (batch, c)."""
        return self.scaled(torch.cat([observation[name] for name in CONTEXT], dim=1))

    def scaled(self, context: Tensor) -> Tensor:
        """Context (batch, c), or its first columns, in standard deviations of train."""
        c = context.shape[1]
        return ((context - self.center[:c]) / self.scale[:c]).clamp(-FARTHEST, FARTHEST)

    def masks(self, seeds: Tensor) -> list[Tensor]:
        """Dropout masks of ``seeds`` int64 (batch,): for each agent those of its state and of its hidden layer."""
        return list(torch.split(nets.dropout_masks(seeds, sum(self.mask_sizes), self.p), self.mask_sizes, dim=1))

    def respond(self, states: Tensor, context: Tensor, masks: list[Tensor] | None) -> TeamOutput:
        """Communication and heads, from what `encode` gave; without ``masks`` there is no dropout."""
        if masks is not None:
            states = states * torch.stack(masks[::2], dim=1)
        shared = self.communication(states)
        outputs = []
        for i in range(len(self.agents)):
            h = F.relu(self.hidden_norm[i](self.hidden[i](torch.cat([shared[:, i], context], dim=1))))
            outputs.append(self.out[i](h if masks is None else h * masks[2 * i + 1]))
        stacked = torch.stack([o[:, : 5 + DELAYS] for o in outputs], dim=1)
        action, timing, confidence = torch.split(stacked, [3, DELAYS, 2], dim=-1)
        action = action + self.linear(context).view(action.shape)
        # The Arbitrageur comes last; every other agent's output ends with its confidences.
        inefficiency = outputs[-1][:, 5 + DELAYS :] if self.agents[-1] == ARBITRAGEUR else None
        return TeamOutput(action, timing, confidence, inefficiency, shared)

    def forward(self, observation: Observation, seeds: Tensor | None) -> TeamOutput:
        """One pass; ``seeds`` int64 (batch,) draw the dropout masks, None leaves dropout out."""
        return self.respond(*self.encode(observation), None if seeds is None else self.masks(seeds))


def auxiliary_loss(output: TeamOutput, net_r: Tensor) -> Tensor:
    """Cross-entropy of the confidences (net R > 0) and squared error of the expected net R; ``net_r`` (batch, 2)."""
    wins = (net_r > 0).to(net_r.dtype)[:, None].expand_as(output.confidence)
    loss = F.binary_cross_entropy_with_logits(output.confidence, wins)
    if output.inefficiency is not None:
        loss = loss + 0.1 * F.mse_loss(output.inefficiency, net_r)
    return loss


def load(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> Team:
    """Rebuild a frozen team from its weights and its ``config``."""
    team = Team(**config)
    nets.restore(team, tensors)
    return team
