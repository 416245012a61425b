"""From bars to decisions: the only road, for validation, export and use alike.

A decision at the close of a bar knows the bars up to it. It also depends on the account, which is simulated by
`algospace.market` from ``trade_from`` on (the first bar unless told otherwise).
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from algospace import agents, consensus, env, market
from algospace.consensus import Calibration, Consensus, Gate2Params
from algospace.data.contracts import Contract
from algospace.data.params import DataParams
from algospace.features import prepared, windows
from algospace.features import table as table_module
from algospace.features.fitted import Fitted
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows
from algospace.indicators.params import IndicatorParams
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.proposal import Proposal, propose
from algospace.mrms.state import context
from algospace.policy.simulation import Order, Simulation, simulate
from algospace.rde.model import RegimeVAE, encode
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
    mrms: RiskEnsemble
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
    proposal = propose(policy.mrms, context(table.m5.iloc[ready], regime))
    return replay(policy, table.m5, rows, events, whole, regime, proposal, first_row)


def synergy_rows(m5: pd.DataFrame) -> np.ndarray:
    """Rows of the Gate-1 events."""
    return np.flatnonzero(m5["gate1_type"].to_numpy() != 0)


def regimes(model: RegimeVAE, rows: Rows, ends: np.ndarray, params: FeatureParams) -> np.ndarray:
    """Regime vectors (len(ends), latent) of the newest closed 30-minute bar at each 5-minute row."""

    def cut(m30_rows: np.ndarray) -> np.ndarray:
        return prepared.gather(rows.regime, m30_rows, params.window_regime)

    return encode(model, cut, rows.m30_row[ends])


def replay(
    policy: Policy,
    m5: pd.DataFrame,
    rows: Rows,
    events: np.ndarray,
    whole: np.ndarray,
    regime: np.ndarray,
    proposal: Proposal,
    first_row: int,
) -> Replay:
    """Decide ``events`` in time order with the frozen experts' outputs at those whose windows are ``whole``."""
    settings = policy.settings
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    views = env.Windows(rows, settings.features, "cpu")
    number = np.cumsum(whole) - 1
    records: list[Record] = []

    def choose(k: int, account: market.Account, is_open: bool) -> Order | None:
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
        single = Proposal(*(part[i : i + 1] for part in proposal))
        context = np.concatenate(
            [
                regime[i : i + 1],
                windows.gate1_code(m5, events[k : k + 1], np.array([direction]), settings.gate1),
                env.proposal_code(single),
            ],
            axis=1,
        )
        observation = views.at(torch.tensor([row]), torch.tensor([direction])) | {
            "context": torch.from_numpy(context),
            "account": account.observe(settings.market.limits, settings.market.account.equity),
        }
        result = consensus.consensus(policy.team, observation, settings.seed, settings.gate2)
        atr = float(event["m30_atr"])
        stop = float(market.stop_distance(np.array(atr), proposal.stop_atr[i, 0], settings.contract.tick))
        reward_risk, units = float(proposal.reward_risk[i, 0]), int(proposal.units[i, 0])
        probability = policy.calibration(result.confidence)
        break_even = float(costs.break_even(reward_risk, stop))
        affordable = market.affordable_units(
            float(account.equity[0]), stop, settings.contract.point_value, settings.market.limits
        )
        breaches = [name for name, hit in account.breaches(settings.market.limits).items() if bool(hit)]
        reasons = consensus.gate2(
            result, probability, break_even, units, affordable, reward_risk,
            settings.market.limits.min_reward_risk, breaches, settings.gate2,
        )  # fmt: skip
        size = min(units, affordable)
        record |= {
            "regime": [round(float(x), 6) for x in regime[i]],
            "proposal": _proposal_record(event, direction, settings, stop, reward_risk, units, single, atr),
            "consensus": _consensus_record(result, probability, break_even),
        }
        if reasons:
            _refuse(record, reasons)
            return None
        record |= {"decision": "trade", "reasons": [], "units": size, "delay_bars": result.delay}
        return Order(direction, stop, reward_risk, size, result.delay)

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
    stop: float,
    reward_risk: float,
    units: int,
    proposal: Proposal,
    atr: float,
) -> Record:
    # Stop and target prices are indicative, about the last close: the bracket hangs on the fill.
    tick, price = settings.contract.tick, float(event["close"])
    digits = max(0, -int(np.floor(np.log10(tick)))) + 2
    target = round(stop * reward_risk / tick) * tick
    return {
        "units": units,
        "confidence": round(float(proposal.confidence[0, 0]), 6),
        "atr": round(atr, 6),
        "stop_atr": float(proposal.stop_atr[0, 0]),
        "reward_risk": reward_risk,
        "stop_distance": round(stop, digits),
        "stop": round(price - direction * stop, digits),
        "target": round(price + direction * target, digits),
        "risk_usd": round(stop * settings.contract.point_value * units, 2),
        "max_bars": settings.market.max_bars,
    }


def _consensus_record(result: Consensus, probability: float, break_even: float) -> Record:
    def rounded(values: np.ndarray) -> dict[str, float]:
        return {name: round(float(x), 6) for name, x in zip(env.AGENTS, values, strict=True)}

    return {
        "passes": consensus.PASSES,
        "action": consensus.ACTIONS[result.action],
        "votes": {n: consensus.ACTIONS[v] for n, v in zip(env.AGENTS, result.votes, strict=True)},
        "agreement": result.agreement,
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
    }
