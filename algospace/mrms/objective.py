"""The objective: Sortino in R over the joint distribution of the cells, and fractional Kelly for the size."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from algospace.mrms.model import Output
from algospace.mrms.params import MRMSParams

FLOOR = 1e-3  # share of the mean square of all outcomes that a downside is taken to have at least
LEAST_WEALTH = 0.05  # share of the equity that a bet is taken to leave at least: log growth stays finite


class Losses(NamedTuple):
    """Scalars of a batch."""

    total: Tensor  # what training minimises
    agents: Tensor  # the agents' part of it: what early stopping reads
    sortino: Tensor  # of one unit where a trade is proposed, over the joint distribution of the cells
    growth: Tensor  # expected log growth of the proposed distribution of units, in bets of one unit
    coordinator: Tensor  # cross-entropy of the ensemble's confidence against a win of the executed cell


def risk_loss(output: Output, net_r: Tensor, stops: Tensor, rewards: Tensor, params: MRMSParams) -> Losses:
    """Losses of a chronological batch.

    Parameters
    ----------
    output
        Of the ensemble, for the batch.
    net_r
        Realised net R per cell (batch, stops, rewards).
    stops, rewards
        The two grids.

    Notes
    -----
    Over the joint distribution p of the cells: mean = E sum p r, downside = E sum p min(r, 0)^2 (averaging r over
    the cells first would hide the risk), Sortino = mean / sqrt(downside). An event counts with the probability that
    any unit is proposed there: what a bracket does where nobody trades it is nothing against it. Sortino is scale-free
    and says nothing of size, nor does its gradient reach it: the units maximise the log growth of the cell that would
    be executed, with a bet of unit_risk / kelly_fraction a unit, which is fractional Kelly. Risk consistency: relative
    variance of the units-times-stop risk and a pull of the target to two stops, of the events that are traded: a pass
    is no risk of 0, else whoever passes often would pay for it. The shrink term holds each event's logits near the
    linear ones.
    """
    units, stop, target = output.units, output.stop, output.target
    traded = 1 - units[:, 0]
    cells = traded.detach()[:, None, None] * stop[:, :, None] * target[:, None, :]
    mean = (cells * net_r).sum((1, 2)).mean()
    downside = (cells * net_r.clamp(max=0) ** 2).sum((1, 2)).mean()
    sortino = mean / (downside + FLOOR * (net_r**2).mean() + 1e-12).sqrt()

    executed = executed_r(output, net_r)
    bet = params.unit_risk / params.kelly_fraction
    count = torch.arange(units.shape[1], device=units.device, dtype=net_r.dtype)
    wealth = (1 + bet * count * executed[:, None]).clamp(min=LEAST_WEALTH)
    growth = (units * wealth.log() / bet).sum(1).mean()

    share = traded.detach() / (traded.detach().sum() + 1e-9)
    risk = (units * count).sum(1) / (traded + 1e-9) * (stop * stops).sum(1)
    mean_risk = (share * risk).sum()
    spread = (share * (risk - mean_risk) ** 2).sum() / (mean_risk**2 + 0.01)
    consistency = spread + 0.1 * (share * ((target * rewards).sum(1) - 2).abs()).sum()
    entropy = sum(-(p * p.clamp(min=1e-9).log()).sum(1).mean() for p in (stop, target))
    agents = -sortino - growth + params.consistency * consistency - params.entropy * entropy
    agents = agents + params.shrink * output.deviation.mean()

    coordinator = coordinator_loss(output, net_r)
    return Losses(agents + coordinator, agents, sortino, growth, coordinator)


def executed_r(output: Output, net_r: Tensor) -> Tensor:
    """Net R (batch,) of the cells that would be executed, the most probable ones; ``net_r`` as `risk_loss`."""
    return net_r[torch.arange(len(net_r), device=net_r.device), output.stop.argmax(1), output.target.argmax(1)]


def coordinator_loss(output: Output, net_r: Tensor) -> Tensor:
    """Cross-entropy of the ensemble's confidence against a win of the executed cell."""
    won = (executed_r(output, net_r) > 0).to(output.confidence.dtype)
    return functional.binary_cross_entropy(output.confidence.clamp(1e-6, 1 - 1e-6), won)
