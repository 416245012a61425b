"""The trading environment: many episodes at once, one step per candidate, on any device.

A candidate is a 5-minute bar on which a Gate-1 signal fires or, if so asked, any bar; without a signal, "with it" means
long. At each one three agents choose to pass, to go with the signal or against it, and how many bars to wait; the
majority rules. While a trade is open nothing is decided, so every bracket's result can be computed once
(`algospace.market`) and a step is a look-up. The reward is the change of marked equity net of costs, in units of the
trade's initial risk (R), from one decision to the next; its two terms, gross and costs, are logged. The end of the data
is truncation, ruin (the drawdown limit) is termination.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from algospace import market
from algospace.data.contracts import Contract
from algospace.errors import InputError
from algospace.features import prepared, windows
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows
from algospace.mrms.proposal import Proposal, code
from algospace.mrms.state import SIDES
from algospace.ppo import Observation, Step
from algospace.synergy import Gate1Params

AGENTS = STRUCTURE, TACTICAL, ARBITRAGEUR = ("structure", "tactical", "arbitrageur")
PASS, WITH, AGAINST = range(3)
DELAYS = 5  # bars an entry may wait beyond the next open: 0..4


class Candidates(NamedTuple):
    """Everything about n candidates that does not depend on the account, as arrays whose first axis is n.

    ``net_r`` and what follows read the bars after the candidate: they are rewards and targets, never inputs.
    """

    row: np.ndarray  # int64: row of the 5-minute table
    direction: np.ndarray  # int8: +1 or -1, of the signal
    context: np.ndarray  # (n, c) float32: regime, Gate-1 state, both proposals
    proposal: Proposal  # arrays (n, 2)
    net_r: np.ndarray  # (n, 2, DELAYS)
    exit_row: np.ndarray  # (n, 2, DELAYS) int64
    entry_row: np.ndarray  # (n, 2, DELAYS) int64, -1 without a fill
    cost_r: np.ndarray  # (n, 2, DELAYS): what net_r has paid in commissions and slippage


def candidates(
    m5: pd.DataFrame,
    ends: np.ndarray,
    regime: np.ndarray,
    proposal: Proposal,
    bars: market.Bars,
    costs: market.Costs,
    gate1: Gate1Params,
    max_bars: int,
) -> Candidates:
    """Assemble the candidates at rows ``ends`` from the frozen experts' outputs, run every bracket once."""
    direction = prepared.directions(m5.iloc[ends])
    side = np.array(SIDES) * direction[:, None]
    outcome = market.bracket(
        bars, ends[:, None, None], side[:, :, None], proposal.stop[:, :, None], proposal.reward_risk[:, :, None],
        np.arange(DELAYS), costs, max_bars,
    )  # fmt: skip
    context = np.concatenate([regime, windows.gate1_code(m5, ends, direction, gate1), code(proposal)], axis=1)
    cost_r = costs.in_r(outcome, proposal.stop[:, :, None])
    return Candidates(ends, direction, context, proposal, outcome.net_r, outcome.exit_row, outcome.entry_row, cost_r)


