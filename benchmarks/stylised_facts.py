"""Stylised facts of the synthetic market `regimes`, beside those of real bars (`--bars FILE`, New York hours)."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from algospace import synthetic
from algospace.data import contracts, sources
from algospace.data.params import DataParams
from algospace.data.sessions import bars_per_session
from algospace.pipeline.config import load_params

DATA = load_params("data", DataParams, Path(__file__).parents[1] / "params.yaml")


def facts(bars: pd.DataFrame, calendar: str) -> dict[str, float]:
    """Facts of 5-minute returns inside sessions, and of the gaps between them."""
    same = bars["session_id"] == bars["session_id"].shift()
    r = np.log(bars["close"]).diff()[same].dropna()
    clock = bars["start_utc"].dt.tz_convert("America/New_York")
    minute = (clock.dt.hour * 60 + clock.dt.minute).reindex(r.index)
    spread = r.groupby(minute).std()
    middle = spread[(spread.index >= 12 * 60) & (spread.index < 14 * 60)].mean()
    gaps = np.log(bars["open"] / bars["close"].shift())[~same].dropna()
    daily = np.log(bars.groupby("session_id")["close"].last()).diff().dropna()
    found = {
        "annual_volatility": daily.std() * np.sqrt(252),
        "excess_kurtosis": r.kurt(),
        "excess_kurtosis_by_time_of_day": (r / r.groupby(minute).transform("std")).kurt(),
        "autocorrelation": r.autocorr(1),
        "autocorrelation_of_size": r.abs().autocorr(1),
        "autocorrelation_of_size_a_day_later": r.abs().autocorr(bars_per_session(calendar, 5)),
        "opening_over_midday_volatility": spread[(spread.index >= 570) & (spread.index < 585)].mean() / middle,
        "closing_over_midday_volatility": spread[(spread.index >= 945) & (spread.index < 960)].mean() / middle,
        "overnight_share_of_variance": gaps.var() / daily.var(),
    }
    return {"sessions": int(bars["session_id"].nunique()), **{key: float(value) for key, value in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help="accepted, it takes seconds anyway")
    parser.add_argument("--bars", type=Path, help="SPY's 5-minute bars, UTC, stamped with the last minute")
    arguments = parser.parse_args()
    spy, mes = contracts.resolve("SPY", None), contracts.resolve("MES", None)
    hours = DATA.synthetic.model_copy(update={"price": 280.0, "sessions": 500})
    markets = {
        "regimes": (synthetic.market(DATA.synthetic, mes, 42), mes.calendar),
        "regimes in New York's hours": (synthetic.market(hours, spy, 42), spy.calendar),
    }
    if arguments.bars:
        kind = "parquet" if arguments.bars.suffix == ".parquet" else "csv"
        changes = {"source": kind, "symbol": "SPY", "stamp": "last_minute", "files": [arguments.bars.name]}
        real = sources.load(DATA.model_copy(update=changes), spy, arguments.bars.parent).bars
        markets[arguments.bars.name] = (real, spy.calendar)
    for name, (bars, calendar) in markets.items():
        row = {"benchmark": "stylised_facts", "market": name}
        row |= {key: round(value, 3) for key, value in facts(bars, calendar).items()}
        print(json.dumps(row) if arguments.json else ", ".join(f"{k}: {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
