"""What the prepare stage writes: the contents of its three files, of the manifest and of the metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from algospace import artefacts
from algospace.data.bars import M5_MINUTES, columns, to_ms
from algospace.data.contracts import Contract
from algospace.data.params import DataParams
from algospace.data.splits import EMBARGO, NAMES, TRAIN
from algospace.errors import InputError
from algospace.features import windows
from algospace.features.fitted import Fitted
from algospace.features.params import FeatureParams
from algospace.features.prepared import RegimeRows
from algospace.features.table import (
    CHUNK_ROWS,
    EVENT,
    SIDE,
    FeatureStream,
    FeatureTable,
    M30Stream,
    beside_itself,
    chunks,
)  # fmt: skip
from algospace.indicators.mmd import MMDReference
from algospace.indicators.params import IndicatorParams
from algospace.synergy import Gate1Params


def write_main(
    path: Path,
    bars: pd.DataFrame,
    codes: np.ndarray,
    stream: FeatureStream,
    fitted: Fitted,
    params: FeatureParams,
    min_train_events: int,
    chunk_rows: int = CHUNK_ROWS,
) -> tuple[RegimeRows, pd.DataFrame]:
    """Stream bars through their features into the main file; return the regime rows and the candidates.

    Only the 30-minute rows and the candidates stay in memory. The bytes do not depend on ``chunk_rows``.

    Raises
    ------
    InputError
        Train holds fewer candidates than ``min_train_events``; nothing is written then.
    """
    completeness = windows.Completeness(params)
    slow, candidates = [], []
    with artefacts.ParquetStream(path) as file:
        for chunk in chunks(bars, chunk_rows):
            table = stream.update(chunk)
            rows = windows.rows(table, fitted)
            main = main_table(table, codes[chunk.index], completeness.update(rows))
            file.write(main)
            slow.append((to_ms(table.m30["start_utc"]), to_ms(table.m30["close_utc"]), rows.structure, rows.regime))
            candidates.append(candidate_table(main))
        events = pd.concat(candidates, ignore_index=True)
        _require_candidates(events, min_train_events)
    start, close, structure, regime = (np.concatenate(parts) for parts in zip(*slow, strict=True))
    return regime_rows(start, close, structure, regime, bars, codes, params.window_regime), events


def write_features(
    path: Path,
    bars: pd.DataFrame,
    minutes: int,
    contract: Contract,
    indicators: IndicatorParams,
    gate1: Gate1Params,
    reference: MMDReference,
    chunk_rows: int = CHUNK_ROWS,
) -> int:
    """Write the feature table of bars: every column of 5-minute bars, the 30-minute part alone of 30-minute bars.

    Returns the number of rows. The bytes do not depend on ``chunk_rows``.
    """
    whole = FeatureStream(contract, indicators, gate1, reference)
    half_hours = M30Stream(contract, indicators, gate1, reference)
    parts = tqdm(chunks(bars, chunk_rows), "features", -(-len(bars) // chunk_rows), unit="chunk", disable=None)
    with artefacts.ParquetStream(path) as file:
        for chunk in parts:
            file.write(
                whole.update(chunk).m5 if minutes == M5_MINUTES else beside_itself(half_hours.update(columns(chunk)))
            )
    return len(bars)


def main_table(table: FeatureTable, codes: np.ndarray, whole: np.ndarray) -> pd.DataFrame:
    """Feature table with the split of each row, whether it can be decided on, and whether it is a candidate.

    A bar can be decided on that was traded, has whole windows and an ATR, and is not its session's last; a candidate is
    such a bar on which a signal fires.
    """
    m5 = table.m5
    last = m5["session_close_utc"] <= m5["close_utc"]
    decidable = whole & ~(last | m5["is_synthetic"] | m5["m30_atr"].isna()).to_numpy()
    candidate = whole & (m5["candidate_direction"].to_numpy() != 0)
    flags = {"split": codes, "is_decidable": decidable, "is_candidate": candidate}
    return pd.concat([m5, pd.DataFrame(flags, index=m5.index)], axis=1)


def regime_rows(
    start: np.ndarray,
    close: np.ndarray,
    structure: np.ndarray,
    regime: np.ndarray,
    bars: pd.DataFrame,
    codes: np.ndarray,
    length: int,
) -> RegimeRows:
    """Cut the regime windows; one belongs to a split only when every 5-minute bar in its rows does.

    ``start`` and ``close`` (n30,) in ms are those of the 30-minute rows, ``codes`` the splits of ``bars``.
    """
    first = np.searchsorted(to_ms(bars["start_utc"]), start)
    last = np.searchsorted(to_ms(bars["close_utc"]), close, side="right") - 1
    split = np.where(codes[first] == codes[last], codes[last], EMBARGO)
    new = np.append(True, split[1:] != split[:-1])
    run = np.arange(1, len(split) + 1) - np.flatnonzero(new)[np.cumsum(new) - 1]
    ends = np.flatnonzero(windows.finite_run(regime) >= length)
    return RegimeRows(regime, structure, close, ends, np.where(run >= length, split, EMBARGO)[ends])


def candidate_table(main: pd.DataFrame) -> pd.DataFrame:
    """A row per candidate: its row number, what is known at its close, and when its label ends.

    ``main`` are rows of the main table, their index the row numbers of all bars. ``label_end_utc`` is the close of the
    last bar that an outcome can read.
    """
    chosen = main[main["is_candidate"]]
    events = chosen[["split", *EVENT]].reset_index(drop=True)
    events.insert(0, "row", chosen.index.to_numpy(np.int64))
    events["label_end_utc"] = events["session_close_utc"]
    return events


def _require_candidates(candidates: pd.DataFrame, minimum: int) -> None:
    """Refuse a train split with too few candidates to learn from."""
    found = int((candidates["split"] == TRAIN).sum())
    if found < minimum:
        raise InputError(
            f"gate1.min_train_events: expected at least {minimum} candidates in train, found {found} "
            "(more bars, or looser gate-1 thresholds)"
        )


def manifest(
    files: list[Path],
    source: dict[str, Any],
    data: DataParams,
    contract: Contract,
    dates: dict[str, str],
    regime_names: Sequence[str],
    quality: dict[str, Any],
    health: dict[str, Any],
) -> dict[str, Any]:
    """What the prepared files are, by hash; where the bars come from; when each split begins; how good it all is."""
    main = pq.ParquetFile(files[0])
    return {
        "source": source,
        "data": data.model_dump(mode="json"),
        "contract": contract.model_dump(mode="json"),
        "splits": dates,
        "rows": main.metadata.num_rows,
        "columns": main.schema_arrow.names,
        "structure_features": list(windows.STRUCTURE),
        "tactical_features": list(windows.TACTICAL),
        "side_features": list(SIDE),
        "regime_features": list(regime_names),
        "quality": quality,
        "health": health,
        "files": {
            file.name: {
                "sha256": artefacts.sha256(file),
                "bytes": file.stat().st_size,
                "compression_ratio": round(_content_bytes(file) / file.stat().st_size, 3),
            }
            for file in files
        },
    }


def _content_bytes(path: Path) -> float:
    """Bytes of a file's numbers before compression."""
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        return float(file.metadata.num_rows * sum(field.type.bit_width for field in file.schema_arrow) / 8)
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            return float(sum(dataset.nbytes for dataset in file.values()))
    return float(sum(array.nbytes for array in artefacts.read_tensors(path)[0].values()))