class Windows:
    """The agents' windows at given rows of a feature table, mirrored so that the signal's direction is up.

    Asked for a row whose windows are not whole (`algospace.features.windows.complete`), it raises `InputError`.
    """

    def __init__(self, rows: Rows, params: FeatureParams, device: str) -> None:
        self.params = params
        self.whole = torch.from_numpy(windows.complete(rows, params)).to(device)
        self.structure, self.tactical, self.side = (
            torch.from_numpy(table).to(device) for table in (rows.structure, rows.tactical, rows.side)
        )
        self.m30_row = torch.tensor(rows.m30_row, device=device)
        self._structure = torch.from_numpy(windows.MIRROR_STRUCTURE).to(device)
        self._swap = torch.from_numpy(windows.MIRROR_TACTICAL_FROM).to(device)
        self._tactical = torch.from_numpy(windows.MIRROR_TACTICAL).to(device)
        self._side = torch.from_numpy(windows.MIRROR_SIDE).to(device)

    def at(self, ends: Tensor, direction: Tensor) -> Observation:
        """Windows (batch, time, features) and the nine side features that end at 5-minute rows ``ends``."""
        ends, direction = ends.to(self.m30_row.device), direction.to(self.m30_row.device)
        if not ((ends >= 0) & self.whole[ends]).all():
            raise InputError("env: expected rows whose windows are whole, found one in the warm-up")
        up = (direction > 0)[:, None, None]

        def steps(length: int) -> Tensor:
            return torch.arange(1 - length, 1, device=ends.device)

        structure = self.structure[self.m30_row[ends][:, None] + steps(self.params.window_30m)]
        tactical = self.tactical[ends[:, None] + steps(self.params.window_5m)]
        past = ends[:, None] + steps(self.params.window_arbitrage)
        slow, fast = self.structure[self.m30_row[past]], self.tactical[past]
        side = self.side[ends]
        return {
            "structure": torch.where(up, structure, structure * self._structure),
            "tactical": torch.where(up, tactical, tactical[..., self._swap] * self._tactical),
            "side": torch.where(up[:, 0], side, side * self._side),
            "arbitrageur": torch.cat(
                [
                    torch.where(up, slow, slow * self._structure),
                    torch.where(up, fast, fast[..., self._swap] * self._tactical),
                ],
                dim=-1,
            ),
        }


def vote(actions: Tensor) -> tuple[Tensor, Tensor]:
    """Majority of votes (batch, agents): action (batch,) and the index of the leading agent that agrees with it.

    More than half decide, whatever the voting weights 0.4, 0.3, 0.3: two of three; else it is a pass. The leader is
    the first agent (in the order of `AGENTS`, the order of the weights) that voted for the winner; its timing counts.
    """
    counts = torch.stack([(actions == a).sum(-1) for a in (PASS, WITH, AGAINST)], dim=-1)
    decided = 2 * counts.max(-1).values > actions.shape[-1]
    winner = torch.where(decided, counts.argmax(-1), torch.full_like(counts[..., 0], PASS))
    leader = (actions == winner[..., None]).to(torch.int64).argmax(-1)
    return winner, leader


