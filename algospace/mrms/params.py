"""The `mrms` section of params.yaml."""

from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator

from algospace import training
from algospace.errors import InputError
from algospace.market import LimitParams
from algospace.params import Params
from algospace.ppo import PPOParams


class CommunicationParams(Params):
    """The `mrms.communication` section."""

    length: int = Field(ge=1)
    hidden_dim: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    risk_weight: float = Field(ge=0)
    outcome_weight: float = Field(ge=0)
    pnl_weight: float = Field(ge=0)
    temporal_weight: float = Field(ge=0)
    optimizer: training.OptimizerParams


class LVNParams(Params):
    """When a stop goes behind a low volume node."""

    min_strength: float = Field(ge=0, le=100)
    reach_atr: float = Field(ge=0)
    buffer_ticks: int = Field(ge=1)


class AdjustmentParams(Params):
    """How the track record of the account scales the proposed size."""

    min_trades: int = Field(ge=1)
    raise_factor: float = Field(ge=1)
    raise_win_rate: float = Field(ge=0, le=1)
    raise_profit_factor: float = Field(ge=0)
    cut_factor: float = Field(ge=0, le=1)
    cut_win_rate: float = Field(ge=0, le=1)
    cut_profit_factor: float = Field(ge=0)


class MRMSParams(Params):
    """The `mrms` section."""

    method: Literal["sortino", "ppo"]
    hidden_dim: int = Field(ge=2)
    dropout: float = Field(ge=0, lt=1)
    stop_grid: tuple[float, ...] = Field(min_length=1)
    reward_risk_grid: tuple[float, ...] = Field(min_length=1)
    lvn: LVNParams
    unit_risk: float = Field(gt=0)
    kelly_fraction: float = Field(gt=0, le=1)
    adjustment: AdjustmentParams
    consistency: float = Field(ge=0)
    entropy: float = Field(ge=0)
    shrink: float = Field(ge=0)
    synergy_share: float = Field(ge=0, le=1)
    folds: int = Field(ge=2)
    evidence: float = Field(ge=0)
    bootstrap_draws: int = Field(ge=1)
    random_draws: int = Field(ge=1)
    optimizer: training.OptimizerParams
    ppo: PPOParams
    communication: CommunicationParams

    def within(self, limits: LimitParams) -> "MRMSParams":
        """These params without the targets that the account's limits let no order have.

        Proposed, they would be refused always: a free way not to trade, and rows that teach the agents nothing.

        Raises
        ------
        InputError
            When no target is left.
        """
        least, grid = limits.min_reward_risk, self.reward_risk_grid
        left = tuple(target for target in grid if target >= least)
        if not left:
            raise InputError(
                f"mrms.reward_risk_grid: expected a target of at least {least:g} (market.limits.min_reward_risk), "
                f"found {list(grid)}"
            )
        return self.model_copy(update={"reward_risk_grid": left})

    @field_validator("stop_grid", "reward_risk_grid")
    @classmethod
    def _ascending(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if grid[0] <= 0 or any(b <= a for a, b in pairwise(grid)):
            raise ValueError("expected positive numbers in ascending order")
        return grid
