"""Parameters of the agents: who learns, how, and what decides in the end."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from algospace import training
from algospace.consensus import Gate2Params
from algospace.env import AGENTS
from algospace.features.prepared import Decisions
from algospace.mappo import PPOParams
from algospace.params import Params

Agent = Literal["structure", "tactical", "arbitrageur"]


def _in_order(agents: tuple[Agent, ...]) -> tuple[Agent, ...]:
    if list(agents) != [name for name in AGENTS if name in agents]:
        raise ValueError(f"expected some of {', '.join(AGENTS)}, in this order, found {', '.join(agents)}")
    return agents


class PretrainingParams(Params):
    """The `marl.pretraining` section."""

    agents: tuple[Agent, ...]
    stop_atr: float = Field(gt=0)
    reward_risk: float = Field(gt=0)
    optimizer: training.OptimizerParams

    _ordered = field_validator("agents")(_in_order)


class MARLParams(Params):
    """The `marl` section."""

    agents: tuple[Agent, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    folds: int = Field(ge=0)
    train_on: Decisions
    channels: tuple[int, int, int]
    stride: int = Field(ge=1)
    n_heads: int = Field(ge=2, multiple_of=2)  # with an odd number inference leaves its one path (decision 0003)
    message_dim: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    critic_dim: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    pretraining: PretrainingParams
    ppo: PPOParams
    gate2: Gate2Params
    bootstrap_draws: int = Field(ge=100)
    random_draws: int = Field(ge=100)

    _ordered = field_validator("agents")(_in_order)

    @field_validator("seeds")
    @classmethod
    def _are_different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise ValueError(f"expected different numbers of at least 0, found {list(seeds)}")
        return seeds

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.channels[-1] % self.n_heads:
            raise ValueError(
                f"expected the last of channels to be a multiple of n_heads ({self.n_heads}), found {self.channels[-1]}"
            )
        return self
