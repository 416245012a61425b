"""The figures of M-RMS: executed proposals beside fixed cells."""

import numpy as np

from algospace.mrms.model import RiskEnsemble
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal, propose


def figures(
    model: RiskEnsemble, contexts: np.ndarray, net_r: np.ndarray, train_r: np.ndarray, params: MRMSParams
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
