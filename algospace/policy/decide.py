"""From bars to decisions: the only road, for validation, export and use alike.

A decision at the close of a bar knows the bars up to it. It also depends on the account, which is simulated by
`algospace.market` from ``trade_from`` on (the first bar unless told otherwise). `Decider` is the one place in which an
event becomes a decision: `decide` feeds it a whole table, `algospace.policy.stream` a bar at a time.
"""

from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from algospace import agents, consensus, env, market
from algospace.calibration import Calibration
from algospace.consensus import Passes
from algospace.data.bars import Columns, columns, frame, to_ms
from algospace.errors import InputError
from algospace.features import prepared, windows
from algospace.features import table as table_module
from algospace.features.fitted import Fitted
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows
from algospace.mrms.communication import TrackNet, after
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.proposal import Proposal, ask, code, propose, size
from algospace.mrms.state import States, states
from algospace.mrms.track import account_state
from algospace.policy import records
from algospace.policy.account import AccountState
from algospace.policy.records import Decision
from algospace.policy.simulation import Order, Simulation, Simulator, Trade, part, told
from algospace.rde.model import RegimeVAE, encode
from algospace.rde.space import Space
from algospace.settings import Settings


class Policy(NamedTuple):
    """Everything between bars and decisions, frozen."""

    settings: Settings
    fitted: Fitted
    rde: RegimeVAE
    space: Space
    archetypes: list[str]  # names of the space's archetypes
    mrms: RiskEnsemble
    memory: TrackNet  # what the account's last trades say of the next one
    team: agents.Team
    calibration: Calibration
    passes: Passes | None = None  # another runtime of the 50 passes than PyTorch (`algospace.policy.graphs`)


class Replay(NamedTuple):
    """Decisions over a stretch of bars and what came of them."""

    records: list[Decision]  # one per Gate-1 event, decided or refused
    simulation: Simulation
    m5: pd.DataFrame  # the feature table that was decided on,
    m30: pd.DataFrame  # and that of its half hours
    first_row: int  # of m5 that counts; earlier ones have warmed the features up

    def rows(self, policy: Policy) -> Rows:
        """What the models of ``policy`` see of every bar."""
        return windows.rows(table_module.FeatureTable(self.m5, self.m30), policy.fitted)


class Step(NamedTuple):
    """What the next bars bring."""

    decisions: list[Decision]  # of their Gate-1 events
    trades: list[Trade]  # that are now known to be closed
    m5: Columns  # their rows of the feature table,
    m30: Columns  # and the half hours that they complete


class _Asked(NamedTuple):
    """What the frozen experts say of some events, whatever the account: arrays whose first axis they share."""

    regime: np.ndarray
    seen: States
    proposal: Proposal
    context: np.ndarray


