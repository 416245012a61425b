"""Whether new bars, and what a policy makes of them, still look like train."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace import drift
from algospace.drift import Drift
from algospace.errors import InputError
from algospace.features import table as table_module
from algospace.features import windows
from algospace.policy.decide import Policy, decide, require_bars_from
from algospace.policy.records import Decision


class Seen(NamedTuple):
    """What a policy met on a stretch of bars, and how it answered."""

    inputs: dict[str, np.ndarray]  # name -> value at every traded bar, NaN where there is none
    records: list[Decision]  # of the events that were judged


class Finding(NamedTuple):
    """One variable beside train."""

    kind: str  # input, confidence, refusal
    name: str
    drift: Drift


def see(policy: Policy, bars: pd.DataFrame, start: pd.Timestamp | None = None) -> Seen:
    """Compute the models' inputs and the policy's decisions over bars; those that close before ``start`` warm up.

    Events that were not judged, since their windows were not whole or a trade was open, say nothing of the market.

    Raises
    ------
    InputError
        When no bar is left to be judged.
    """
    require_bars_from(bars, start)
    replay = decide(policy, bars, start)
    rows = replay.rows(policy)
    counted = ~replay.m5["is_synthetic"].to_numpy(bool) & (rows.m30_row >= 0)
    counted[: replay.first_row] = False
    at = rows.m30_row[counted]
    parts = (
        (windows.STRUCTURE, rows.structure[at]),
        (windows.REGIME[policy.settings.indicators.mmd.kind], rows.regime[at]),
        (windows.TACTICAL, rows.tactical[counted]),
        (tuple(f"side_{name}" for name in table_module.SIDE), rows.side[counted]),
    )
    inputs = {name: values[:, k] for names, values in parts for k, name in enumerate(names)}
    if not windows.complete(rows, policy.settings.features)[counted].any():
        raise InputError(f"expected bars that go on after the features' warm-up, found {len(bars)} within it")
    return Seen(inputs, [record for record in replay.records if "consensus" in record])


def reference(seen: Seen) -> dict[str, Any]:
    """What train looks like, ready for JSON: deciles of every input and of the confidence, rates of refusal."""
    count = len(seen.records)
    return {
        "inputs": {name: drift.reference(values) for name, values in seen.inputs.items()},
        "confidence": drift.reference(_confidence(seen)),
        "refusals": {name: drift.reference_share(times, count) for name, times in sorted(_refusals(seen).items())},
        "judged": count,
    }


def compare(train: Mapping[str, Any], seen: Seen) -> list[Finding]:
    """Hold what was seen against the `reference` of train: inputs, confidence, then each reason of refusal."""
    count, now = len(seen.records), _refusals(seen)
    never = drift.reference_share(0, train["judged"])
    return [
        *(Finding("input", name, drift.compare(old, seen.inputs[name])) for name, old in train["inputs"].items()),
        Finding("confidence", "calibrated probability", drift.compare(train["confidence"], _confidence(seen))),
        *(
            Finding("refusal", name, drift.compare_share(train["refusals"].get(name, never), now.get(name, 0), count))
            for name in sorted({*train["refusals"], *now})
        ),
    ]


def _confidence(seen: Seen) -> np.ndarray:
    return np.array([record["consensus"]["probability"] for record in seen.records], dtype=np.float64)


def _refusals(seen: Seen) -> dict[str, int]:
    counts = Counter(reason for record in seen.records for reason in record["reasons"])
    return dict(counts) | {"any reason": sum(record["decision"] == "refuse" for record in seen.records)}
