"""One 5-minute bar through `Stream.update`, features included, in microseconds; and the time to load a bundle.

The bars are those of the committed pipeline's market, the policy is its bundle (`dvc repro`); the agents are made to
agree with every signal, so that an event goes the whole way. The first bars warm up, the others are timed one by one.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _measure import main

from algospace.data.bars import SCHEMA, VALUES
from algospace.policy import bundle
from algospace.policy.stream import Bar, Stream

ROOT = Path(__file__).parents[1]
BUNDLE, BARS = ROOT / "models/bundle", ROOT / "data/prepared/main_training_data.parquet"
WARM_UP = 8_000


def update(count: int) -> Callable[[], dict[str, Any]]:
    """Time of each bar, those with an event apart."""

    def measure() -> dict[str, Any]:
        policy, _ = bundle.load(BUNDLE)
        torch.set_num_threads(1)
        bars = pd.read_parquet(BARS, columns=list(SCHEMA)).iloc[: WARM_UP + count]
        stream = Stream(policy)
        stream.feed(bars.iloc[:WARM_UP])
        plain, events = [], []
        later = bars.iloc[WARM_UP:]
        later = later[~later["is_synthetic"]]
        for row in zip(*(later[name] for name in ("start_utc", *VALUES, "contract_id")), strict=True):
            bar = Bar(*row)
            start = time.perf_counter()
            found = stream.update(bar)
            taken = 1e3 * (time.perf_counter() - start)
            (events if found is not None and "consensus" in found else plain).append(taken)
        return {
            "benchmark": "stream_update", "bars": len(plain), "events": len(events),
            "plain_p50_ms": percentile(plain, 50), "plain_p99_ms": percentile(plain, 99),
            "event_p50_ms": percentile(events, 50), "event_p99_ms": percentile(events, 99),
            "goal": "p50 1 ms without an event, p99 20 ms with one",
        }  # fmt: skip

    measure.__name__ = "stream_update"
    return measure


def load(repeats: int) -> Callable[[], dict[str, Any]]:
    """Time to verify and load a bundle, its import aside."""

    def measure() -> dict[str, Any]:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            bundle.load(BUNDLE)
            times.append(time.perf_counter() - start)
        return {"benchmark": "bundle_load", "seconds": round(statistics.median(times), 3), "goal": "2 s"}

    measure.__name__ = "bundle_load"
    return measure


def percentile(times: list[float], q: float) -> float | None:
    return round(float(np.percentile(times, q)), 3) if times else None


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    yield update(8_000 if quick else 40_000)
    yield load(5 if quick else 20)


if __name__ == "__main__":
    main(__doc__ or "", rows)
