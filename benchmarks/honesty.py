"""Honesty of the whole pipeline: nothing found where there is nothing, and a planted edge found where there is one.

On every path the five stages run as they stand, in a workspace of their own, and the bundle they leave is judged on
the test bars. `random_walk` paths have no edge; `planted` ones have a known edge and the same params: profile `bench`,
one unit a trade, the limits of the account off. What is judged, and by what, stands in `_honesty.py`.

A line a path is appended to a file (--out) as soon as it is known, and a path found there with the same params and
code is not run again. The last rows are the verdicts.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import _kept
import numpy as np
import pandas as pd
import torch
from _honesty import (
    YEAR,
    Entries,
    accounts,
    against_random,
    by_session,
    null_verdict,
    on_events,
    planted_verdict,
    timed_sharpe,
)
from _workspace import ROOT, environment, set_params, workspace

from algospace import env, evidence, market, performance, planted
from algospace.data.splits import TEST
from algospace.features import prepared, windows
from algospace.marl import exams
from algospace.mrms.proposal import propose
from algospace.mrms.state import SIDES, states
from algospace.pipeline.profiles import switch_profile
from algospace.pipeline.status import STAGES
from algospace.policy import bundle
from algospace.policy.baselines import EVERY_SYNERGY
from algospace.policy.decide import Policy, regimes
from algospace.policy.evaluation import LADDER, POLICY

SEEDS = {"random_walk": range(7001, 7021), "planted": range(8001, 8011)}  # fixed before any of them was run
QUICK_PATHS = {"random_walk": 2, "planted": 1}
LEVELS = ("deployed", "consensus")
NONE = 1_000_000  # a limit of so many is none
VALUES = {
    "data.synthetic.sessions": 1500,
    "data.train_fraction": 0.6,
    # Some 1,900 synergies a year, 1,300 of them planted: with the defaults, 300, nothing could be learnt.
    "indicators.fvg.min_size_atr": 0.0,
    "indicators.mlmi.ma_fast": 2,
    "indicators.mlmi.ma_slow": 5,
    "indicators.mlmi.rsi_smooth": 5,
    "indicators.mlmi.smooth": 1,
    "indicators.nwrqk.h": 3.0,
    "gate1.window": 60,
    "mrms.synergy_share": 1.0,
    "mrms.folds": 5,
    "mrms.shrink": 0.5,
    "marl.train_on": "synergies",
    "market.limits.max_units": 1,
    "market.limits.max_trade_risk": 1.0,
    "market.limits.max_session_loss": 1.0,
    "market.limits.max_drawdown": 1.0,
    "market.limits.max_losing_streak": NONE,
    "market.limits.max_session_trades": NONE,
}
QUICK_VALUES = {
    "data.synthetic.sessions": 150,
    "marl.pretraining.optimizer.epochs": 4,
    "marl.ppo.total_timesteps": 12288,
}

Row = dict[str, Any]


def write_params(path: Path, quick: bool, market_name: str, seed: int) -> None:
    """Write the params of one path; they differ from those of another in its market and its seed alone."""
    shutil.copy(ROOT / "params.yaml", path)
    switch_profile("bench", path)
    own = {"data.synthetic.market": market_name, "seed": seed}
    set_params(path, VALUES | (QUICK_VALUES if quick else {}) | own)


def run_stages(folder: Path) -> None:
    """Run the stage scripts in a workspace."""
    for stage in STAGES:
        done = subprocess.run(
            [sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment(OMP_NUM_THREADS="1"),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{stage} failed: {done.stderr[-2000:]}")


def run_path(identity: Row, quick: bool) -> Row:
    """Run the pipeline on one path and judge its bundle."""
    torch.set_num_threads(1)
    start = sum(os.times()[:4])
    with tempfile.TemporaryDirectory(prefix="honesty-") as name:
        folder = workspace(Path(name) / "path", {})
        write_params(folder / "params.yaml", quick, identity["market"], identity["seed"])
        run_stages(folder)
        found = judge(folder)
    minutes = (sum(os.times()[:4]) - start) / 60  # of this process and its children: others may use the machine
    return identity | performance.rounded({"cpu_minutes": minutes} | found)


def judge(folder: Path) -> Row:
    """Figures of both levels, and on a planted market of every synergy with fixed risk, on the test bars."""
    policy, _ = bundle.load(folder / "models/bundle")
    settings = policy.settings
    table = pd.read_parquet(folder / "data/prepared/main_training_data.parquet")
    first_row = int(np.flatnonzero(table["split"].to_numpy() == TEST)[0])
    venue = market.Venue.of(table, settings.contract, settings.market)
    trades = pd.read_parquet(folder / "reports/export/trades.parquet")
    curve = pd.read_parquet(folder / "reports/export/equity.parquet", columns=["session_id", POLICY])
    made, gates = (trades[trades["record"] == name] for name in (POLICY, EVERY_SYNERGY))
    entries = {"deployed": deployed(made, table), "consensus": consensus(policy, folder, table)}
    outcomes = {name: given.run(venue, 1.0) for name, given in entries.items()}
    ends = curve.groupby("session_id", sort=True)[POLICY].last().to_numpy()
    daily = {
        "deployed": performance.simple_returns(np.append(curve[POLICY].iloc[0], ends)),
        "consensus": by_session(venue, first_row, outcomes["consensus"].exit_row, outcomes["consensus"].net_r),
    }
    found: Row = {name: level(venue, first_row, entries[name], daily[name], settings.seed) for name in LEVELS}
    units, equity = made["units"].to_numpy(np.float64), curve[POLICY].to_numpy()
    found["deployed"] |= accounts(venue, entries["deployed"], units, equity)
    if settings.data.synthetic.market == "planted":
        events = planted_events(policy, table)
        events = events[events["row"] >= first_row]
        for name, given in entries.items():
            found[name] |= on_events(events, given.row, given.side, outcomes[name].net_r)
        side, net_r = (gates[name].to_numpy(np.float64) for name in ("side", "net_r"))
        found["gates"] = on_events(events, decided_rows(gates, table), side, net_r)
    return found


def decided_rows(trades: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Rows of the bars at whose close some trades were decided."""
    rows: np.ndarray = np.searchsorted(table["close_utc"], trades["decided_utc"])
    return rows


