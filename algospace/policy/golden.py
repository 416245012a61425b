"""Golden decisions: bars that a bundle carries, and what its policy decided on them when it was written.

A few thousand bars, the last ones of validation, so that the whole road is walked from a cold start: features, their
warm-up, networks, account. Stored inputs of the networks would be larger (14 kB an event) and leave the features out;
a hash of the bars would leave the check to whoever has them. Test bars never enter.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from algospace.data.bars import SCHEMA
from algospace.data.splits import REPORT
from algospace.errors import BundleError
from algospace.policy.decide import Policy, decide

BARS, DECISIONS = "golden.parquet", "golden.jsonl"
GOLDEN = (BARS, DECISIONS)
COUNT = 8_000  # bars: about 1,500 warm the features up
TOLERANCE = 1e-5  # of a number, absolute or relative; what is no number must be the same


def before_test(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a prepared table up to the last one of validation."""
    return table.iloc[: int(np.flatnonzero(table["split"].to_numpy() == REPORT)[-1]) + 1]


def contents(policy: Policy, bars: pd.DataFrame) -> dict[str, bytes]:
    """The last `COUNT` bars of a table of validation and before, and what a policy decides on them: file -> bytes."""
    kept = bars[list(SCHEMA)].tail(COUNT).reset_index(drop=True)
    lines = [json.dumps(record, sort_keys=True, allow_nan=False) for record in decide(policy, kept).records]
    buffer = io.BytesIO()
    table = pa.Table.from_pandas(kept, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, buffer, compression="zstd")
    return {
        BARS: buffer.getvalue(),
        DECISIONS: "".join(f"{line}\n" for line in lines).encode(),
    }


def check(policy: Policy, directory: Path) -> int:
    """Decide on a bundle's golden bars and return how many decisions there are.

    Raises
    ------
    BundleError
        When a decision differs from the one that was written: names file, line and key.
    """
    path = directory / DECISIONS
    try:
        bars = pd.read_parquet(directory / BARS)[list(SCHEMA)].astype(SCHEMA)
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{directory / BARS}: expected bars, found {error!s:.100}") from None
    try:
        written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:  # no UTF-8, no JSON
        raise BundleError(f"{path}: expected a JSON object a line, found {error!s:.100}") from None
    found = json.loads(json.dumps(decide(policy, bars).records))
    if len(found) != len(written):
        raise BundleError(f"{path}: expected the {len(written)} decisions written there, found {len(found)}")
    for number, pair in enumerate(zip(written, found, strict=True), start=1):
        for key, expected, other in _differences("", *pair):
            raise BundleError(f"{path}:{number}: {key}: expected {expected!r:.60} as written, found {other!r:.60}")
    return len(written)


def _differences(key: str, written: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two decisions differ by more than rounding on another machine."""
    if isinstance(written, dict) and isinstance(found, dict):
        for name in sorted(written.keys() | found.keys()):
            yield from _differences(f"{key}.{name}" if key else name, written.get(name), found.get(name))
    elif isinstance(written, list) and isinstance(found, list) and len(written) == len(found):
        for i, pair in enumerate(zip(written, found, strict=True)):
            yield from _differences(f"{key}.{i}", *pair)
    elif type(written) is float and type(found) is float:
        if not np.isclose(written, found, rtol=TOLERANCE, atol=TOLERANCE):
            yield key, written, found
    elif written != found:
        yield key, written, found
