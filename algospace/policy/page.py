"""An evaluation as the report's data."""

import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from algospace import evidence
from algospace.policy.evaluation import AGAINST, POLICY, Evaluation
from algospace.report import ReportData
from algospace.trials import Trials

HEADINGS = {
    "archetype": "Regime archetype",
    "synergy": "Synergy",
    "hour": "Hour, New York",
    "month": "Month",
}
EXAMINED = {"signals": "Each candidate, a bar with a signal,", "synergies": "Each completed synergy"}
LIMITATIONS = (
    "One market and one stretch of time. Several seeds, and walk-forward folds, are judged on validation.",
    "Regime vectors and proposals of the first block of train come from models that knew what came later.",
    "Intervals resample the trades and sessions of one path; they do not cover the choice of this market.",
    "Fills are simulated at the next open, a slippage worse; inside a bar the stop counts before the target.",
)


def report_data(
    found: Evaluation,
    source: Mapping[str, Any],
    bundle_id: str,
    tried: Trials,
    test_uses: str,
    bars_name: str = "bars",
    validation: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({}),
    other_id: str = "",
) -> ReportData:
    """Gather what the report shows of an evaluation.

    Parameters
    ----------
    source
        ``kind`` and ``files`` of the bars, as `prepare` describes them.
    bundle_id, other_id
        Of the judged bundle, and of the one it is held against.
    test_uses
        A sentence on how often these bars have judged.
    validation
        Columns of the validation table; none for bars that are not the project's own.
    """
    bars = found.replay.m5.iloc[found.replay.first_row :]
    first, last = (str(bars["close_utc"].iloc[k].date()) for k in (0, -1))
    symbol = found.settings.contract.symbol
    return ReportData(
        title=f"{symbol}: what the policy did",
        bars_name=bars_name,
        source={
            **source,
            "symbol": symbol,
            "first": first,
            "last": last,
            "is_synthetic": source["kind"] == "synthetic",
        },
        bundle_id=bundle_id,
        summaries=found.summaries,
        evidence=found.evidence,
        why_not=_why_not(found, tried),
        difference=None if found.difference is None else {**found.difference, "name": AGAINST, "id": other_id},
        funnel=found.funnel,
        refusals=found.refusals,
        breakdowns={HEADINGS[name]: rows for name, rows in found.breakdowns.items()},
        examined=EXAMINED[found.examined],
        confidence=found.confidence,
        equity={
            name: (record.equity["close_utc"].to_numpy(), record.equity["equity"].to_numpy())
            for name, record in found.records.items()
        },
        decisions=_decisions(found),
        bars=bars[["close_utc", "close"]].reset_index(drop=True),
        regimes=found.regimes,
        validation=validation,
        limitations=LIMITATIONS,
        test_uses=test_uses,
    )


def source(described: Mapping[str, Any]) -> dict[str, Any]:
    """Description of a source as the page shows it: files by name and hash."""
    return {**described, "files": [f"{file['path']} (sha256 {file['sha256']})" for file in described["files"]]}


def validation(marl: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Columns of the validation table out of the agents' metrics: what to quote first, what chose the seed last."""
    columns = {}
    for half, words in (("report", "reporting half"), ("select", "selecting half")):
        of_any = {name: marl[half][name] for name in ("candidates", "always_with_mean_r", "always_against_mean_r")}
        of_trained = {name: marl[half][name] for name in ("random_mean_r", "random_p_value")}
        deployed = {f"deployed_{name}": value for name, value in marl[half]["traded"]["deployed"].items()}
        of_trained |= marl[half]["trained"] | marl[half]["traded"]["consensus"] | deployed
        columns[f"trained, {words}"] = of_any | of_trained
        columns[f"untrained, {words}"] = of_any | marl[half]["initial"]
    return columns


def _why_not(found: Evaluation, tried: Trials) -> dict[str, str]:
    summary = found.summaries[POLICY]
    too_few = f"{summary['trades']} trades are too few: {summary['min_trades']} are needed"
    few_trials = f"{tried.tried} configurations are on record, {evidence.MIN_TRIALS} are needed"
    flat = "the session returns have no spread" if summary["sessions"] > 1 else "there is one session"
    flat = too_few if summary["trades"] < summary["min_trades"] else flat
    return {
        "probabilistic_sharpe": flat,
        "deflated_sharpe": few_trials if tried.deviation is None else flat,
        "minimum_sessions": flat if summary["sharpe"] is None else "a Sharpe ratio of zero or less never gets there",
        "trials_sharpe_deviation": few_trials,
        "minimum_backtest_years": few_trials,
        "overfitting": tried.overfitting_why_not,
    }


def _decisions(found: Evaluation) -> pd.DataFrame:
    records, trades = found.replay.records, found.replay.simulation.trades
    net_r = dict(zip(trades["event"], trades["net_r"], strict=True))
    return pd.DataFrame(
        {
            "close_utc": pd.to_datetime([r["time"] for r in records], utc=True),
            "direction": [1 if r["direction"] == "long" else -1 for r in records],
            "accepted": [r["decision"] == "trade" for r in records],
            "reasons": ["; ".join(r["reasons"]) for r in records],
            "price": [r["price"] for r in records],
            "net_r": [net_r.get(k, np.nan) for k in range(len(records))],
            "confidence": [r["consensus"]["probability"] if "consensus" in r else np.nan for r in records],
        }
    )
