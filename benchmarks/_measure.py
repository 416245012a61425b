"""What the benchmarks share: medians of timed runs, on a machine that does nothing else, one row a figure."""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psutil

MOST_OTHERS = 0.1  # cores that other processes may use while a figure is measured
LEAST_SECONDS = 1.0  # that a figure is measured: system times tick every 10 ms


class Busy(RuntimeError):
    """Other processes used the machine: what was timed says nothing."""


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Time ``run`` and return the median; `Busy` when others used more than 0.1 core meanwhile."""
    (median,) = interleaved([run], repeats)
    return median


def interleaved(runs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Medians of several, timed in turn, so that whatever changes meanwhile meets all of them; `Busy` as above."""
    times: list[list[float]] = [[] for _ in runs]
    others, wall = _others(), time.perf_counter()
    while len(times[0]) < repeats or time.perf_counter() - wall < LEAST_SECONDS:
        for run, found in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    wall = time.perf_counter() - wall
    used = (_others() - others) / max(wall, 1e-9)
    if used > MOST_OTHERS:
        raise Busy(f"other processes used {used:.2f} cores")
    return [statistics.median(found) for found in times]


def _others() -> float:
    """CPU seconds that all but this process and its children have used."""
    total = psutil.cpu_times()
    busy = sum(total) - total.idle - getattr(total, "iowait", 0.0) - getattr(total, "steal", 0.0)
    busy -= getattr(total, "guest", 0.0) + getattr(total, "guest_nice", 0.0)  # counted in user and nice already
    own = os.times()
    return float(busy - own.user - own.system - own.children_user - own.children_system)


def main(description: str, rows: Callable[[bool], Iterable[Callable[[], dict[str, Any]]]]) -> None:
    """Run a script's rows and print them; exit code 1 when one was refused.

    ``rows(quick)`` gives functions that measure one row each.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller inputs: minutes on two cores")
    arguments = parser.parse_args()
    refused = False
    for measure in rows(arguments.quick):
        try:
            row = measure()
        except Busy as busy:
            row = {"benchmark": measure.__name__, "refused": str(busy)}
            refused = True
        print(json.dumps(row) if arguments.json else ", ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
    sys.exit(int(refused))