class Decider:
    """Decides the Gate-1 events of bars that come one after the other, or in chunks of any size, for one account.

    The decisions do not depend on how the bars were cut, to the last bit, and what is remembered is the longest window
    and the account's closed trades, however many bars there have been.

    Parameters
    ----------
    policy
        Loaded from a bundle or assembled by a stage.
    account
        What the account begins with; a fresh one without.
    trade_from
        First close, in ms since 1970 UTC, that may be decided on. Bars before it, and bars up to the account's own
        time, only warm the features up.
    """

    def __init__(self, policy: Policy, account: AccountState | None = None, trade_from: int | None = None) -> None:
        settings = policy.settings
        self.policy = policy
        self.simulator = Simulator(settings.contract, settings.market, account)
        self._features = table_module.FeatureStream(
            settings.contract, settings.indicators, settings.gate1, policy.fitted.reference
        )
        self._completeness = windows.Completeness(settings.features)
        self._history = windows.RowHistory(settings.features)
        self._costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
        self._passes = policy.passes or consensus.passes(policy.team, consensus.masks(policy.team, settings.seed))
        self._rows = self._m30_rows = 0
        self._events = 0
        self._begins = np.iinfo(np.int64).min if trade_from is None else trade_from
        if account is not None and account.time is not None:
            self._begins = max(self._begins, int(datetime.fromisoformat(account.time).timestamp() * 1000) + 1)

    def update(self, bars: Columns) -> Step:
        """Let the next bars pass, of `algospace.data.bars.SCHEMA` and without holes inside a session."""
        m5, m30 = self._features.compute(bars)
        rows = windows.rows_of(m5, m30, self.policy.fitted)
        whole = self._completeness.update(rows)
        rows, front = self._history.join(rows, self._m30_rows)
        self._m30_rows += len(m30["close_utc"])
        end = len(whole)
        at = int(np.searchsorted(bars["close_utc"], self._begins))
        events = np.flatnonzero(m5["gate1_type"])
        events = events[events >= at]
        found = Step([], [], m5, m30)
        if events.size:
            table = {name: values[events] for name, values in m5.items() if _is_read(name)}
            ready = whole[events] & (m5["candidate_direction"][events] != 0)
            asked = self._ask(table, ready, rows, events + front)
            views = env.Windows(rows, self.policy.settings.features, "cpu")
            number = np.cumsum(ready) - 1
            for k, row in enumerate(events):
                found.trades.extend(self.simulator.update(part(bars, at, int(row) + 1)))
                at = int(row) + 1
                record, order = self._decide(
                    {name: values[k] for name, values in table.items()},
                    int(row) + front,
                    number[k] if ready[k] else None,
                    asked,
                    views,
                )
                found.decisions.append(record)
                if order is not None:
                    self.simulator.place(order, self._events, self._rows + int(row))
                self._events += 1
        found.trades.extend(self.simulator.update(part(bars, at, end)))
        self._rows += end
        return found

    def _ask(self, table: Columns, ready: np.ndarray, rows: Rows, ends: np.ndarray) -> _Asked:
        """Ask the frozen experts about the events that can be decided on; ``ends`` (events,) are their rows."""
        settings, at = self.policy.settings, np.flatnonzero(ready)
        given = {name: values[at] for name, values in table.items()}
        regime = regimes(self.policy.rde, rows, ends[at], settings.features)
        seen = states(given, regime)
        proposal = propose(self.policy.mrms, seen, given, settings.contract.tick)
        direction = given["gate1_direction"].astype(np.int64)
        gate1 = windows.gate1_code(table, at, direction, settings.gate1)
        return _Asked(regime, seen, proposal, np.concatenate([regime, gate1, code(proposal)], axis=1))

    def _decide(
        self, event: dict[str, Any], end: int, i: int | None, asked: _Asked, views: env.Windows
    ) -> tuple[Decision, Order | None]:
        """Decide one event, for the account as it is; ``i`` is its number among those that were asked about.

        Stop and target are those of the proposal, made for a fresh account: where the bracket hangs must not depend on
        how lucky the account was. The size does: the position agent is asked again for the account as it is.
        """
        policy, settings, account, track = (
            self.policy,
            self.policy.settings,
            self.simulator.account,
            self.simulator.track,
        )
        direction = int(event["gate1_direction"])
        record = records.event(settings.contract, event, direction)
        if i is None:
            late = event["close_utc"] == event["session_close_utc"]
            why = "gate1: no bar left in the session" if late else "gate1: windows not whole yet"
            return record | records.verdict([why]), None
        if self.simulator.is_open:
            return record | records.verdict(["account: a trade is open"]), None
        limits, one = settings.market.limits, slice(i, i + 1)
        proposal, regime = asked.proposal.of(one), asked.regime[one]
        observation = views.at(torch.tensor([end]), torch.tensor([direction])) | {
            "context": torch.from_numpy(asked.context[one]),
            "account": account.observe(limits, settings.market.account.equity),
        }
        result = consensus.combine(*self._passes(observation), policy.team.agents, settings.gate2)
        stop, reward_risk = float(proposal.stop[0, 0]), float(proposal.reward_risk[0, 0])
        equity = float(account.equity[0])
        own = account_state(track, account, settings.market.account.equity, limits)
        wanted = int(ask(policy.mrms, asked.seen.of(one).with_accounts(own[None]))[0][0].argmax())
        advice = after(policy.memory, track)
        sized = size(
            wanted, stop, equity, track, settings.contract.point_value, policy.mrms.adjustment, limits,
            float(advice.factor[0]),
        )  # fmt: skip
        probability = policy.calibration(result.confidence)
        break_even = float(self._costs.break_even(reward_risk, stop))
        breaches = [name for name, hit in account.breaches(limits).items() if bool(hit)]
        reasons = consensus.gate2(
            result, probability, break_even, sized.adjusted, sized.affordable, reward_risk, limits.min_reward_risk,
            breaches, settings.gate2,
        )  # fmt: skip
        record |= {
            "regime": [round(float(x), 6) for x in regime[0]],
            "archetype": policy.archetypes[int(policy.space.nearest(regime)[0])],
            "proposal": records.proposed(
                event, direction, settings.contract, settings.market, proposal, sized, advice, equity
            ),
            "consensus": records.agreed(policy.team.agents, result, probability, break_even),
        } | records.verdict(reasons, sized.units, result.delay)
        if reasons:
            return record, None
        return record, Order(
            direction, stop, reward_risk, sized.units, result.delay, float(proposal.stop_atr[0, 0]),
            float(proposal.confidence[0, 0]),
        )  # fmt: skip


