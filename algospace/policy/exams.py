"""Exams: a team's consensus on many candidates of validation, at whatever weights it has."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from algospace import agents, consensus, env, market
from algospace.calibration import Calibration, Reliability, reliability
from algospace.consensus import MARLParams
from algospace.features import windows
from algospace.features.table import SIDE
from algospace.features.windows import Rows
from algospace.mrms.proposal import Proposal
from algospace.policy.decide import Settings


class Material(NamedTuple):
    """Candidates of one stretch of time and the windows that end at them."""

    candidates: env.Candidates
    sessions: np.ndarray  # session id of each candidate
    views: env.Windows


def material(
    m5: pd.DataFrame,
    ends: np.ndarray,
    rows: Rows,
    regime: np.ndarray,
    proposal: Proposal,
    settings: Settings,
    device: str,
) -> Material:
    """Assemble the candidates at rows ``ends`` of a feature table; ``regime`` (len(ends), latent) are their vectors."""
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    found = env.candidates(
        m5, ends, regime, proposal, market.Bars.of(m5), costs, settings.gate1, settings.market.max_bars
    )
    return Material(found, m5["session_id"].to_numpy()[ends], env.Windows(rows, settings.features, device))


def new_team(params: MARLParams, n_context: int, seed: int) -> agents.Team:
    """A team with the weights that the seed gives."""
    torch.manual_seed(seed)
    sizes = {"structure": len(windows.STRUCTURE), "tactical": len(windows.TACTICAL)}
    return agents.Team(
        n_context + market.ACCOUNT_FEATURES, params.channels, params.stride, params.n_heads, params.message_dim,
        params.head_dim, params.dropout, sizes | {"arbitrageur": sum(sizes.values())}, len(SIDE),
    )  # fmt: skip


class Judged(NamedTuple):
    """Consensus of a team on n candidates, each with a fresh account: arrays (n,)."""

    action: np.ndarray
    delay: np.ndarray
    confidence: np.ndarray  # of the chosen side; of the signal's own side where the action is pass
    net_r: np.ndarray  # realised, one unit, 0 for pass


def judge(team: agents.Team, given: Material, settings: Settings) -> Judged:
    """Run the 50 passes on every candidate; the account's state is that of a fresh account."""
    candidates, views = given.candidates, given.views
    account = market.Account.new(settings.market.account.equity, (1,))
    account_code = account.observe(settings.market.limits, settings.market.account.equity)
    rows = []
    for i in tqdm(range(len(candidates.row)), desc="consensus", unit="candidate", disable=None, leave=False):
        seen = views.at(torch.tensor([candidates.row[i]]), torch.tensor([int(candidates.direction[i])]))
        context = torch.from_numpy(candidates.context[i : i + 1])
        observation = seen | {"context": context, "account": account_code}
        result = consensus.consensus(team, observation, settings.seed, settings.gate2)
        side = max(result.action - 1, 0)
        net_r = candidates.net_r[i, side, result.delay] if result.action != env.PASS else 0.0
        rows.append((result.action, result.delay, result.confidence, net_r))
    columns = list(zip(*rows, strict=True)) or [()] * 4
    return Judged(*(np.array(column) for column in columns))


def calibrate(judged: Judged, candidates: env.Candidates) -> Calibration:
    """Fit the confidence to what happened on the side it speaks of (the selecting half of validation)."""
    return Calibration.fit(judged.confidence, _won(judged, candidates))


def _won(judged: Judged, candidates: env.Candidates) -> np.ndarray:
    side = np.maximum(judged.action.astype(int) - 1, 0)
    won: np.ndarray = candidates.net_r[np.arange(len(side)), side, 0] > 0
    return won


def worth(judged: Judged, candidates: env.Candidates, calibration: Calibration, seed: int) -> Reliability:
    """Compare the calibrated confidence with what happened (the reporting half of validation)."""
    probability = np.array([calibration(c) for c in judged.confidence], np.float64)
    return reliability(probability, _won(judged, candidates), seed)


def examine(team: agents.Team, exams: dict[str, Material], settings: Settings) -> dict[str, Judged]:
    """Judge a team, as it is now, on every exam."""
    team.eval()
    return {name: judge(team, given, settings) for name, given in exams.items()}


def exam_figures(
    before: dict[str, Judged], after: dict[str, Judged], exams: dict[str, Material], calibration: Calibration
) -> dict[str, Any]:
    """What training changed: rates and mean net R at initial and at trained weights on the same candidates."""
    figures: dict[str, Any] = {"calibration": calibration._asdict()}
    for name, trained in after.items():
        initial, candidates = before[name], exams[name].candidates
        won = _won(trained, candidates)
        probability = np.array([calibration(c) for c in trained.confidence])
        figures[name] = {
            "candidates": len(trained.action),
            "changed_rate": float((trained.action != initial.action).mean()),
            "initial": _rates(initial),
            "trained": _rates(trained),
            "always_with_mean_r": float(candidates.net_r[:, 0, 0].mean()),
            "always_against_mean_r": float(candidates.net_r[:, 1, 0].mean()),
            "confidence_brier": float(((probability - won) ** 2).mean()),
            "base_rate_brier": float(won.mean() * (1 - won.mean())),
        }
    return figures


def _rates(judged: Judged) -> dict[str, float | None]:
    taken = judged.action != env.PASS
    return {
        "with_rate": float((judged.action == env.WITH).mean()),
        "against_rate": float((judged.action == env.AGAINST).mean()),
        "taken_mean_r": float(judged.net_r[taken].mean()) if taken.any() else None,
        "total_r": float(judged.net_r.sum()),
    }
