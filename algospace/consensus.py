"""Consensus of the team by MC dropout (Gal and Ghahramani 2016), and Gate 2.

Exactly 50 passes with seeded masks, run as one batch of 50 rows. The masks are the same for every event, so a decision
depends on the event alone and can be repeated.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from algospace import nets
from algospace.agents import Team
from algospace.env import AGAINST, AGENTS, DELAYS, PASS, WITH, vote
from algospace.params import Params
from algospace.ppo import Observation

PASSES = nets.INFERENCE_ROWS
ACTIONS = ("pass", "with", "against")
WARNINGS = ((0.2, "high"), (0.1, "elevated"))  # bands of the standard deviation over the passes


Weight = Annotated[float, Field(gt=0)]


class Gate2Params(Params):
    """The `marl.gate2` section."""

    vote_weights: tuple[Weight, Weight, Weight]
    split_penalty: float = Field(ge=0, le=1)
    uncertainty_penalty: float = Field(ge=0)
    margin: float


class Consensus(NamedTuple):
    """What 50 passes say of one event."""

    probabilities: np.ndarray  # (agents, 3) mean of the passes
    action_std: np.ndarray  # (agents, 3) their standard deviation over the passes
    votes: np.ndarray  # (agents,) argmax of each
    action: int  # PASS, WITH or AGAINST: that of more than half, else PASS
    agreement: int  # how many voted for it
    delay: int  # bars the leading agreeing agent wants to wait
    agent_confidence: np.ndarray  # (agents,) mean probability of net R > 0 for the action (for WITH when it is PASS)
    agent_confidence_std: np.ndarray  # (agents,)
    confidence: float  # of the team, before calibration
    prd_confidence: float  # the product brief's formula, which only unanimity can satisfy
    total: np.ndarray  # (agents,) entropy of the mean
    aleatoric: np.ndarray  # (agents,) mean entropy of the passes
    epistemic: np.ndarray  # (agents,) their difference, the mutual information, >= 0

    @property
    def warning(self) -> str:
        """How far the passes disagree: the band of the largest standard deviation of an agent's actions or confidence.

        From 0.1 on "elevated", from 0.2 on "high", else "none". It refuses nothing: the confidence bears the doubt.
        """
        spread = max(float(self.action_std.max()), float(self.agent_confidence_std.max()))
        return next((name for least, name in WARNINGS if spread >= least), "none")


def mask_seeds(seed: int) -> Tensor:
    """The seeds of the 50 passes."""
    return (torch.arange(PASSES, dtype=torch.int64) << 32) + seed


def masks(team: Team, seed: int) -> list[Tensor]:
    """The dropout masks of the 50 passes, as `Team.masks` gives them."""
    return team.masks(mask_seeds(seed).to(next(team.parameters()).device))


# The 50 passes for one event, rows of shape (1, ...): probabilities of the actions (50, agents, 3) and delays, and
# confidences (50, agents, 2).
Passes = Callable[[Observation], tuple[np.ndarray, np.ndarray, np.ndarray]]


def answers(team: Team, states: Tensor, context: Tensor, masks: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities that the 50 passes give for one event, as `combine` takes them, from what `Team.encode` gave.

    The trunks, which no dropout touches, run once: that is a pass's own result, fifty times.
    """
    output = team.respond(states.expand(PASSES, -1, -1), context.expand(PASSES, -1), masks)
    return output.action.softmax(-1), output.timing.softmax(-1), output.confidence.sigmoid()


