"""Exams: a team's consensus on many candidates, at whatever weights it has, each with a fresh account."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from algospace import agents, consensus, env, market
from algospace.calibration import Calibration, Reliability, reliability
from algospace.features.windows import Rows
from algospace.marl.params import PretrainingParams
from algospace.mrms.proposal import Proposal
from algospace.mrms.state import SIDES
from algospace.settings import Settings


class Material(NamedTuple):
    """Candidates of one stretch of time and the windows that end at them."""

    candidates: env.Candidates
    sessions: np.ndarray  # session id of each candidate
    signals: np.ndarray  # bool: at which of them a signal fires
    synergies: np.ndarray  # bool: which of them completed a synergy
    views: env.Windows
    labels: np.ndarray | None = None  # of the pre-training, where it is asked for (`triple_barrier`)

    def of(self, chosen: np.ndarray) -> "Material":
        """The candidates at positions, or of a mask, ``chosen``."""
        candidates = self.candidates._replace(
            **{name: value[chosen] for name, value in self.candidates._asdict().items() if name != "proposal"},
            proposal=self.candidates.proposal.of(chosen),
        )
        labels = None if self.labels is None else self.labels[chosen]
        return Material(
            candidates, self.sessions[chosen], self.signals[chosen], self.synergies[chosen], self.views, labels
        )

    def observe(self, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        """What the agents see of the candidates at positions ``chosen``, the account's state left out."""
        seen = self.views.at(
            torch.from_numpy(self.candidates.row[chosen]), torch.from_numpy(self.candidates.direction[chosen])
        )
        return seen | {"context": torch.from_numpy(self.candidates.context[chosen])}


class Inputs(NamedTuple):
    """What the agents learn on and are judged on."""

    lessons: Material
    exam: dict[str, Material]  # select and report, the halves of validation
    days: dict[str, np.ndarray]  # ids of all sessions of train and of each half, ascending
    settings: Settings


def material(
    m5: pd.DataFrame,
    ends: np.ndarray,
    rows: Rows,
    regime: np.ndarray,
    proposal: Proposal,
    settings: Settings,
    device: str,
    barriers: PretrainingParams | None = None,
) -> Material:
    """Assemble the candidates at rows ``ends`` of a feature table; ``regime`` (len(ends), latent) are their vectors.

    With ``barriers`` they are labelled for the pre-training.
    """
    bars, costs = market.Bars.of(m5), market.Costs.of(settings.contract, settings.market.cost_multiplier)
    found = env.candidates(m5, ends, regime, proposal, bars, costs, settings.gate1, settings.market.max_bars)
    session, signal, synergy, atr = (
        m5[name].to_numpy()[ends] for name in ("session_id", "candidate_direction", "gate1_type", "m30_atr")
    )
    labels = None
    if barriers is not None:
        labels = triple_barrier(bars, ends, found.direction, atr, costs, settings.market.max_bars, barriers)
    return Material(found, session, signal != 0, synergy != 0, env.Windows(rows, settings.features, device), labels)


def triple_barrier(
    bars: market.Bars,
    ends: np.ndarray,
    direction: np.ndarray,
    atr: np.ndarray,
    costs: market.Costs,
    max_bars: int,
    params: PretrainingParams,
) -> np.ndarray:
    """Labels (n,) of the triple barrier (Lopez de Prado 2018): the side of the better net R if above 0, else PASS.

    The bracket is the same for all, in 30-minute ``atr`` (n,), entered at the next open; its execution is that of the
    environment: stop first, gaps, costs, the time stop, the session's end. It reads the bars after the candidate: a
    label, never an input. The embargo between splits purges it: no bracket of train ends among the bars of another.
    """
    stop = market.stop_distance(atr, params.stop_atr, costs.tick)
    side = np.array(SIDES) * direction[:, None]
    target, delay = np.array(params.reward_risk), np.array(0)
    r = market.bracket(bars, ends[:, None], side, stop[:, None], target, delay, costs, max_bars).net_r
    return np.where(r.max(axis=1) > 0, r.argmax(axis=1) + 1, env.PASS).astype(np.int64)


class Judged(NamedTuple):
    """Consensus of a team on n candidates, each with a fresh account: arrays (n,)."""

    action: np.ndarray
    delay: np.ndarray
    confidence: np.ndarray  # of the chosen side; of the signal's own side where the action is pass
    net_r: np.ndarray  # realised, one unit, 0 for pass
    agreement: np.ndarray  # how many agents voted for the action
    epistemic: np.ndarray  # mutual information of action and pass, mean over the agents, nats


def judge(team: agents.Team, given: Material, settings: Settings) -> Judged:
    """Run the 50 passes on every candidate; the account's state is that of a fresh account."""
    team.eval()
    candidates, passes = given.candidates, consensus.passes(team, consensus.masks(team, settings.seed))
    account = market.Account.new(settings.market.account.equity, (1,))
    account_code = account.observe(settings.market.limits, settings.market.account.equity)
    rows = []
    for i in tqdm(range(len(candidates.row)), desc="consensus", unit="candidate", disable=None, leave=False):
        observation = given.observe(np.array([i])) | {"account": account_code}
        result = consensus.combine(*passes(observation), team.agents, settings.gate2)
        side = max(result.action - 1, 0)
        net_r = candidates.net_r[i, side, result.delay] if result.action != env.PASS else 0.0
        doubt = float(result.epistemic.mean())
        rows.append((result.action, result.delay, result.confidence, net_r, result.agreement, doubt))
    columns = list(zip(*rows, strict=True)) or [()] * len(Judged._fields)
    return Judged(*(np.array(column) for column in columns))


def sides(judged: Judged) -> np.ndarray:
    """Side (n,) that each confidence speaks of: 0 with the signal, 1 against it."""
    side: np.ndarray = np.maximum(judged.action.astype(int) - 1, 0)
    return side


def won(judged: Judged, candidates: env.Candidates) -> np.ndarray:
    """Whether the side that each confidence speaks of had a positive net R: bool (n,).

    Entered when the team would enter, after its delay; what it passes, at the next open.
    """
    delay = np.where(judged.action == env.PASS, 0, judged.delay).astype(int)
    hit: np.ndarray = candidates.net_r[np.arange(len(judged.action)), sides(judged), delay] > 0
    return hit


def calibrate(judged: Judged, candidates: env.Candidates) -> Calibration:
    """Fit the confidence to what happened on the side it speaks of (the selecting half of validation)."""
    return Calibration.fit(judged.confidence, won(judged, candidates))


def worth(judged: Judged, candidates: env.Candidates, calibration: Calibration, seed: int) -> Reliability:
    """Compare the calibrated confidence with what happened (the reporting half of validation)."""
    probability = np.array([calibration(c) for c in judged.confidence], np.float64)
    return reliability(probability, won(judged, candidates), seed)