def deployed(trades: pd.DataFrame, table: pd.DataFrame) -> Entries:
    """What the deployed rule entered."""
    names = ("side", "stop_distance", "reward_risk")
    return Entries(
        decided_rows(trades, table),
        *(trades[name].to_numpy(np.float64) for name in names),
        trades["delay"].to_numpy(np.int64),
    )


def consensus(policy: Policy, folder: Path, table: pd.DataFrame) -> Entries:
    """What the team would enter on every synergy of the test bars, each with a fresh account, before Gate 2."""
    settings, ends = policy.settings, prepared.decision_rows(table, TEST, "synergies")
    regime_rows = prepared.read_regime_rows(folder / "data/prepared/rde_training_data.h5")
    rows = windows.prepared_rows(table, regime_rows, policy.fitted)
    events = table.iloc[ends]
    regime = regimes(policy.rde, rows, ends, settings.features)
    proposal = propose(policy.mrms, states(events, regime), events, settings.contract.tick)
    given = exams.material(table, ends, rows, regime, proposal, settings, "cpu")
    judged = exams.judge(policy.team, given, settings)
    taken = np.flatnonzero(judged.action != env.PASS)
    side = exams.sides(judged)[taken]
    direction = given.candidates.direction[taken] * np.array(SIDES)[side]
    stop, reward_risk = proposal.stop[taken, side], proposal.reward_risk[taken, side]
    return Entries(ends[taken], direction.astype(np.float64), stop, reward_risk, judged.delay[taken].astype(np.int64))


