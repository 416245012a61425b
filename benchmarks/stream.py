"""One 5-minute bar through `Stream.update`, features included; the 50 passes alone; the time to load a bundle.

Bars and policy are those that `dvc repro` leaves. The first bars warm up, the others are timed one by one: those at
which the networks were asked, and all others. The passes are timed at the policy's own size and for a team of a million
weights, by ONNX Runtime and by PyTorch, on one thread and on two.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from _measure import interleaved, main

from algospace import agents, consensus
from algospace.data.bars import SCHEMA, VALUES
from algospace.policy import bundle, graphs
from algospace.policy.stream import Bar, Stream

ROOT = Path(__file__).parents[1]
BUNDLE, BARS = ROOT / "models/bundle", ROOT / "data/prepared/main_training_data.parquet"
WARM_UP = 8_000
ENGINES: tuple[Literal["pytorch", "onnx"], ...] = ("pytorch", "onnx")
MILLION = {"channels": [80, 176, 176], "n_heads": 4, "message_dim": 16, "head_dim": 128}


def update(count: int, engine: Literal["pytorch", "onnx"]) -> Callable[[], dict[str, Any]]:
    """Time of each bar, those with an event apart."""

    def measure() -> dict[str, Any]:
        policy, _ = bundle.load(BUNDLE, engine)
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
            "benchmark": f"stream_update_{engine}", "bars": len(plain), "events": len(events),
            "plain_p50_ms": percentile(plain, 50), "plain_p99_ms": percentile(plain, 99),
            "event_p50_ms": percentile(events, 50), "event_p99_ms": percentile(events, 99),
            "goal": "p50 1 ms without an event, p99 20 ms with one",
        }  # fmt: skip

    measure.__name__ = f"stream_update_{engine}"
    return measure


def passes(name: str, size: dict[str, Any], threads: int, repeats: int) -> Callable[[], dict[str, Any]]:
    """Time of the 50 passes for one event, by both runtimes in turn."""

    def measure() -> dict[str, Any]:
        policy, _ = bundle.load(BUNDLE)
        torch.manual_seed(0)
        team = agents.Team(**(policy.team.config | size)).eval().requires_grad_(False)
        own = policy._replace(team=team)
        torch.set_num_threads(threads)
        onnx = graphs.runtime(graphs.export(own)[graphs.CONSENSUS], own, threads)
        pytorch = consensus.passes(team, consensus.masks(team, policy.settings.seed))
        seen = graphs.example(own)
        by_onnx, by_pytorch = interleaved([lambda: onnx(seen), lambda: pytorch(seen)], repeats)
        return {
            "benchmark": f"passes_{name}_{threads}", "weights": sum(p.numel() for p in team.parameters()),
            "threads": threads, "onnx_p50_ms": round(1e3 * by_onnx, 3), "pytorch_p50_ms": round(1e3 * by_pytorch, 3),
            "goal": "1.2 ms by ONNX Runtime at a million weights",
        }  # fmt: skip

    measure.__name__ = f"passes_{name}_{threads}"
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
    for engine in ENGINES:
        yield update(8_000 if quick else 40_000, engine)
    for name, size in (("own", {}), ("million", MILLION)):
        for threads in (1, 2):
            yield passes(name, size, threads, 200 if quick else 2_000)
    yield load(5 if quick else 20)


if __name__ == "__main__":
    main(__doc__ or "", rows)
