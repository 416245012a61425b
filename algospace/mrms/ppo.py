"""The risk ensemble trained by PPO (`mrms.method: ppo`): sizes, stops and targets drawn, tried on the account, kept.

The same networks as the Sortino variant, under the same execution rule, but inside an account that lives on: one trade
at a time, the limits of `algospace.market` over every order, sessions that begin and end. A step is a look-up in a
table of what every bracket of the grid became (`material`).

Reward
------
The growth of one trade in bets of one unit, log(1 + b u r) / b with b = unit_risk / kelly_fraction, u the units that
the limits let through and r their net R; 0 without a trade. It is the term by which the Sortino variant chooses its
size, so that both methods want the same thing; for one unit it is nearly r, so nothing depends on the price level; and
it is concave, so size has a best value (fractional Kelly) where a linear reward would know only none and all.

The predecessor's reward (pnl / 1000 + 2 delta Sortino - 0.1 |size - Kelly size| - 10 if a limit is violated ...) is
not used: its Kelly size was computed from the trade after it had closed, so the agent was judged by a number that no
decision could have known; a change of the Sortino ratio pays for trades long past; and limits are hard here, there is
no violation left to punish.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algospace import market, nets, ppo, training
from algospace.errors import InputError
from algospace.mrms import model as ensemble
from algospace.mrms.fit import require_finite
from algospace.mrms.model import Output, RiskEnsemble
from algospace.mrms.objective import LEAST_WEALTH, coordinator_loss
from algospace.mrms.outcomes import Lessons, grid_brackets
from algospace.mrms.params import MRMSParams
from algospace.mrms.track import ACCOUNT, Track, account_states
from algospace.mrms.trades import LONGEST_RECORD
from algospace.ppo import Observation, Step

CRITIC = 128  # width of the value head's hidden layer


class Material(NamedTuple):
    """Events in time order and what every bracket of the grid became: arrays whose first axis is n.

    ``net_r`` and what follows read the bars after the event: they are rewards and consequences, never inputs.
    """

    row: np.ndarray  # int64 (n,): row of the 5-minute table, ascending
    session: np.ndarray  # int64 (n,)
    states: np.ndarray  # float32 (n, 2, features); the last ten are the account's and are replaced
    risk: np.ndarray  # float64 (n, 2, stops): USD that one unit loses at the stop
    net_r: np.ndarray  # float32 (n, 2, stops, rewards)
    entry_row: np.ndarray  # int64, the same shape; -1 without a fill
    exit_row: np.ndarray  # int64
    known_row: np.ndarray  # int64: row at whose close the end is known


def material(lessons: Lessons, venue: market.Venue, params: MRMSParams) -> Material:
    """What the environment needs of lessons: their brackets, run once through the bars."""
    rows = lessons.events["row"].to_numpy()
    outcome, distance = grid_brackets(venue, lessons.events, params)
    known = market.known_row(venue.bars, np.broadcast_to(rows[:, None, None, None], outcome.exit.shape), outcome)
    return Material(
        rows, venue.session[rows].astype(np.int64), lessons.states.values, distance * venue.contract.point_value,
        outcome.net_r.astype(np.float32), outcome.entry_row, outcome.exit_row, known,
    )  # fmt: skip


class RiskEnv:
    """Vectorised episodes: at each event one side is shown, and an order of units, stop and target given.

    An episode begins at any event with a fresh account. Ruin (the drawdown limit) terminates it; the end of the data,
    and 100 trades, truncate it: the record's numbers say no more after that.

    Parameters
    ----------
    given
        The events.
    bet
        Share of the equity that one unit is taken to risk in the reward.
    gamma
        Discount per bar spent flat; none is taken inside a trade.
    seed
        Of the starting points and of the sides shown.

    Raises
    ------
    InputError
        For fewer than two events.
    """

    def __init__(
        self,
        given: Material,
        params: market.MarketParams,
        bet: float,
        num_envs: int,
        gamma: float,
        seed: int,
        device: str,
    ) -> None:
        n = len(given.row)
        if n < 2:
            raise InputError(f"mrms: expected candidates in train, found {n}")
        self.num_envs, self.device, self.params, self.bet = num_envs, device, params, bet
        self.generator = torch.Generator(device).manual_seed(seed)

        def tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

        self.states = tensor(given.states, torch.float32)
        self.session = tensor(given.session, torch.int64)
        self.risk = tensor(given.risk, torch.float64)
        self.net_r = tensor(given.net_r, torch.float32)
        self.filled = tensor(given.entry_row >= 0, torch.bool)
        here = given.row[:, None, None, None]
        following = np.searchsorted(given.row, given.known_row)
        following = np.minimum(np.maximum(following, np.arange(1, n + 1)[:, None, None, None]), n - 1)
        waiting = np.where(given.entry_row >= 0, given.entry_row - here - 1, 0)
        flat = np.maximum(waiting, 0) + np.maximum(given.row[following] - given.exit_row, 0)
        self.following = tensor(following, torch.int64)
        self.discount = tensor(gamma**flat, torch.float32)
        self.pass_discount = tensor(gamma ** np.diff(given.row, append=given.row[-1]), torch.float32)
        self.index = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.side = self._sides()
        self.account = market.Account.new(params.account.equity, (num_envs,), device)
        # The records of all episodes, one after the other: net R and P&L of up to LONGEST_RECORD trades each.
        self.record = np.zeros((2, num_envs, LONGEST_RECORD))
        self.trades = np.zeros(num_envs, np.int64)
        self._begin(torch.ones(num_envs, dtype=torch.bool, device=device))

    def _begin(self, where: Tensor) -> None:
        starts = torch.randint(0, len(self.session) - 1, (self.num_envs,), generator=self.generator, device=self.device)
        self.index = torch.where(where, starts, self.index)
        fresh = market.Account.new(self.params.account.equity, (self.num_envs,), self.device)
        self.account = market.Account(*(torch.where(where, f, a) for f, a in zip(fresh, self.account, strict=True)))
        self.trades[where.cpu().numpy()] = 0

    def _sides(self) -> Tensor:
        return torch.randint(0, 2, (self.num_envs,), generator=self.generator, device=self.device)

    def observe(self) -> Observation:
        """Event, side and the ten numbers of the account; `expand` makes them a state."""
        net_r, pnl = self.record.reshape(2, -1)
        outcome = np.zeros((len(pnl), 4), np.float32)
        outcome[:, 2] = net_r
        nowhere = np.zeros(len(pnl), np.int64)  # `account_states` takes the session's counters from the account
        first = np.arange(self.num_envs) * LONGEST_RECORD
        numbers = account_states(
            Track(outcome, outcome, pnl, nowhere), first, first + self.trades, self.account,
            self.params.account.equity, self.params.limits,
        )  # fmt: skip
        return {"index": self.index, "side": self.side, "account": torch.from_numpy(numbers).to(self.device)}

    def expand(self, observation: Observation) -> Observation:
        """States (batch, features) of compact observations."""
        state = self.states[observation["index"], observation["side"]]
        return {"state": torch.cat([state[:, : -len(ACCOUNT)], observation["account"]], dim=1)}

    def outcomes(self, observation: Observation) -> Tensor:
        """Net R (batch, stops, rewards) of stored rows: what the coordinator learns from."""
        return self.net_r[observation["index"], observation["side"]]

    def step(self, actions: Tensor) -> Step:
        """Apply orders (episodes, 3): units and the numbers of stop and target on their grids.

        Raises
        ------
        InputError
            For an order outside the space.
        """
        most = [self.params.limits.max_units + 1, *self.net_r.shape[2:]]
        if actions.shape != (self.num_envs, 3) or not (
            ((actions >= 0) & (actions < torch.tensor(most, device=self.device))).all()
        ):
            raise InputError(f"mrms: expected orders ({self.num_envs}, 3) below {most}, found others")
        units, stop, target = actions.unbind(1)
        i, side = self.index, self.side
        limits, risk = self.params.limits, self.risk[i, side, stop]
        refused = torch.stack(list(self.account.breaches(limits).values())).any(0)
        affordable = torch.floor(self.account.equity * limits.max_trade_risk / risk).to(torch.int64)
        units = torch.where(refused, 0, torch.minimum(units, affordable))
        order, filled = units > 0, self.filled[i, side, stop, target]
        take = order & filled
        net_r = self.net_r[i, side, stop, target]
        pnl = units * risk * net_r.double()
        growth = torch.log((1 + self.bet * units * net_r).clamp(min=LEAST_WEALTH)) / self.bet
        following = torch.where(order, self.following[i, side, stop, target], i + 1)
        discount = torch.where(order, self.discount[i, side, stop, target], self.pass_discount[i])
        account = self.account.settle(pnl, take)
        self.account = account.begin_session(self.session[following] != self.session[i])
        made = take.cpu().numpy()
        self.record[0, made, self.trades[made]] = net_r.cpu().numpy()[made]
        self.record[1, made, self.trades[made]] = pnl.cpu().numpy()[made]
        self.trades[made] += 1
        self.index = following
        terminated = self.account.ruined(limits)
        ended = (following >= len(self.session) - 1) | torch.from_numpy(self.trades >= LONGEST_RECORD).to(self.device)
        truncated = ended & ~terminated
        self.side = self._sides()
        final = self.observe()
        self._begin(terminated | truncated)
        return Step(self.observe(), torch.where(take, growth, 0.0), discount, terminated, truncated, final)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same bits."""
        return {
            "index": self.index, "side": self.side, "account": list(self.account),
            "record": torch.from_numpy(self.record.copy()), "trades": torch.from_numpy(self.trades.copy()),
            "generator": self.generator.get_state(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.index, self.side = (torch.as_tensor(state[name]).to(self.device) for name in ("index", "side"))
        self.account = market.Account(*(t.to(self.device) for t in state["account"]))
        self.record, self.trades = (torch.as_tensor(state[name]).cpu().numpy().copy() for name in ("record", "trades"))
        self.generator.set_state(torch.as_tensor(state["generator"]))


class RiskLearner(nn.Module):
    """The ensemble, without dropout, and a value head of its own; the coordinator learns as in the Sortino variant.

    An action has the probability of its units times, where it trades, those of its stop and its target.
    """

    def __init__(self, env: RiskEnv, agents: RiskEnsemble) -> None:
        super().__init__()
        self.env, self.agents = env, agents.eval()
        self.critic = nets.mlp([len(agents.config["features"]), CRITIC, 1], dropout=0.0)

    def act(self, seen: Observation, seeds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw units, stop and target (batch, 3)."""
        output = self.agents(seen["state"])
        heads = (output.units, output.stop, output.target)
        actions = torch.cat([torch.multinomial(p, 1, generator=generator) for p in heads], dim=1)
        return actions, log_prob_entropy(output, actions)[0], self.value(seen, seeds)

    def value(self, seen: Observation, seeds: Tensor) -> Tensor:
        """Value (batch,) of states."""
        value: Tensor = self.critic(seen["state"])[:, 0]
        return value

    def judge(self, observation: Observation, seen: Observation, seeds: Tensor, actions: Tensor) -> ppo.Judgement:
        """Judge orders given on stored rows."""
        output = self.agents(seen["state"])
        log_probs, entropy = log_prob_entropy(output, actions)
        coordinator = coordinator_loss(output, self.env.outcomes(observation))
        return ppo.Judgement(
            log_probs, entropy, self.value(seen, seeds), coordinator, {"losses/coordinator": coordinator.detach()}
        )


def log_prob_entropy(output: Output, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of orders and entropy of their distribution, both (batch, 1).

    log p(units) + [units > 0] (log p(stop) + log p(target)): where nothing is traded there is no stop to be blamed.
    """
    logs = [p.clamp(min=1e-9).log() for p in (output.units, output.stop, output.target)]
    units, stop, target = (log.gather(1, actions[:, i : i + 1]) for i, log in enumerate(logs))
    trades = (actions[:, :1] > 0).to(units.dtype)
    size, *cell = (-(log.exp() * log).sum(1, keepdim=True) for log in logs)
    return units + trades * (stop + target), size + (1 - output.units[:, :1]) * (cell[0] + cell[1])


def fit(
    name: str,
    train: Lessons,
    venue: market.Venue,
    params: MRMSParams,
    seed: int,
    device: str,
    saver: training.Saver,
) -> tuple[RiskEnsemble, training.History]:
    """Train an ensemble by PPO on the events of train, and keep the last weights.

    Raises
    ------
    InputError
        For fewer than two events, a state or a loss that is not finite.
    """
    require_finite(train.states)
    return learn(name, material(train, venue, params), train.states.names, venue.params, params, seed, device, saver)


def learn(
    name: str,
    given: Material,
    names: tuple[str, ...],
    exchange: market.MarketParams,
    params: MRMSParams,
    seed: int,
    device: str,
    saver: training.Saver,
) -> tuple[RiskEnsemble, training.History]:
    """`fit` on material whose brackets have been run already; ``names`` are those of the states' features."""
    run, bet = params.ppo, params.unit_risk / params.kelly_fraction
    env = RiskEnv(given, exchange, bet, run.num_envs, run.gamma, seed, device)
    torch.manual_seed(seed)  # the first weights are the seed's, whatever drew before
    agents = ensemble.new(names, exchange.limits.max_units, params).to(device)
    learner = RiskLearner(env, agents).to(device)
    history = ppo.train(name, env, learner, run, seed, saver)
    return learner.agents, history
