"""Where a replay's decisions and trades come from: the gates' funnel, refusals, and results by kind and by time."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from algospace import market, track_record
from algospace.data.bars import CLOCK
from algospace.performance import rounded
from algospace.policy.decide import Replay
from algospace.policy.params import ExportParams
from algospace.policy.records import Decision

SYNERGIES = ("MLMI, NW-RQK, FVG", "MLMI, FVG, NW-RQK", "NW-RQK, FVG, MLMI", "NW-RQK, MLMI, FVG")  # types 1 to 4
UNJUDGED = "not judged"  # refused before anything was computed


def funnel(replay: Replay) -> dict[str, int]:
    """How many of the bars survive each gate."""
    m5 = replay.m5.iloc[replay.first_row :]
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


def _local(record: Decision) -> pd.Timestamp:
    return pd.Timestamp(record["time"]).tz_convert(CLOCK)


GROUPS: dict[str, Callable[[Decision], str]] = {
    "archetype": lambda record: str(record.get("archetype", UNJUDGED)),
    "synergy": lambda record: f"{record['synergy']['type']}: {SYNERGIES[record['synergy']['type'] - 1]}",
    "hour": lambda record: f"{_local(record).hour:02d}:00",
    "month": lambda record: f"{_local(record):%Y-%m}",
}


def breakdowns(replay: Replay, params: ExportParams, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Events, closed trades and their result by `GROUPS`: regime archetype, synergy, hour (New York) and month.

    A row is ``group``, ``events``, ``trades``, ``net_pnl``, ``win_rate``, ``mean_r`` and its 95 % interval
    ``mean_r_low``, ``mean_r_high``; with fewer than ``params.min_trades`` trades all ratios are None.
    """
    closed = closed_trades(replay.simulation.trades)
    event = closed["event"].to_numpy(np.int64)
    found = {}
    for name, group_of in GROUPS.items():
        labels = np.array([group_of(record) for record in replay.records], dtype=object)
        found[name] = [
            {"group": group, "events": int((labels == group).sum())}
            | _result(closed[labels[event] == group], params, seed)
            for group in sorted(set(labels))
        ]
    return found


def closed_trades(trades: pd.DataFrame) -> pd.DataFrame:
    """The trades that had ended when the data did."""
    return trades[trades["exit_reason"] != market.EXITS[market.OPEN]]


def _result(closed: pd.DataFrame, params: ExportParams, seed: int) -> dict[str, Any]:
    net_r, pnl = closed["net_r"].to_numpy(np.float64), closed["pnl"].to_numpy(np.float64)
    found: dict[str, Any] = {"trades": len(closed), "net_pnl": float(pnl.sum())}
    if len(closed) < params.min_trades:
        return rounded(found | dict.fromkeys(("win_rate", "mean_r", "mean_r_low", "mean_r_high")))
    bounds = track_record.interval("mean_r", net_r, lambda x: x.mean(axis=-1), params.bootstrap_draws, seed)
    return rounded(found | {"win_rate": float((pnl > 0).mean()), "mean_r": float(net_r.mean())} | bounds)
