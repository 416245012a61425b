"""The record of a decision, or of a refusal: JSON, its form is ``decision.schema.json`` beside this file."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from algospace import consensus, market
from algospace.consensus import Consensus
from algospace.data.contracts import Contract
from algospace.market import MarketParams
from algospace.mrms.communication import PREDICTED, Advice
from algospace.mrms.model import AGENTS
from algospace.mrms.proposal import Proposal, Size

Decision = dict[str, Any]
# What a reason begins with -> the stage that it refuses at, in the order of the stages.
STAGES = {
    "gate1": "gate1",
    "consensus": "consensus",
    "confidence": "consensus",
    "risk": "risk",
    "limit": "gate",
    "account": "gate",
}
CHECKS = ("consensus", "confidence", "risk", "limit")  # what is checked once the networks have been asked


def event(contract: Contract, row: Mapping[str, Any], direction: int) -> Decision:
    """What every record begins with; ``row`` is that of the feature table, its moments ms since 1970 UTC."""
    time = pd.Timestamp(int(row["close_utc"]), unit="ms", tz="UTC").isoformat()
    return {
        "id": f"{contract.symbol}-{time}",
        "time": time,
        "symbol": contract.symbol,
        "direction": "long" if direction > 0 else "short",
        "synergy": {
            "type": int(row["gate1_type"]),
            "bars_to_complete": int(row["gate1_bars_to_complete"]),
            "quality": round(float(row["gate1_quality"]), 6),
        },
        "price": float(row["close"]),
    }


def verdict(reasons: Sequence[str], units: int = 0, delay: int | None = None) -> Decision:
    """What becomes of an event: a trade of ``units`` when nothing speaks against it, else a refusal.

    A refusal belongs to the first stage that refuses; checks are told when the networks were asked (``delay``).
    """
    kinds = [reason.split(":")[0] for reason in reasons]
    record: Decision = {
        "decision": "refuse" if reasons else "trade",
        "stage": min((STAGES[kind] for kind in kinds), key=list(STAGES.values()).index, default=None),
        "reasons": list(reasons),
        "units": 0 if reasons else units,
    }
    if delay is not None:
        record["checks"] = {name: name not in kinds for name in CHECKS}
        if not reasons:
            record["delay_bars"] = delay
    return record


def proposed(
    row: Mapping[str, Any],
    direction: int,
    contract: Contract,
    params: MarketParams,
    proposal: Proposal,
    sized: Size,
    advice: Advice,
    equity: float,
) -> Decision:
    """The proposal for one event; ``units`` are those before the limits, money is of them."""
    # Entry, stop and target prices are indicative, about the last close: the bracket hangs on the fill.
    tick, price = contract.tick, float(row["close"])
    # Two more than the tick's first one, and as many as the tick itself has: 1/64 has six.
    exponent = Decimal(repr(tick)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    digits = max(max(0, -int(np.floor(np.log10(tick)))) + 2, -exponent)
    stop, reward_risk = float(proposal.stop[0, 0]), float(proposal.reward_risk[0, 0])
    target = float(market.target_distance(np.array(stop), np.array(reward_risk), tick))
    units, point_value = sized.adjusted, contract.point_value
    return {
        "units": units,
        "asked_units": sized.asked,
        "performance_factor": round(sized.performance, 6),
        "restraint_factor": round(sized.restraint, 6),
        "utilisation": round(units / params.limits.max_units, 6),
        "confidence": round(float(proposal.confidence[0, 0]), 6),
        "ensemble_confidence": round(float(proposal.ensemble_confidence[0, 0]), 6),
        "agent_weights": {n: round(float(w), 6) for n, w in zip(AGENTS, proposal.weights[0, 0], strict=True)},
        "embedding": [round(float(x), 6) for x in advice.embedding[0]],
        "uncertainty": {name: round(float(x), 6) for name, x in zip(PREDICTED, advice.uncertainty[0], strict=True)},
        "entry": price,
        "atr": float(f"{float(row['m30_atr']):.6g}"),
        "stop_atr": float(proposal.stop_atr[0, 0]),
        "stop_at_level": bool(proposal.at_level[0, 0]),
        "reward_risk": reward_risk,
        "stop_distance": round(stop, digits),
        "stop": round(price - direction * stop, digits),
        "target": round(price + direction * target, digits),
        "risk_usd": round(stop * point_value * units, 2),
        "reward_usd": round(target * point_value * units, 2),
        "risk_share": round(stop * point_value * units / equity, 6) if equity > 0 else 0.0,
        "max_bars": params.max_bars,
    }


def agreed(names: Sequence[str], result: Consensus, probability: float, break_even: float) -> Decision:
    """What the passes say, and the calibrated probability beside the one that breaks even."""

    def rounded(values: np.ndarray) -> dict[str, float]:
        return {name: round(float(x), 6) for name, x in zip(names, values, strict=True)}

    def by_action(values: np.ndarray) -> dict[str, dict[str, float]]:
        columns = [rounded(column) for column in values.T]
        return {
            agent: {action: column[agent] for action, column in zip(consensus.ACTIONS, columns, strict=True)}
            for agent in names
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
