"""The objective: Sortino in R over the joint distribution of the cells, and fractional Kelly for the size."""

import torch
from torch import Tensor

from algospace.mrms.params import MRMSParams


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