# What `figures` reads of the main file.
COUNTED = ("session_id", "is_synthetic", "split", "is_candidate", "gate1_type")


def told(figures: dict[str, Any], dates: dict[str, str]) -> str:
    """What `figures` and the dates of the splits come to, for whoever watches the stage: a line of all, one a split."""
    quality = figures["quality"]["score"]
    lines = [f"{figures['bars']:,} bars of {figures['sessions']:,} sessions, quality {quality:.1f} of 100"]
    for name in NAMES.values():
        if f"{name}_first" in dates:
            counts = f"{figures['candidates'][name]:,} candidates, {figures['synergies'][name]:,} synergies"
            lines.append(f"{name:<7}{dates[f'{name}_first']} to {dates[f'{name}_last']}: {counts}")
    return "\n".join(lines)


def figures(
    main: pd.DataFrame, quality: dict[str, Any], source: dict[str, Any], gate1: dict[str, Any], health: dict[str, Any]
) -> dict[str, Any]:
    """The stage's metrics: counts of the main table, quality, Gate 1's rates by profile, drift and correlations."""
    split = main["split"]
    return {
        "source": source["kind"],
        "bars": len(main),
        "sessions": int(main["session_id"].nunique()),
        "filled_bars": int(main["is_synthetic"].sum()),
        "candidates": {name: int((main["is_candidate"] & (split == code)).sum()) for code, name in NAMES.items()},
        "synergies": {name: int(((main["gate1_type"] != 0) & (split == code)).sum()) for code, name in NAMES.items()},
        "quality": {
            k: round(v, 4) if isinstance(v, float) else v for k, v in quality.items() if not isinstance(v, dict)
        },
        "gate1": gate1,
        "health": health,
    }
