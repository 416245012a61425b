"""What the prepare stage writes: the contents of its three files, of the manifest and of the metrics."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from algospace import artefacts
from algospace.data.bars import to_ms
from algospace.data.contracts import Contract
from algospace.data.splits import EMBARGO, NAMES, TRAIN
from algospace.errors import InputError
from algospace.features import windows
from algospace.features.prepared import RegimeRows
from algospace.features.table import EVENT, SIDE, FeatureTable
from algospace.features.windows import Rows


def main_table(table: FeatureTable, codes: np.ndarray, whole: np.ndarray) -> pd.DataFrame:
    """Feature table with the split of each row and whether it is a candidate (its windows are whole)."""
    candidate = whole & (table.m5["candidate_direction"].to_numpy() != 0)
    flags = pd.DataFrame({"split": codes, "is_candidate": candidate}, index=table.m5.index)
    return pd.concat([table.m5, flags], axis=1)


def regime_rows(table: FeatureTable, rows: Rows, codes: np.ndarray, length: int) -> RegimeRows:
    """Cut the regime windows; one belongs to a split only when every 5-minute bar in its rows does."""
    close = to_ms(table.m30["close_utc"])
    first = np.searchsorted(to_ms(table.m5["start_utc"]), to_ms(table.m30["start_utc"]))
    last = np.searchsorted(to_ms(table.m5["close_utc"]), close, side="right") - 1
    split = np.where(codes[first] == codes[last], codes[last], EMBARGO)
    new = np.append(True, split[1:] != split[:-1])
    run = np.arange(1, len(split) + 1) - np.flatnonzero(new)[np.cumsum(new) - 1]
    finite = windows.finite_run(rows.regime) >= length
    ends = np.flatnonzero(finite)
    return RegimeRows(rows.regime, rows.structure, close, ends, np.where(run >= length, split, EMBARGO)[ends])


def candidate_table(main: pd.DataFrame) -> pd.DataFrame:
    """A row per candidate: its row number, what is known at its close, and two labels of what follows.

    ``entry`` (the next open) and ``label_end_utc`` (close of the last bar that an outcome can read) come after the
    event: they are labels.
    """
    chosen = np.flatnonzero(main["is_candidate"].to_numpy())
    events = main.iloc[chosen][["split", *EVENT]].reset_index(drop=True)
    events.insert(0, "row", chosen)
    events["entry"] = main["open"].shift(-1).iloc[chosen].to_numpy()
    events["label_end_utc"] = events["session_close_utc"]
    return events


def require_candidates(candidates: pd.DataFrame, minimum: int) -> None:
    """Refuse a train split with too few candidates to learn from."""
    found = int((candidates["split"] == TRAIN).sum())
    if found < minimum:
        raise InputError(
            f"gate1.min_train_events: expected at least {minimum} candidates in train, found {found} "
            "(more bars, or looser gate-1 thresholds)"
        )


def manifest(
    files: list[Path], main: pd.DataFrame, source: dict[str, Any], contract: Contract, dates: dict[str, str]
) -> dict[str, Any]:
    """What the prepared files are, by hash: rows, bytes, where the bars come from, when each split begins and ends."""
    in_memory = int(main.memory_usage(index=False).sum())
    return {
        "source": source,
        "contract": contract.model_dump(mode="json"),
        "splits": dates,
        "rows": len(main),
        "columns": list(main.columns),
        "structure_features": list(windows.STRUCTURE),
        "tactical_features": list(windows.TACTICAL),
        "side_features": list(SIDE),
        "regime_features": list(windows.REGIME),
        "main_compression_ratio": round(in_memory / files[0].stat().st_size, 3),
        "files": {file.name: {"sha256": artefacts.sha256(file), "bytes": file.stat().st_size} for file in files},
    }


def figures(main: pd.DataFrame, quality: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Counts of a prepared table for the metrics: bars, candidates per split, synergies per type and direction."""
    synergies = main[main["gate1_type"] != 0]
    split = main["split"]
    counts: dict[str, Any] = {
        "source": source["kind"],
        "bars": len(main),
        "sessions": int(main["session_id"].nunique()),
        "filled_bars": int(main["is_synthetic"].sum()),
        "candidates": {name: int((main["is_candidate"] & (split == code)).sum()) for code, name in NAMES.items()},
        "quality": {
            k: round(v, 4) if isinstance(v, float) else v for k, v in quality.items() if not isinstance(v, dict)
        },
    }
    counts["synergies"] = {
        f"type_{kind}_{side}": int(((synergies["gate1_type"] == kind) & (synergies["gate1_direction"] == sign)).sum())
        for kind in range(1, 5)
        for side, sign in (("long", 1), ("short", -1))
    }
    return counts
