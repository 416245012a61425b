"""Judge what a policy did: its track record beside baselines, its funnel, its refusals, its report."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from algospace import market, performance
from algospace.policy.baselines import cost_ladder, random_traders
from algospace.policy.decide import Replay, Settings
from algospace.policy.params import ExportParams
from algospace.policy.records import Decision
from algospace.policy.simulation import Simulation
from algospace.report import ReportData

SESSIONS_PER_YEAR = 252
LADDER = (0.0, 0.5, 1.0, 2.0)  # times the contract's costs


def summaries(
    records: Mapping[str, Simulation], m5: pd.DataFrame, settings: Settings, params: ExportParams, first_row: int
) -> dict[str, dict[str, Any]]:
    """Track record of each simulation over one table of bars, and how it stands to chance."""
    return {
        name: track_record(simulation, params, settings.seed)
        | beside_chance(simulation, m5, settings, params, first_row, settings.seed)
        for name, simulation in records.items()
    }


def track_record(simulation: Simulation, params: ExportParams, seed: int) -> dict[str, Any]:
    """Statistics of a simulation's closed trades and of its equity at session ends."""
    curve, trades = simulation.equity, simulation.trades
    closed = trades[trades["exit_reason"] != market.EXITS[market.OPEN]]
    ends = curve.groupby("session_id", sort=True)["equity"].last().to_numpy()
    equity = np.concatenate([curve["equity"].to_numpy()[:1], ends])
    return performance.summary(
        equity, closed["net_r"].to_numpy(np.float64), closed["pnl"].to_numpy(np.float64), SESSIONS_PER_YEAR,
        params.min_trades, params.bootstrap_draws, seed,
    )  # fmt: skip


def beside_chance(
    simulation: Simulation, m5: pd.DataFrame, settings: Settings, params: ExportParams, first_row: int, seed: int
) -> dict[str, float | None]:
    """How the closed trades stand to random traders', and what they earn at other costs; None for too few."""
    names = ["random_mean_r", "random_percentile", "random_p_value", *(f"mean_r_costs_x{x:g}" for x in LADDER)]
    closed = simulation.trades[simulation.trades["exit_reason"] != market.EXITS[market.OPEN]]
    if len(closed) < params.min_trades:
        return dict.fromkeys(names)
    chance = random_traders(closed, m5, settings, first_row, params.random_draws, seed)
    ladder = cost_ladder(closed, m5, settings, LADDER)
    return performance.rounded(dict(zip(names, (*chance, *ladder.values()), strict=True)))


def funnel(replay: Replay, first_row: int) -> dict[str, int]:
    """How many of the bars survive each gate."""
    m5 = replay.m5.iloc[first_row:]
    judged = [r for r in replay.records if "consensus" in r]
    agreed = [r for r in judged if r["consensus"]["action"] == "with"]
    return {
        "bars": len(m5),
        "signals": int((m5["candidate_direction"] != 0).sum()),
        "synergies": len(replay.records),
        "judged": len(judged),
        "consensus": len(agreed),
        "gate 2": sum(r["decision"] == "trade" for r in replay.records),
        "trades": len(replay.simulation.trades),
    }


def refusals(records: list[Decision]) -> dict[str, int]:
    """How often each reason was given, most frequent first."""
    counts = Counter(reason for record in records for reason in record["reasons"])
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def parity(replay: Replay, prepared: pd.DataFrame) -> bool:
    """Whether the bundle's road from bars to features gave what `prepare` gave, to the last bit."""
    columns = list(replay.m5.columns)
    return set(columns) <= set(prepared.columns) and bool(replay.m5.equals(prepared[columns]))


def export_figures(
    replay: Replay, summaries: dict[str, dict[str, Any]], prepared: pd.DataFrame, first_row: int
) -> dict[str, Any]:
    """The metrics of the test bars: not for selection."""
    return {
        "test": {name.replace(", ", "_").replace(" ", "_"): figures for name, figures in summaries.items()},
        "funnel": {name.replace(" ", "_"): count for name, count in funnel(replay, first_row).items()},
        "feature_parity": parity(replay, prepared),
    }


def report_data(
    replay: Replay,
    simulations: dict[str, Simulation],
    summaries: dict[str, dict[str, Any]],
    manifest: dict[str, Any],
    bundle_id: str,
    vectors: pd.DataFrame,
    validation: dict[str, Any],
    first_row: int,
) -> ReportData:
    """Gather what the report shows of a replay; ``manifest`` is that of the prepared data."""
    bars = replay.m5.iloc[first_row:]
    known = int(np.searchsorted(vectors["close_utc"], bars["close_utc"].iloc[0], side="right"))
    return ReportData(
        title=f"{manifest['contract']['symbol']}: the exported policy on the test bars",
        source=manifest["source"]
        | {
            "files": [f"{file['path']} (sha256 {file['sha256']})" for file in manifest["source"]["files"]],
            "symbol": manifest["contract"]["symbol"],
            "first": manifest["splits"]["test_first"],
            "last": manifest["splits"]["test_last"],
            "is_synthetic": manifest["source"]["kind"] == "synthetic",
        },
        bundle_id=bundle_id,
        summaries=summaries,
        funnel=funnel(replay, first_row),
        refusals=refusals(replay.records),
        equity={
            name: (simulation.equity["close_utc"].to_numpy(), simulation.equity["equity"].to_numpy())
            for name, simulation in simulations.items()
        },
        decisions=_decisions(replay),
        bars=bars[["close_utc", "close"]].reset_index(drop=True),
        regimes=vectors.iloc[max(known - 1, 0) :].reset_index(drop=True),
        validation=[
            {"candidates of": half, "weights": weights} | validation[half][weights]
            for half in ("select", "report")
            for weights in ("initial", "trained")
        ],
        limitations=LIMITATIONS,
        test_uses="Test figures are not for selection: export counts in logs/test_uses.jsonl how many bundles "
        "these bars have judged. The number of configurations tried is not recorded yet.",
    )


def _decisions(replay: Replay) -> pd.DataFrame:
    trades = replay.simulation.trades
    net_r = dict(zip(trades["event"], trades["net_r"], strict=True))
    return pd.DataFrame(
        {
            "close_utc": pd.to_datetime([r["time"] for r in replay.records], utc=True),
            "direction": [1 if r["direction"] == "long" else -1 for r in replay.records],
            "accepted": [r["decision"] == "trade" for r in replay.records],
            "reasons": ["; ".join(r["reasons"]) for r in replay.records],
            "price": [r["price"] for r in replay.records],
            "net_r": [net_r.get(k, np.nan) for k in range(len(replay.records))],
            "confidence": [r["consensus"]["probability"] if "consensus" in r else np.nan for r in replay.records],
        }
    )


LIMITATIONS = (
    "One market and one split. Several seeds, and walk-forward folds, are judged on validation (metrics/marl.json).",
    "Regime vectors and proposals of the first block of train come from models that knew what came later.",
    "Intervals resample the trades of one path; they do not cover the choice of this market.",
)