class TradingEnv:
    """Vectorised episodes over a stretch of candidates, one unit a trade.

    Parameters
    ----------
    candidates, sessions
        Candidates in time order and the session id of each.
    gamma
        Discount per bar spent flat; none is taken inside a trade.
    seed
        Of the episodes' starting points.
    n_agents
        That vote.

    Raises
    ------
    InputError
        For fewer than two candidates: there is nothing to learn from.
    """

    def __init__(
        self,
        candidates: Candidates,
        sessions: np.ndarray,
        views: Windows,
        contract: Contract,
        params: market.MarketParams,
        num_envs: int,
        gamma: float,
        seed: int,
        device: str,
        n_agents: int = len(AGENTS),
    ) -> None:
        n = len(candidates.row)
        if n < 2:
            raise InputError(f"marl: expected candidates to train on, found {n}")
        self.num_envs, self.n_agents, self.device, self.params = num_envs, n_agents, device, params
        self.generator = torch.Generator(device).manual_seed(seed)
        self.views = views

        def tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

        self.row = tensor(candidates.row, torch.int64)
        self.direction = tensor(candidates.direction, torch.int64)
        self.session = tensor(sessions, torch.int64)
        self.context = tensor(candidates.context, torch.float32)
        self.net_r = tensor(candidates.net_r, torch.float32)
        self.cost_r = tensor(candidates.cost_r, torch.float32)
        self.pnl = tensor(candidates.net_r * candidates.proposal.stop[:, :, None] * contract.point_value, torch.float64)
        self.risk = tensor(candidates.proposal.stop * contract.point_value, torch.float64)
        # A refused or unfilled order is a pass, whatever the agents wanted.
        permitted = candidates.proposal.reward_risk >= params.limits.min_reward_risk
        self.fills = tensor((candidates.entry_row >= 0) & permitted[:, :, None], torch.bool)
        following = np.searchsorted(candidates.row, candidates.exit_row)
        following = np.maximum(following, np.arange(1, n + 1)[:, None, None])
        flat_before = np.where(candidates.entry_row >= 0, candidates.entry_row, candidates.row[:, None, None])
        flat_before = np.maximum(flat_before - candidates.row[:, None, None] - 1, 0)
        rows_after = np.append(candidates.row, candidates.row[-1])
        flat = flat_before + np.maximum(rows_after[following] - candidates.exit_row, 0)
        self.following = tensor(np.minimum(following, n - 1), torch.int64)
        self.discount = tensor(gamma**flat, torch.float32)
        self.pass_discount = tensor(gamma ** np.diff(candidates.row, append=candidates.row[-1]), torch.float32)
        self.index = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.account = market.Account.new(params.account.equity, (num_envs,), device)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begin every episode anew; with a seed, as a new environment of that seed does."""
        if seed is not None:
            self.generator.manual_seed(seed)
        self._reset(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))

    def begin(self) -> None:
        """Begin every episode at the first candidate: one pass over all of them in time order."""
        self.reset()
        self.index = torch.zeros_like(self.index)

    def _reset(self, where: Tensor) -> None:
        starts = torch.randint(0, len(self.row) - 1, (self.num_envs,), generator=self.generator, device=self.device)
        self.index = torch.where(where, starts, self.index)
        fresh = market.Account.new(self.params.account.equity, (self.num_envs,), self.device)
        self.account = market.Account(*(torch.where(where, f, a) for f, a in zip(fresh, self.account, strict=True)))

    def observe(self) -> Observation:
        """Compact observation: candidate index and account; `expand` makes it what the agents see."""
        return {
            "index": self.index,
            "account": self.account.observe(self.params.limits, self.params.account.equity),
        }

    def expand(self, observation: Observation) -> Observation:
        """Windows, context and account of compact observations."""
        index = observation["index"]
        seen = self.views.at(self.row[index], self.direction[index])
        return seen | {"context": self.context[index], "account": observation["account"]}

    def targets(self, observation: Observation) -> Tensor:
        """Realised net R (batch, 2) with and against the signal at the next open: for the auxiliary losses."""
        return self.net_r[observation["index"], :, 0]

    def step(self, actions: Tensor) -> Step:
        """Apply actions (episodes, agents, 2): vote 0..2 and delay 0..4.

        Raises
        ------
        InputError
            For an action outside the space.
        """
        shape = (self.num_envs, self.n_agents, 2)
        if (
            actions.shape != shape
            or actions.dtype != torch.int64
            or not ((actions >= 0) & (actions < torch.tensor([3, DELAYS], device=self.device))).all()
        ):
            raise InputError(f"env: expected actions {shape}, int64 below (3, {DELAYS}), found others")
        winner, leader = vote(actions[..., 0])
        delay = actions[..., 1].gather(1, leader[:, None])[:, 0]
        side = (winner - 1).clamp(min=0)
        i = self.index
        refused = torch.stack(list(self.account.breaches(self.params.limits).values())).any(0)
        affordable = self.risk[i, side] <= self.account.equity * self.params.limits.max_trade_risk
        take = (winner != PASS) & ~refused & affordable & self.fills[i, side, delay]
        reward = torch.where(take, self.net_r[i, side, delay], 0.0)
        discount = torch.where(take, self.discount[i, side, delay], self.pass_discount[i])
        following = torch.where(take, self.following[i, side, delay], i + 1)
        account = self.account.settle(self.pnl[i, side, delay], take)
        self.account = account.begin_session(self.session[following] != self.session[i])
        self.index = following
        terminated = self.account.ruined(self.params.limits)
        truncated = (following >= len(self.row) - 1) & ~terminated
        final = self.observe()
        self._reset(terminated | truncated)
        cost = torch.where(take, self.cost_r[i, side, delay], 0.0)
        logged = {"gross_r": reward + cost, "cost_r": cost, "trades": take.to(torch.float32)}
        return Step(self.observe(), reward, discount, terminated, truncated, final, logged)

    def state(self) -> dict[str, object]:
        """What a resumed run needs to go on with the same bits."""
        return {"index": self.index, "account": list(self.account), "generator": self.generator.get_state()}

    def restore(self, state: dict[str, list[Tensor]]) -> None:
        """Inverse of `state`."""
        self.index = torch.as_tensor(state["index"]).to(self.device)
        self.account = market.Account(*(t.to(self.device) for t in state["account"]))
        self.generator.set_state(torch.as_tensor(state["generator"]))