def level(venue: market.Venue, first_row: int, entries: Entries, daily: np.ndarray, seed: int) -> Row:
    """Figures of one level of a path; ``daily`` are its net results, a session each.

    The deflated ratio is that of a single trial: the profile trains one seed, and its bundle is the only one that these
    test bars judge.
    """
    found: Row = {"trades": len(entries.row), "years": len(daily) / YEAR}
    if not len(entries.row):
        return found
    bracket_r, random_r = against_random(venue, first_row, entries, seed)
    return found | {
        "gross_sharpe": timed_sharpe(venue, first_row, entries), "bracket_r": bracket_r, "random_r": random_r,
        "net_sharpe": performance.sharpe(daily, YEAR), "deflated": evidence.deflated_sharpe(daily, 1, 0.0),
        "net_r_at_costs": {f"{at:g}": float(entries.run(venue, at).net_r.mean()) for at in LADDER},
    }  # fmt: skip


def planted_events(policy: Policy, table: pd.DataFrame) -> pd.DataFrame:
    """The planted events of a path, drawn again: the pipeline does not know them."""
    settings = policy.settings
    bars, events = planted.market(
        settings.data.synthetic, settings.contract, settings.seed, settings.indicators, settings.gate1
    )
    if not bars["close"].equals(table["close"]):
        raise RuntimeError("expected the market that the pipeline saw, drew another")
    return events


def paths(wanted: list[Row], quick: bool, jobs: int, out: Path | None) -> Iterator[Row]:
    """Give the row of every wanted path: those of the file first, the others as they are ready."""
    rows = _kept.read(out)
    missing = []
    for identity in wanted:
        row = _kept.of(rows, identity)
        if row is None:
            missing.append(identity)
        else:
            yield row
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        for done in as_completed([pool.submit(run_path, identity, quick) for identity in missing]):
            row = done.result()
            _kept.append(out, row)
            yield row
    finally:
        pool.shutdown(cancel_futures=True)  # a path that failed does not wait for those that have not begun


def wanted_paths(quick: bool) -> list[Row]:
    """What names each path: its market and seed, and digests of the params and the code that all share."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "params.yaml"
        write_params(path, quick, "random_walk", 0)
        stages = sorted((ROOT / "stages").glob("*.py"))
        shared = {"params": _kept.digest([path]), "code": _kept.digest(_kept.code(*stages))}
    return [
        {"market": name, "seed": seed} | shared
        for name, seeds in SEEDS.items()
        for seed in (seeds[: QUICK_PATHS[name]] if quick else seeds)
    ]


def verdicts(rows: list[Row]) -> Iterator[Row]:
    """The last rows: both null tests and the planted share, a level each."""
    rows = sorted(rows, key=lambda row: int(row["seed"]))  # they come as they are ready
    walks, bets = ([row for row in rows if row["market"] == name] for name in SEEDS)
    for name in LEVELS:
        found = null_verdict([row[name] for row in walks], [row[name] for row in bets])
        yield {"benchmark": "honesty, random walk", "level": name} | performance.rounded(found)
    for name in LEVELS:
        found = planted_verdict([row[name] for row in bets], [row["gates"] for row in bets])
        yield {"benchmark": "honesty, planted", "level": name} | performance.rounded(found)
    for name in LEVELS:
        for market_name, given in (("random_walk", walks), ("planted", bets)):
            traded = [row[name]["net_r_at_costs"] for row in given if row[name]["trades"]]
            means = {key: float(np.mean([one[key] for one in traded])) for key in (traded[0] if traded else ())}
            what = {"benchmark": "honesty, net R a trade at multiples of the costs", "market": market_name}
            yield what | {"level": name, "paths": len(traded)} | performance.rounded(means)


def main() -> None:
    """Run what is missing; print a row a path and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help="two random walks, one planted path, all shorter: minutes")
    parser.add_argument("--jobs", type=int, default=2, help="paths at a time, a core each (2)")
    parser.add_argument("--out", type=Path, default=None, help="JSON lines, appended to; what is there is not redone")
    arguments = parser.parse_args()

    def show(row: Row) -> None:
        print(json.dumps(row) if arguments.json else ", ".join(f"{k}: {v}" for k, v in row.items()), flush=True)

    rows = []
    for row in paths(wanted_paths(arguments.quick), arguments.quick, arguments.jobs, arguments.out):
        rows.append(row)
        show({"benchmark": "honesty, path"} | row)
    for row in verdicts(rows):
        show(row)


if __name__ == "__main__":
    main()
