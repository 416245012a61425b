"""M-RMS, the risk subsystem: how many units, how far the stop, how far the target, for any candidate and side.

Trained on the realised paths of train candidates under the environment's execution rule: every cell of a grid of
stops and targets is run through the bars, and the networks learn a distribution over the cells.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from algospace import market, nets, training
from algospace.errors import InputError
from algospace.params import Params, RuntimeParams

CONTEXT = (
    "type_1", "type_2", "type_3", "type_4", "with_signal", "strength_mlmi", "strength_nwrqk", "strength_fvg",
    "bars_to_complete", "quality", "atr_share", "volume_ratio", "momentum", "rsi", "range", "hour_sin", "hour_cos",
    "behind_distance", "behind_strength", "ahead_distance", "ahead_strength", "time_left",
)  # fmt: skip
SIDES = (1, -1)  # with the signal, against it: the first axis of every proposal


class MRMSParams(Params):
    """The `mrms` section."""

    hidden_dim: int = Field(ge=2)
    dropout: float = Field(ge=0, lt=1)
    stop_grid: tuple[float, ...] = Field(min_length=1)
    reward_risk_grid: tuple[float, ...] = Field(min_length=1)
    unit_risk: float = Field(gt=0)
    kelly_fraction: float = Field(gt=0, le=1)
    consistency: float = Field(ge=0)
    entropy: float = Field(ge=0)
    optimizer: training.OptimizerParams

    @field_validator("stop_grid", "reward_risk_grid")
    @classmethod
    def _ascending(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if grid[0] <= 0 or any(b <= a for a, b in pairwise(grid)):
            raise ValueError("expected positive numbers in ascending order")
        return grid


class Proposal(NamedTuple):
    """What M-RMS proposes: arrays of shape (events, 2), the second axis with and against the signal."""

    units: np.ndarray  # int64
    stop_atr: np.ndarray  # stop distance in 30-minute ATR
    reward_risk: np.ndarray
    confidence: np.ndarray  # probability of the proposed number of units


def context(events: pd.DataFrame, regime: np.ndarray) -> np.ndarray:
    """State of each event seen from each side: (events, 2, len(CONTEXT) + latent), float32.

    ``events`` are rows of the feature table (the columns `algospace.features.table.EVENT`), ``regime`` their regime
    vectors (events, latent).
    Directional entries are mirrored, so that "with me" is positive for long and short alike. Everything is known at
    the event's close.
    """
    price, atr = events["close"].to_numpy(), events["m30_atr"].to_numpy()
    kind = events["gate1_type"].to_numpy()
    local = events["close_utc"].dt.tz_convert("America/New_York").dt
    angle = 2 * np.pi * (local.hour + local.minute / 60).to_numpy() / 24
    left = (events["session_close_utc"] - events["close_utc"]).dt.total_seconds().to_numpy()
    ratio = events["volume_ratio"].to_numpy()
    # Momentum never bridges sessions: the first bars of one have none.
    momentum = events["momentum_5"].fillna(0.0).to_numpy() / 100 * price

    def level(name: str) -> tuple[np.ndarray, np.ndarray]:
        distance = np.abs(events[f"m30_lvn_{name}_price"].to_numpy() - price) / atr
        strength = events[f"m30_lvn_{name}_strength"].to_numpy() / 100
        return np.nan_to_num(np.exp(-distance)), np.nan_to_num(strength)

    support, resistance = level("support"), level("resistance")
    sides = []
    for with_signal in SIDES:
        side = with_signal * events["candidate_direction"].to_numpy()
        behind = [np.where(side > 0, s, r) for s, r in zip(support, resistance, strict=True)]
        ahead = [np.where(side > 0, r, s) for s, r in zip(support, resistance, strict=True)]
        columns = [
            *(kind == t for t in range(1, 5)),
            np.full(len(events), with_signal),
            *(events[f"gate1_strength_{name}"].fillna(0.0).to_numpy() for name in ("mlmi", "nwrqk", "fvg")),
            events["gate1_bars_to_complete"].to_numpy() / 10,
            events["gate1_quality"].fillna(0.0).to_numpy(),
            100 * atr / price,
            (ratio**2 - 1) / (ratio**2 + 1),
            side * np.clip(momentum / atr, -3, 3) / 3,
            side * (events["rsi_14"].to_numpy() - 50) / 50,
            np.clip((events["high"] - events["low"]).to_numpy() / atr, 0, 3) / 3,
            np.sin(angle),
            np.cos(angle),
            *behind,
            *ahead,
            left / (276 * 300),
        ]
        sides.append(np.column_stack([*columns, regime]))
    return np.stack(sides, axis=1).astype(np.float32)


def outcome_table(
    bars: market.Bars, events: pd.DataFrame, costs: market.Costs, params: MRMSParams, max_bars: int
) -> np.ndarray:
    """Net R of every cell: (events, 2, stops, rewards), float32, by `market.bracket` with the next open.

    It reads the bars after the event: a target to learn from, never an input.
    """
    n, stops, rewards = len(events), np.array(params.stop_grid), np.array(params.reward_risk_grid)
    side = np.array(SIDES) * events["candidate_direction"].to_numpy()[:, None]
    distance = market.stop_distance(events["m30_atr"].to_numpy()[:, None], stops, costs.tick)
    outcome = market.bracket(
        bars,
        events["row"].to_numpy().reshape(n, 1, 1, 1),
        side.reshape(n, 2, 1, 1),
        distance.reshape(n, 1, -1, 1),
        rewards.reshape(1, 1, 1, -1),
        np.zeros((1, 1, 1, 1), np.int64),
        costs,
        max_bars,
    )
    return outcome.net_r.astype(np.float32)


class RiskNet(nn.Module):
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


def risk_loss(
    units: Tensor,
    stop: Tensor,
    target: Tensor,
    net_r: Tensor,
    stops: Tensor,
    rewards: Tensor,
    params: MRMSParams,
) -> tuple[Tensor, Tensor]:
    """Loss of a chronological batch, and its Sortino ratio in R.

    Parameters
    ----------
    units, stop, target
        Probabilities (batch, units + 1), (batch, stops), (batch, rewards).
    net_r
        Realised net R per cell (batch, stops, rewards).

    Notes
    -----
    Over the joint distribution p of the cells: mean = E sum p r, downside = E sum p min(r, 0)^2 (averaging r over
    the cells first would hide the risk), Sortino = mean / sqrt(downside). Sortino is scale-free and says nothing of
    size: the units maximise log growth with a bet of unit_risk / kelly_fraction a unit, which is fractional Kelly.
    Risk consistency: relative variance of the units-times-stop risk, and a pull of the target to two stops.
    """
    cells = stop[:, :, None] * target[:, None, :]
    mean = (cells * net_r).sum((1, 2)).mean()
    downside = (cells * net_r.clamp(max=0) ** 2).sum((1, 2)).mean()
    sortino = mean / (downside + 1e-3 * (net_r**2).mean() + 1e-12).sqrt()

    bet = params.unit_risk / params.kelly_fraction
    count = torch.arange(units.shape[1], device=units.device, dtype=net_r.dtype)
    wealth = 1 + bet * count[None, :, None, None] * net_r[:, None]
    growth = (wealth.clamp(min=0.05).log() / bet * cells.detach()[:, None]).sum((2, 3))
    kelly = (units * growth).sum(1).mean()

    risk = (units * count).sum(1) * (stop * stops).sum(1)
    consistency = risk.var() / (risk.mean() ** 2 + 0.01) + 0.1 * ((target * rewards).sum(1) - 2).abs().mean()
    entropy = sum(-(p * p.clamp(min=1e-9).log()).sum(1).mean() for p in (stop, target))
    return -sortino - kelly + params.consistency * consistency - params.entropy * entropy, sortino


def fit(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    n_units: int,
    params: MRMSParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> tuple[RiskNet, training.Fit]:
    """Train on contexts (events, 2, n) and outcomes (events, 2, stops, rewards), in time order.

    A batch is a run of consecutive events, each seen from one side, so that the Sortino of a batch is that of a
    stretch of time: it is no mean over samples, so it is never cut. ``seed`` is that of every random number, the first
    weights included. Raises `InputError` when there is nothing to train on.
    """
    device = runtime.device
    if len(train[0]) < 2 or len(validation[0]) < 2:
        raise InputError(
            f"mrms: expected candidates in train and in select, found {len(train[0])} and {len(validation[0])}"
        )
    x, r = (torch.from_numpy(array).to(device) for array in train)
    x_val, r_val = (torch.from_numpy(array).flatten(0, 1).to(device) for array in validation)
    if not torch.isfinite(x).all() or not torch.isfinite(x_val).all():
        raise InputError("mrms: expected finite contexts, found NaN or inf")
    torch.manual_seed(seed)
    model = RiskNet(
        x.shape[-1],
        params.hidden_dim,
        n_units,
        list(params.stop_grid),
        list(params.reward_risk_grid),
        params.dropout,
    ).to(device)
    stops, rewards = (
        torch.tensor(params.stop_grid, device=device),
        torch.tensor(params.reward_risk_grid, device=device),
    )
    batch = min(params.optimizer.batch_size, len(x))

    def draw(generator: torch.Generator) -> Tensor:
        count = max(1, params.optimizer.samples_per_epoch // batch)
        starts = torch.randint(0, len(x) - batch + 1, (count,), generator=generator)
        events = (starts[:, None] + torch.arange(batch)).flatten()
        return 2 * events + torch.randint(0, 2, events.shape, generator=generator)

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        event, side = (part.to(device) for part in (chosen // 2, chosen % 2))
        units, stop, target = model(x[event, side])
        return risk_loss(units, stop, target, r[event, side], stops, rewards, params)[0]

    def validate() -> dict[str, float]:
        units, stop, target = model(x_val)
        value, sortino = risk_loss(units, stop, target, r_val, stops, rewards, params)
        return {"loss": value.item(), "sortino": sortino.item()}

    run = params.optimizer.model_copy(update={"batch_size": batch})
    return model, training.fit("mrms", model, draw, loss, validate, run, runtime, seed, saver)


def propose(model: RiskNet, contexts: np.ndarray) -> Proposal:
    """Proposals for contexts (events, 2, n): the most probable units, stop and target of each.

    Raises `InputError` for contexts of another width or with NaN.
    """
    if contexts.shape[-1] != model.config["n_context"]:
        raise InputError(f"mrms: expected {model.config['n_context']} context features, found {contexts.shape[-1]}")
    if not np.isfinite(contexts).all():
        raise InputError("mrms: expected finite contexts, found NaN or inf")
    shape = contexts.shape[:2]
    if not len(contexts):
        empty = np.empty(shape)
        return Proposal(empty.astype(np.int64), empty, empty, empty)
    units, stop, target = nets.infer(model, contexts.reshape(-1, contexts.shape[-1]))
    chosen = units.argmax(1)
    return Proposal(
        chosen.reshape(shape),
        np.array(model.config["stops"])[stop.argmax(1)].reshape(shape),
        np.array(model.config["rewards"])[target.argmax(1)].reshape(shape),
        units.max(1).astype(np.float64).reshape(shape),
    )


def load(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> RiskNet:
    """Rebuild a frozen model from its weights and its ``config``."""
    model = RiskNet(**config)
    nets.restore(model, tensors)
    return model


def figures(
    model: RiskNet, contexts: np.ndarray, net_r: np.ndarray, train_r: np.ndarray, params: MRMSParams
) -> dict[str, float]:
    """Executed proposals on events that trained nothing, one unit each and both sides, beside two fixed cells.

    ``net_r`` and ``train_r`` are outcome tables (events, 2, stops, rewards). The baselines: 1.5 ATR with reward-risk
    2 (or the grid's nearest), and the cell of the best mean on train.
    """
    proposal = propose(model, contexts)
    own = realised(net_r, proposal, params)
    plain = (_nearest(params.stop_grid, 1.5), _nearest(params.reward_risk_grid, 2.0))
    best = np.unravel_index(int(train_r.mean((0, 1)).argmax()), train_r.shape[2:])
    result: dict[str, float] = {
        "events": len(contexts),
        "mean_units": float(proposal.units.mean()),
        "zero_units_rate": float((proposal.units == 0).mean()),
        "mean_stop_atr": float(proposal.stop_atr.mean()),
        "mean_reward_risk": float(proposal.reward_risk.mean()),
        "best_train_stop_atr": params.stop_grid[best[0]],
        "best_train_reward_risk": params.reward_risk_grid[best[1]],
    }
    cells = {"proposed": own, "plain": net_r[:, :, plain[0], plain[1]], "best_train": net_r[:, :, best[0], best[1]]}
    for name, r in cells.items():
        flat = r.astype(np.float64).ravel()
        downside = float(np.sqrt(np.mean(np.minimum(flat, 0.0) ** 2)))
        result |= {
            f"{name}_mean_r": float(flat.mean()),
            f"{name}_sortino": float(flat.mean()) / downside if downside > 0 else 0.0,
            f"{name}_win_rate": float((flat > 0).mean()),
        }
    return result


def _nearest(grid: tuple[float, ...], value: float) -> int:
    return int(np.abs(np.array(grid) - value).argmin())


def realised(net_r: np.ndarray, proposal: Proposal, params: MRMSParams) -> np.ndarray:
    """Net R (events, 2) of the cells that were proposed, out of an outcome table."""
    stop = np.searchsorted(params.stop_grid, proposal.stop_atr)
    reward = np.searchsorted(params.reward_risk_grid, proposal.reward_risk)
    cells: np.ndarray = np.take_along_axis(
        net_r.reshape(*net_r.shape[:2], -1), (stop * net_r.shape[3] + reward)[..., None], axis=2
    )
    return cells[..., 0]
