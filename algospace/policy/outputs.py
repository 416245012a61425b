"""An evaluation as files and figures: trades, decisions and equity as tables, everything as JSON, the metrics."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from algospace import artefacts
from algospace.performance import rounded
from algospace.policy.evaluation import POLICY, Evaluation, with_costs
from algospace.policy.records import Decision

UTC = "datetime64[ms, UTC]"
TRADE_TYPES = {
    "record": "str", "decided_utc": UTC, "entry_utc": UTC, "exit_utc": UTC, "side": "int8", "units": "int64",
    "entry": "float64", "exit": "float64", "stop_distance": "float64", "stop_atr": "float64",
    "reward_risk": "float64", "delay": "int64", "exit_reason": "str", "bars": "int64", "net_r": "float64",
    "pnl": "float64", "gross_pnl": "float64", "commission": "float64", "slippage": "float64", "session_id": "int64",
}  # fmt: skip
DECISION_TYPES = {
    "time_utc": UTC, "direction": "str", "synergy": "int8", "quality": "float64", "price": "float64",
    "archetype": "str", "action": "str", "agreement": "Int8", "confidence": "float64", "probability": "float64",
    "break_even": "float64", "warning": "str", "stop_distance": "float64", "reward_risk": "float64",
    "proposed_units": "Int64", "decision": "str", "units": "int64", "reasons": "str", "net_r": "float64",
}  # fmt: skip
CENTS = 2  # digits of the equity
HEADLINES = ("trades", "net_return", "max_drawdown", "mean_r", "mean_r_low", "mean_r_high", "sharpe")


def trades(found: Evaluation) -> pd.DataFrame:
    """Every trade of every record, in the order of the records and of time."""
    parts = [
        with_costs(record.trades, found.settings).assign(record=name)
        for name, record in found.records.items()
        if len(record.trades)
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(TRADE_TYPES))
    return table[list(TRADE_TYPES)].astype(TRADE_TYPES)


def decisions(found: Evaluation) -> pd.DataFrame:
    """The policy's decision at every event; what was not computed before a refusal is missing, as are R of no trade."""
    made = found.records[POLICY].trades
    net_r = dict(zip(made["event"], made["net_r"], strict=True))
    rows = [_decision(record, float(net_r.get(k, np.nan))) for k, record in enumerate(found.replay.records)]
    table = pd.DataFrame(rows, columns=list(DECISION_TYPES))
    return table.assign(time_utc=pd.to_datetime(table["time_utc"], utc=True)).astype(DECISION_TYPES)


def _decision(record: Decision, net_r: float) -> dict[str, Any]:
    consensus, proposal = record.get("consensus", {}), record.get("proposal", {})
    return {
        "time_utc": record["time"],
        "direction": record["direction"],
        "synergy": record["synergy"]["type"],
        "quality": record["synergy"]["quality"],
        "price": record["price"],
        "archetype": record.get("archetype", ""),
        "action": consensus.get("action", ""),
        "agreement": consensus.get("agreement", pd.NA),
        "confidence": consensus.get("confidence", np.nan),
        "probability": consensus.get("probability", np.nan),
        "break_even": consensus.get("break_even", np.nan),
        "warning": consensus.get("warning", ""),
        "stop_distance": proposal.get("stop_distance", np.nan),
        "reward_risk": proposal.get("reward_risk", np.nan),
        "proposed_units": proposal.get("units", pd.NA),
        "decision": record["decision"],
        "units": record["units"],
        "reasons": "; ".join(record["reasons"]),
        "net_r": net_r,
    }


def equity(found: Evaluation) -> pd.DataFrame:
    """Equity of every record, in USD, marked at each bar's close: a row a bar, a column a record."""
    curves = {name: record.equity["equity"].round(CENTS) for name, record in found.records.items()}
    clock = found.records[POLICY].equity[["close_utc", "session_id"]]
    return clock.assign(**{name.replace(",", "").replace(" ", "_"): curve for name, curve in curves.items()})


def candidates(found: Evaluation) -> int:
    """How many candidates the confidence was judged on."""
    return int(found.confidence.counts.sum())


def figures(found: Evaluation) -> dict[str, Any]:
    """Everything that was measured, for a reader that is a program."""
    confidence = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in found.confidence._asdict().items()
    }
    return {
        "summaries": found.summaries,
        "evidence": found.evidence,
        "difference": found.difference,
        "funnel": found.funnel,
        "refusals": found.refusals,
        "breakdowns": found.breakdowns,
        "confidence": confidence | {"candidates": candidates(found)},
    }


def metrics(found: Evaluation, feature_parity: bool) -> dict[str, Any]:
    """What a pull request compares: all of the policy, the headlines of the baselines. Not for selection."""
    baselines = {
        name.replace(",", "").replace(" ", "_"): {key: figures[key] for key in HEADLINES}
        for name, figures in found.summaries.items()
        if name != POLICY
    }
    return rounded(
        {
            "test": {POLICY: found.summaries[POLICY] | found.evidence, **baselines},
            "confidence": {"candidates": candidates(found)} | found.confidence.figures(),
            "funnel": {name.replace(" ", "_"): count for name, count in found.funnel.items()},
            "feature_parity": feature_parity,
        }
    )


def write(directory: Path, found: Evaluation) -> None:
    """Write ``evaluation.json`` and trades, decisions and equity as Parquet and CSV, each whole or not at all."""
    artefacts.write_json(directory / "evaluation.json", figures(found))
    for name, table in (("trades", trades(found)), ("decisions", decisions(found)), ("equity", equity(found))):
        artefacts.write_parquet(directory / f"{name}.parquet", table)
        text = table.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%SZ")
        artefacts.write_bytes(directory / f"{name}.csv", text.encode())
