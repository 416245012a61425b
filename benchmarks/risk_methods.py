"""Both ways of training the risk ensemble, and the plain rule, each through two accounts on the report half.

Trained on train, judged on the quoted half of validation of the prepared market (`dvc repro rde` first): with the
signal, one trade at a time, sizes under the hard limits but not under that of the out-of-fold record (decision 0009):
both ways are compared by what they ask for. ``violations`` are orders that the limits forbid, counted
from the trades alone; they must be 0.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from algospace import artefacts, market, performance
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared
from algospace.mrms import method
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import propose, size
from algospace.mrms.stops import stop_distances
from algospace.mrms.track import Track, account_state
from algospace.mrms.trades import PLAIN_REWARD_RISK, PLAIN_STOP, with_past_accounts
from algospace.params import RuntimeParams
from algospace.pipeline.config import load_params
from algospace.pipeline.profiles import load_profile
from algospace.policy.simulation import Order, Simulation, simulate
from algospace.training import Unsaved

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data/prepared"
SEED = 42
RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)


def trade(bars: pd.DataFrame, lessons: Lessons, venue: market.Venue, model: RiskEnsemble | None) -> Simulation:
    """Walk the events with a model's proposals, or the plain rule's."""
    events, limits, initial = lessons.events, venue.params.limits, venue.params.account.equity
    grid = load_params("mrms", MRMSParams, ROOT / "params.yaml")
    side = events["candidate_direction"].to_numpy()
    plain, _ = stop_distances(events, side, np.array(PLAIN_STOP), grid.stop_grid[-1], grid.lvn, venue.costs.tick)

    def choose(k: int, account: market.Account, track: Track, busy: bool) -> Order | None:
        if busy or any(bool(breach) for breach in account.breaches(limits).values()):
            return None
        asked, stop, stop_atr, reward, confidence = 1, float(plain[k]), PLAIN_STOP, PLAIN_REWARD_RISK, 0.0
        if model is not None:
            numbers = account_state(track, account, initial, limits)
            one = slice(k, k + 1)
            states = lessons.states.of(one).with_accounts(numbers[None])
            found = propose(model, states, events.iloc[one], venue.costs.tick)
            asked, stop, stop_atr, reward, confidence = (
                part[0, 0].item()
                for part in (found.units, found.stop, found.stop_atr, found.reward_risk, found.confidence)
            )
        units = size(
            asked, stop, float(account.equity[0]), track, venue.contract.point_value, grid.adjustment, limits
        ).units
        if units == 0 or reward < limits.min_reward_risk:
            return None
        return Order(int(side[k]), stop, reward, units, 0, stop_atr, confidence)

    return simulate(bars, events["row"].to_numpy(), choose, venue.contract, venue.params)


def violations(trades: pd.DataFrame, params: market.MarketParams, point_value: float) -> int:
    """Trades that broke a limit, from their own record."""
    limits, equity = params.limits, params.account.equity
    peak = start = equity
    count = streak = broken = 0
    session = None
    for t in trades.itertuples():
        if t.session_id != session:
            session, start, count, streak = t.session_id, equity, 0, 0
        broken += (
            t.units > limits.max_units
            or t.units * t.stop_distance * point_value > equity * limits.max_trade_risk + 1e-6
            or equity <= start * (1 - limits.max_session_loss)
            or equity <= peak * (1 - limits.max_drawdown)
            or streak >= limits.max_losing_streak
            or count >= limits.max_session_trades
            or t.reward_risk < limits.min_reward_risk
        )
        equity += t.pnl
        peak, count = max(peak, equity), count + 1
        streak = streak + 1 if t.pnl < 0 else 0
    return broken


def row(name: str, account: str, made: Simulation, params: market.MarketParams, point_value: float) -> dict[str, Any]:
    """Figures of one record; ratios of R a trade, the drawdown as a share of the peak."""
    r, pnl = (made.trades[column].to_numpy(np.float64) for column in ("net_r", "pnl"))
    figures = {
        "trades": len(r), "mean_r": performance.expectancy(r), "sortino_r": performance.sortino(r, 1.0),
        "profit_factor": performance.profit_factor(pnl), "net_pnl": pnl.sum(),
        "max_drawdown": performance.max_drawdown(made.equity["equity"].to_numpy()),
        "mean_units": made.trades["units"].to_numpy(np.float64).mean() if len(r) else 0.0,
        "violations": violations(made.trades, params, point_value),
    }  # fmt: skip
    return {"benchmark": "risk_methods", "method": name, "account": account, **performance.rounded(figures)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help="a tenth of the training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    params = load_params("mrms", MRMSParams, ROOT / "params.yaml")
    if arguments.quick:
        optimizer = params.optimizer.model_copy(update={"epochs": 4})
        run = params.ppo.model_copy(update={"total_timesteps": params.ppo.total_timesteps // 10})
        params = params.model_copy(update={"optimizer": optimizer, "ppo": run})
    contract = prepared.contract(artefacts.read_json(DATA / "manifest.json"))
    columns = ["start_utc", *prepared.MARKET_COLUMNS]
    bars = prepared.learning_rows(pd.read_parquet(DATA / "main_training_data.parquet", columns=columns))
    events = pd.read_parquet(DATA / "mrms_training_data.parquet")
    vectors = pd.read_parquet(ROOT / "data/regimes/regime_vectors.parquet")
    for account in ("default", "prop_firm"):
        exchange = load_profile(account, "market", market.MarketParams, ROOT / "params.yaml")
        venue = market.Venue.of(bars, contract, exchange)

        def of_split(code: int, venue: market.Venue = venue) -> Lessons:
            chosen = events[events["split"] == code].reset_index(drop=True)
            return Lessons.new(chosen, prepared.regime_vectors_at(chosen, vectors), venue, params)

        train, select, report = (of_split(code) for code in (TRAIN, SELECT, REPORT))
        lessons = with_past_accounts(train, venue, params, SEED)
        models: dict[str, RiskEnsemble | None] = {"plain": None}
        for name in ("sortino", "ppo"):
            run = params.model_copy(update={"method": name})
            models[name] = method.train(name, lessons, select, venue, run, RUNTIME, SEED, Unsaved())[0]
        for name, model in models.items():
            found = row(name, account, trade(bars, report, venue, model), exchange, contract.point_value)
            print(json.dumps(found) if arguments.json else ", ".join(f"{k}: {v}" for k, v in found.items()), flush=True)


if __name__ == "__main__":
    main()