def decide(
    policy: Policy,
    bars: pd.DataFrame,
    trade_from: pd.Timestamp | None = None,
    account: AccountState | None = None,
) -> Replay:
    """Decide every Gate-1 event of a bars table.

    Parameters
    ----------
    policy
        Loaded from a bundle or assembled by a stage.
    bars
        See `algospace.data.bars`; bars before ``trade_from`` only warm the features up.
    trade_from
        First close at which the account may trade.
    account
        What the account begins with; a fresh one without.

    Returns
    -------
    Replay
        The records of the first n bars are the first records of all bars: nothing in a record comes later than its
        time.
    """
    settings = policy.settings
    first = None if trade_from is None else int(to_ms(pd.Series([trade_from]))[0])
    decider = Decider(policy, account, first)
    parts = list(table_module.chunks(bars))
    steps = [decider.update(columns(chunk)) for chunk in parts]
    m5 = pd.concat([frame(step.m5, chunk.index) for step, chunk in zip(steps, parts, strict=True)])
    m30 = pd.concat([frame(step.m30, pd.RangeIndex(len(step.m30["close_utc"]))) for step in steps], ignore_index=True)
    first_row = 0 if first is None else int(np.searchsorted(to_ms(m5["close_utc"]), first))
    start = settings.market.account.equity if account is None else account.equity
    simulation = told(
        [trade for step in steps for trade in step.trades], decider.simulator.finish(), m5, settings.contract,
        settings.market, start, first_row,
    )  # fmt: skip
    return Replay([record for step in steps for record in step.decisions], simulation, m5, m30, first_row)


def require_bars_from(bars: pd.DataFrame, start: pd.Timestamp | None) -> None:
    """Raise `InputError` if no bar closes at ``start`` or later: `decide` would have nothing to decide."""
    if start is not None and not (bars["close_utc"] >= start).any():
        raise InputError(f"expected bars from {start} on, found none; the last closes {bars['close_utc'].iloc[-1]}")


def _is_read(name: str) -> bool:
    """Whether a decision reads a column of the feature table."""
    return name in (*table_module.EVENT, *table_module.SIGNALS) or name.startswith(("gate1_", "strength_"))


def regimes(model: RegimeVAE, rows: Rows, ends: np.ndarray, params: FeatureParams) -> np.ndarray:
    """Regime vectors (len(ends), latent) of the newest closed 30-minute bar at each 5-minute row."""

    def cut(m30_rows: np.ndarray) -> np.ndarray:
        return prepared.gather(rows.regime, m30_rows, params.window_regime)

    return encode(model, cut, rows.m30_row[ends]).vectors
