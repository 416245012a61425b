"""From bars to decisions: the only road, for validation, export and use alike.

A decision at the close of a bar knows the bars up to it. It also depends on the account, which is simulated by
`algospace.market` from ``trade_from`` on (the first bar unless told otherwise).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from algospace import agents, consensus, env, market
from algospace.calibration import Calibration
from algospace.consensus import Consensus, Gate2Params
from algospace.data.contracts import Contract
from algospace.data.params import DataParams
from algospace.features import prepared, windows
from algospace.features import table as table_module
from algospace.features.fitted import Fitted
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows
from algospace.indicators.params import IndicatorParams
from algospace.mrms.communication import PREDICTED, Advice, TrackNet, after
from algospace.mrms.model import AGENTS, RiskEnsemble
from algospace.mrms.proposal import Proposal, Size, ask, code, propose, size
from algospace.mrms.state import States, states
from algospace.mrms.track import Track, account_state
from algospace.policy.simulation import Order, Simulation, simulate
from algospace.rde.model import RegimeVAE, encode
from algospace.rde.space import Space
from algospace.synergy import Gate1Params

Record = dict[str, Any]


class Settings(NamedTuple):
    """The params that decide how bars become decisions."""

    contract: Contract
    data: DataParams  # how bar files are read
    indicators: IndicatorParams
    gate1: Gate1Params
    features: FeatureParams
    market: market.MarketParams
    gate2: Gate2Params
    seed: int
    threads: int  # another thread count may give other bits


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


class Replay(NamedTuple):
    """Decisions over a stretch of bars and what came of them."""

    records: list[Record]  # one per Gate-1 event, decided or refused
    simulation: Simulation
    m5: pd.DataFrame  # the feature table that was decided on


def decide(policy: Policy, bars: pd.DataFrame, trade_from: pd.Timestamp | None = None) -> Replay:
    """Decide every Gate-1 event of a bars table.

    Parameters
    ----------
    policy
        Loaded from a bundle or assembled by a stage.
    bars
        See `algospace.data.bars`; bars before ``trade_from`` only warm the features up.
    trade_from
        First close at which the account may trade.

    Returns
    -------
    Replay
        The records of the first n bars are the first records of all bars: nothing in a record comes later than its
        time.
    """
    settings = policy.settings
    table = table_module.build(bars, settings.contract, settings.indicators, settings.gate1, policy.fitted.reference)
    rows = windows.rows(table, policy.fitted)
    first_row = 0 if trade_from is None else int(np.searchsorted(table.m5["close_utc"], trade_from))
    events = synergy_rows(table.m5)
    events = events[events >= first_row]
    in_time = table.m5["candidate_direction"].to_numpy()[events] != 0
    whole = windows.complete(rows, settings.features)[events] & in_time
    ready = events[whole]
    regime = regimes(policy.rde, rows, ready, settings.features)
    seen = states(table.m5.iloc[ready], regime)
    proposal = propose(policy.mrms, seen, table.m5.iloc[ready], settings.contract.tick)
    return replay(policy, table.m5, rows, events, whole, regime, seen, proposal, first_row)


def synergy_rows(m5: pd.DataFrame) -> np.ndarray:
    """Rows of the Gate-1 events."""
    return np.flatnonzero(m5["gate1_type"].to_numpy() != 0)


def regimes(model: RegimeVAE, rows: Rows, ends: np.ndarray, params: FeatureParams) -> np.ndarray:
    """Regime vectors (len(ends), latent) of the newest closed 30-minute bar at each 5-minute row."""

    def cut(m30_rows: np.ndarray) -> np.ndarray:
        return prepared.gather(rows.regime, m30_rows, params.window_regime)

    return encode(model, cut, rows.m30_row[ends]).vectors


def replay(
    policy: Policy,
    m5: pd.DataFrame,
    rows: Rows,
    events: np.ndarray,
    whole: np.ndarray,
    regime: np.ndarray,
    seen: States,
    proposal: Proposal,
    first_row: int,
) -> Replay:
    """Decide ``events`` in time order with the frozen experts' outputs at those whose windows are ``whole``.

    Stop and target are those of the proposal, made for a fresh account: where the bracket hangs must not depend on how
    lucky the account was. The size does: the position agent is asked again for the account as it is.
    """
    settings = policy.settings
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    views = env.Windows(rows, settings.features, "cpu")
    masks = consensus.masks(policy.team, settings.seed)
    number = np.cumsum(whole) - 1
    records: list[Record] = []

    def choose(k: int, account: market.Account, track: Track, is_open: bool) -> Order | None:
        row = events[k]
        event = m5.iloc[row]
        direction = int(event["gate1_direction"])
        record = _event_record(settings.contract, event, direction)
        records.append(record)
        if not whole[k]:
            late = event["close_utc"] == event["session_close_utc"]
            _refuse(record, ["gate1: no bar left in the session" if late else "gate1: windows not whole yet"])
            return None
        if is_open:
            _refuse(record, ["account: a trade is open"])
            return None
        i = number[k]
        single = proposal.of(slice(i, i + 1))
        context = np.concatenate(
            [
                regime[i : i + 1],
                windows.gate1_code(m5, events[k : k + 1], np.array([direction]), settings.gate1),
                code(single),
            ],
            axis=1,
        )
        observation = views.at(torch.tensor([row]), torch.tensor([direction])) | {
            "context": torch.from_numpy(context),
            "account": account.observe(settings.market.limits, settings.market.account.equity),
        }
        result = consensus.consensus(policy.team, observation, masks, settings.gate2)
        stop, reward_risk = float(proposal.stop[i, 0]), float(proposal.reward_risk[i, 0])
        equity = float(account.equity[0])
        own = account_state(track, account, settings.market.account.equity, settings.market.limits)
        asked = int(ask(policy.mrms, seen.of(slice(i, i + 1)).with_accounts(own[None]))[0][0].argmax())
        advice = after(policy.memory, track)
        sized = size(
            asked, stop, equity, track, settings.contract.point_value, policy.mrms.adjustment, settings.market.limits,
            float(advice.factor[0]),
        )  # fmt: skip
        probability = policy.calibration(result.confidence)
        break_even = float(costs.break_even(reward_risk, stop))
        breaches = [name for name, hit in account.breaches(settings.market.limits).items() if bool(hit)]
        reasons = consensus.gate2(
            result, probability, break_even, sized.adjusted, sized.affordable, reward_risk,
            settings.market.limits.min_reward_risk, breaches, settings.gate2,
        )  # fmt: skip
        record |= {
            "regime": [round(float(x), 6) for x in regime[i]],
            "archetype": policy.archetypes[int(policy.space.nearest(regime[i : i + 1])[0])],
            "proposal": _proposal_record(event, direction, settings, single, sized, advice, equity),
            "consensus": _consensus_record(policy.team.agents, result, probability, break_even),
        }
        if reasons:
            _refuse(record, reasons)
            return None
        record |= {"decision": "trade", "reasons": [], "units": sized.units, "delay_bars": result.delay}
        return Order(
            direction, stop, reward_risk, sized.units, result.delay, float(proposal.stop_atr[i, 0]),
            float(proposal.confidence[i, 0]),
        )  # fmt: skip

    simulation = simulate(m5, events, choose, settings.contract, settings.market, first_row)
    return Replay(records, simulation, m5)


def _refuse(record: Record, reasons: list[str]) -> None:
    record |= {"decision": "refuse", "reasons": reasons, "units": 0}


def _event_record(contract: Contract, event: pd.Series, direction: int) -> Record:
    time = event["close_utc"].isoformat()
    return {
        "id": f"{contract.symbol}-{time}",
        "time": time,
        "symbol": contract.symbol,
        "direction": "long" if direction > 0 else "short",
        "synergy": {
            "type": int(event["gate1_type"]),
            "bars_to_complete": int(event["gate1_bars_to_complete"]),
            "quality": round(float(event["gate1_quality"]), 6),
        },
        "price": float(event["close"]),
    }


def _proposal_record(
    event: pd.Series,
    direction: int,
    settings: Settings,
    proposal: Proposal,
    sized: Size,
    advice: Advice,
    equity: float,
) -> Record:
    """The proposal for one event; ``units`` are those before the limits, money is of them."""
    # Entry, stop and target prices are indicative, about the last close: the bracket hangs on the fill.
    tick, price = settings.contract.tick, float(event["close"])
    digits = max(0, -int(np.floor(np.log10(tick)))) + 2
    stop, reward_risk = float(proposal.stop[0, 0]), float(proposal.reward_risk[0, 0])
    target = round(stop * reward_risk / tick) * tick
    units, point_value = sized.adjusted, settings.contract.point_value
    return {
        "units": units,
        "asked_units": sized.asked,
        "performance_factor": round(sized.performance, 6),
        "restraint_factor": round(sized.restraint, 6),
        "utilisation": round(units / settings.market.limits.max_units, 6),
        "confidence": round(float(proposal.confidence[0, 0]), 6),
        "ensemble_confidence": round(float(proposal.ensemble_confidence[0, 0]), 6),
        "agent_weights": {n: round(float(w), 6) for n, w in zip(AGENTS, proposal.weights[0, 0], strict=True)},
        "embedding": [round(float(x), 6) for x in advice.embedding[0]],
        "uncertainty": {name: round(float(x), 6) for name, x in zip(PREDICTED, advice.uncertainty[0], strict=True)},
        "entry": price,
        "atr": round(float(event["m30_atr"]), 6),
        "stop_atr": float(proposal.stop_atr[0, 0]),
        "stop_at_level": bool(proposal.at_level[0, 0]),
        "reward_risk": reward_risk,
        "stop_distance": round(stop, digits),
        "stop": round(price - direction * stop, digits),
        "target": round(price + direction * target, digits),
        "risk_usd": round(stop * point_value * units, 2),
        "reward_usd": round(target * point_value * units, 2),
        "risk_share": round(stop * point_value * units / equity, 6),
        "max_bars": settings.market.max_bars,
    }


def _consensus_record(names: Sequence[str], result: Consensus, probability: float, break_even: float) -> Record:
    def rounded(values: np.ndarray) -> dict[str, float]:
        return {name: round(float(x), 6) for name, x in zip(names, values, strict=True)}

    def by_action(values: np.ndarray) -> dict[str, dict[str, float]]:
        columns = [rounded(column) for column in values.T]
        return {
            agent: {action: column[agent] for action, column in zip(consensus.ACTIONS, columns, strict=True)}
            for agent in env.AGENTS
        }

    return {
        "passes": consensus.PASSES,
        "action": consensus.ACTIONS[result.action],
        "votes": {n: consensus.ACTIONS[v] for n, v in zip(names, result.votes, strict=True)},
        "agreement": result.agreement,
        "probabilities": by_action(result.probabilities),
        "probabilities_std": by_action(result.action_std),
        "confidence": round(result.confidence, 6),
        "prd_confidence": round(result.prd_confidence, 6),
        "probability": round(probability, 6),
        "break_even": round(break_even, 6),
        "agent_confidence": rounded(result.agent_confidence),
        "agent_confidence_std": rounded(result.agent_confidence_std),
        "uncertainty": {
            "total": rounded(result.total),
            "aleatoric": rounded(result.aleatoric),
            "epistemic": rounded(result.epistemic),
        },
        "warning": result.warning,
    }
