"""The figures of M-RMS: executed proposals beside fixed cells and chance, in R, on events that trained nothing."""

from functools import partial
from typing import Any

import numpy as np
import torch

from algospace import market, performance
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.outcomes import Lessons, cells, realised
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal, ask
from algospace.mrms.trades import of_cells, plain_cell, trade


def figures(
    model: RiskEnsemble,
    proposal: Proposal,
    exam: Lessons,
    train_r: np.ndarray,
    venue: market.Venue,
    params: MRMSParams,
    seed: int,
) -> dict[str, Any]:
    """Judge the proposals for an exam's events.

    Beside them stand the plain rule (1.5 ATR, reward-risk 2, or the grid's nearest), the cell of the best mean on
    train (``train_r`` is its outcome table), and cells and units drawn at random (the mean of
    ``params.random_draws``). All stops go behind nodes by the same rule. Each rule trades one unit at every event from
    both sides; its drawdown, in R, is that of one unit with the signal, one trade at a time. ``sized`` is the
    proposal with its own units: R times units, 0 where it does not trade; so is ``random``'s.

    Intervals are at 0.95, of a stationary bootstrap whose blocks are a session long on average, since no trade
    outlives its session.
    """
    n = len(exam.events)
    choices = len(params.stop_grid) * len(params.reward_risk_grid)
    own = cells(params, proposal.stop_atr, proposal.reward_risk)
    best = int(train_r.mean((0, 1)).argmax())
    rules = {"proposed": own, "plain": np.full((n, 2), plain_cell(params)), "best_train": np.full((n, 2), best)}
    sessions = len(np.unique(venue.session[exam.events["row"]]))
    block = max(1.0, 2 * n / sessions)

    result: dict[str, Any] = {"events": n} | _sizes(proposal, model.config["n_units"])
    stop, reward = divmod(best, len(params.reward_risk_grid))
    result |= {
        "mean_stop_atr": float(proposal.stop_atr.mean()),
        "mean_reward_risk": float(proposal.reward_risk.mean()),
        "at_level_rate": float(proposal.at_level.mean()),
        "best_train_stop_atr": params.stop_grid[stop],
        "best_train_reward_risk": params.reward_risk_grid[reward],
    }
    for name, cell in rules.items():
        r = realised(exam.net_r, cell).ravel()
        result |= {f"{name}_{key}": value for key, value in _of(r).items()}
        for key, statistic in (("mean_r", partial(np.mean, axis=-1)), ("sortino", _sortinos)):
            interval = performance.stationary_bootstrap_interval(r, statistic, block, params.bootstrap_draws, seed)
            result |= {f"{name}_{key}_low": interval[0], f"{name}_{key}_high": interval[1]}
        result[f"{name}_max_drawdown_r"] = _max_drawdown(exam, cell[:, 0], venue, params)
    sized = (realised(exam.net_r, own) * proposal.units).ravel()
    low, high = performance.stationary_bootstrap_interval(
        sized, partial(np.mean, axis=-1), block, params.bootstrap_draws, seed
    )
    result |= {"sized_mean_r": float(sized.mean()), "sized_mean_r_low": low, "sized_mean_r_high": high}

    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(params.random_draws):
        cell = rng.integers(0, choices, (n, 2))
        units = rng.integers(0, model.config["n_units"] + 1, (n, 2))
        r = realised(exam.net_r, cell)
        drawn.append(
            _of(r.ravel())
            | {
                "max_drawdown_r": _max_drawdown(exam, cell[:, 0], venue, params),
                "sized_mean_r": float((units * r).mean()),
            }
        )
    result |= {f"random_{key}": float(np.mean([figure[key] for figure in drawn])) for key in drawn[0]}
    return result | _soft(model, exam, result)


def _sizes(proposal: Proposal, n_units: int) -> dict[str, float]:
    shares = np.bincount(proposal.units.ravel(), minlength=n_units + 1) / proposal.units.size
    return {"mean_units": float(proposal.units.mean())} | {f"units_{i}_share": float(x) for i, x in enumerate(shares)}


def _of(r: np.ndarray) -> dict[str, float]:
    return {
        "mean_r": float(r.mean()),
        "sortino": performance.sortino(r, 1.0),
        "profit_factor": performance.profit_factor(r),
        "win_rate": performance.win_rate(r),
    }


def _sortinos(r: np.ndarray) -> np.ndarray:
    """Sortino ratio a trade of each resample, (draws, n) -> (draws,); without a loss it has no interval (inf)."""
    downside = np.sqrt((np.minimum(r, 0.0) ** 2).mean(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios: np.ndarray = np.nan_to_num(r.mean(-1) / downside, nan=0.0, posinf=np.inf, neginf=-np.inf)
    return ratios


def _max_drawdown(exam: Lessons, cell: np.ndarray, venue: market.Venue, params: MRMSParams) -> float:
    """Deepest fall of the summed R of one unit with the signal, one trade at a time."""
    one = of_cells(exam.events, cell, venue, params)
    total = np.concatenate([[0.0], np.cumsum(trade(venue, exam.events, one).track.outcome[:, 2], dtype=np.float64)])
    return float((np.maximum.accumulate(total) - total).max())


def _soft(model: RiskEnsemble, exam: Lessons, executed: dict[str, Any]) -> dict[str, float]:
    """What the distributions promise beside what their modes earn: the gap of training on the soft objective."""
    _, stop, target, _, confidence, _, _ = (torch.from_numpy(part) for part in ask(model, exam.states))
    r = torch.from_numpy(exam.net_r).flatten(0, 1)
    joint = stop[:, :, None] * target[:, None]
    mean = float((joint * r).sum((1, 2)).mean())
    downside = float((joint * r.clamp(max=0) ** 2).sum((1, 2)).mean())
    sortino = mean / downside**0.5 if downside > 0 else 0.0
    return {
        "soft_mean_r": mean,
        "soft_sortino": sortino,
        "soft_gap": sortino - executed["proposed_sortino"],
        "mean_ensemble_confidence": float(confidence.mean()),
    }