def passes(team: Team, masks: list[Tensor]) -> Passes:
    """The 50 passes as PyTorch runs them, of a team whose weights stay as they are."""
    device = masks[0].device
    ask = (_recorded if device.type == "cuda" else _joined)(team, masks)
    cuts = np.cumsum([len(ACTIONS), DELAYS])

    @torch.no_grad()
    def run(observation: Observation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        joined = ask(observation).cpu().numpy()
        action, timing, confidence = (part.astype(np.float64) for part in np.split(joined, cuts, axis=2))
        return action, timing, confidence

    return run


def _joined(team: Team, masks: list[Tensor]) -> Callable[[Observation], Tensor]:
    """The three parts of `answers` as one tensor (50, agents, 3 + delays + 2)."""

    def ask(observation: Observation) -> Tensor:
        seen = {name: value.to(masks[0].device) for name, value in observation.items()}
        return torch.cat(answers(team, *team.encode(seen), masks), dim=2)

    return ask


def _recorded(team: Team, masks: list[Tensor]) -> Callable[[Observation], Tensor]:
    """The same as a CUDA graph, recorded at the first event: to start its small kernels takes longer than they run.

    Of `Team.encode` the trunks run side by side, each on a stream of its own.
    """
    device = masks[0].device
    graph = torch.cuda.CUDAGraph()
    beside = {name: torch.cuda.Stream() for name in team.agents}  # type: ignore[no-untyped-call]
    held: Observation = {}
    result: Tensor | None = None

    def computed() -> Tensor:
        here = torch.cuda.current_stream()
        states = []
        for name, stream in beside.items():
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                states.append(team.look(name, held))
        for stream in beside.values():
            here.wait_stream(stream)
        return torch.cat(answers(team, torch.stack(states, dim=1), team.context(held), masks), dim=2)

    def ask(observation: Observation) -> Tensor:
        nonlocal result
        if result is None:
            held.update({name: value.to(device, copy=True) for name, value in observation.items()})
            _joined(team, masks)(held)  # what libraries allocate at first use must not be recorded
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                result = computed()
        for name, value in held.items():
            value.copy_(observation[name])
        graph.replay()
        return result

    return ask


@cache
def _majority(votes: tuple[int, ...]) -> tuple[int, int]:
    """`vote` of one event: action and leader. Three agents can vote in 27 ways, and tensors of three take long."""
    winner, leader = vote(torch.tensor(votes))
    return int(winner), int(leader)


def combine(
    action: np.ndarray, timing: np.ndarray, confidence: np.ndarray, agents: Sequence[str], params: Gate2Params
) -> Consensus:
    """Combine passes: probabilities (passes, agents, 3), (passes, agents, delays), confidences (passes, agents, 2).

    C = sum_agree(w c) / sum_agree(w) (1 - split penalty if not unanimous) - uncertainty penalty sum(w s), cut to
    [0, 1]; c and s are the mean and the standard deviation of an agent's confidence. Of two agents that vote for either
    side none agrees to pass: both are heard. The weights of ``agents`` that are not all sum to one as those of all do.
    """
    mean = action.mean(0)
    votes = mean.argmax(-1)
    winner, leader = _majority(tuple(votes.tolist()))
    agrees = votes == winner
    side = 1 if winner == AGAINST else 0
    c, s = confidence[:, :, side].mean(0), confidence[:, :, side].std(0)
    weights = np.array([params.vote_weights[AGENTS.index(name)] for name in agents])
    weights = weights * (sum(params.vote_weights) / weights.sum())
    doubt = params.uncertainty_penalty * float((weights * s).sum())
    decided = 2 * agrees.sum() > len(agents)
    split = params.split_penalty if decided and not agrees.all() else 0.0
    heard = agrees if agrees.any() else ~agrees
    agreed = float((weights * c)[heard].sum())
    team = agreed / float(weights[heard].sum()) * (1 - split) - doubt
    brief = float(agrees.sum()) / len(agents) * agreed - doubt
    total = _entropy(mean)
    aleatoric = _entropy(action).mean(0)
    return Consensus(
        mean, action.std(0), votes, winner, int(agrees.sum()), int(timing[:, leader].mean(0).argmax()), c, s,
        float(np.clip(team, 0, 1)), float(np.clip(brief, 0, 1)), total, aleatoric, np.maximum(total - aleatoric, 0.0),
    )  # fmt: skip


def _entropy(p: np.ndarray) -> np.ndarray:
    h: np.ndarray = -(p * np.log(np.maximum(p, 1e-12))).sum(-1)
    return h


def gate2(
    result: Consensus,
    probability: float,
    break_even: float,
    units: int,
    affordable: int,
    reward_risk: float,
    min_reward_risk: float,
    breaches: Sequence[str],
    params: Gate2Params,
) -> list[str]:
    """Reasons to refuse, in order of the gates; none means trade.

    The rules hold whatever the networks say: consensus on the signal's own side, calibrated confidence of at least
    break-even plus margin, a proposed and affordable size, enough reward for the risk, no limit of the account.
    """
    reasons = []
    if result.action == PASS:
        decided = 2 * result.agreement > len(result.votes)
        reasons.append("consensus: pass" if decided else "consensus: no majority")
    elif result.action == AGAINST:
        reasons.append("consensus: against the synergy")
    if result.action == WITH and not probability >= break_even + params.margin:
        reasons.append("confidence: below break-even")
    if units == 0:
        reasons.append("risk: proposed size is 0")
    elif affordable == 0:
        reasons.append("risk: one unit exceeds the limit per trade")
    if not reward_risk >= min_reward_risk:
        reasons.append("risk: reward below the limit")
    return reasons + [f"limit: {name}" for name in breaches]
