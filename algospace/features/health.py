"""How healthy the models' inputs are: which of them say the same, and how far each quarter has drifted from train.

Both look at the rows before the test split only: what test bars look like is nobody's guide.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from algospace import artefacts, drift
from algospace.data.bars import to_ms
from algospace.data.splits import TEST, TRAIN
from algospace.features import fitted as fitted_module
from algospace.features import table, windows
from algospace.features.fitted import Fitted
from algospace.features.prepared import RegimeRows

SAMPLE = 200_000  # rows looked at, at most: every k-th
CORRELATED = 0.98
MIN_ROWS = 200  # of a quarter that is judged


def inspect(main: Path, regime: RegimeRows, fitted: Fitted) -> dict[str, Any]:
    """Judge the inputs in the prepared main file.

    Returns
    -------
    dict
        ``correlated``: pairs of inputs with ``|r| > 0.98`` on train, each ``[name, name, r]``; ``drift``: quarter ->
        input -> population stability index ``sum (q - p) ln(q / p)`` over the deciles of train.
    """
    kind = next(kind for kind, names in windows.REGIME.items() if len(names) == regime.rows.shape[1])
    names = [*windows.STRUCTURE, *windows.REGIME[kind], *windows.TACTICAL, *(f"side_{name}" for name in table.SIDE)]
    values, split, quarter = _sample(main, regime, fitted)
    train = values[split == TRAIN]
    if not len(train):
        return {"correlated": [], "drift": {}}
    return {
        "correlated": _correlated(train, names),
        "drift": {
            f"{1970 + q // 4}Q{q % 4 + 1}": dict(zip(names, _psi(train, values[quarter == q]), strict=True))
            for q in np.unique(quarter).tolist()
            if (quarter == q).sum() >= MIN_ROWS
        },
    }


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What the metrics keep of `inspect`: counts, and the furthest drift of each quarter."""
    return {
        "correlated_pairs": len(found["correlated"]),
        "max_psi": {quarter: max(scores.values()) for quarter, scores in found["drift"].items()},
        "drifted_inputs": {
            quarter: sum(psi > drift.DRIFTED for psi in scores.values()) for quarter, scores in found["drift"].items()
        },
    }


def _sample(main: Path, regime: RegimeRows, fitted: Fitted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (rows, features), split and quarter of every k-th learning row whose inputs are finite."""
    columns = dict.fromkeys(("close_utc", "split", "m30_row", "close", *windows.TACTICAL, *table.SIDE))
    file = pq.ParquetFile(main)
    stride = -(-file.metadata.num_rows // SAMPLE)
    parts, seen = [], 0
    for batch in file.iter_batches(artefacts.ROW_GROUP, columns=list(columns)):
        frame = batch.to_pandas()
        chosen = frame.iloc[-seen % stride :: stride]
        seen += len(frame)
        chosen = chosen[(chosen["m30_row"] >= 0) & (chosen["split"] != TEST)]
        at = chosen["m30_row"].to_numpy()
        side = fitted.tactical(fitted_module.tactical_rows(chosen))
        inputs = np.hstack([regime.structure[at], regime.rows[at], windows.tactical_rows(chosen), side])
        finite = np.isfinite(inputs).all(axis=1)
        months = to_ms(chosen["close_utc"]).astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
        parts.append((inputs[finite].astype(np.float64), chosen["split"].to_numpy()[finite], months[finite] // 3))
    values, split, quarter = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return values, split, quarter


def _correlated(train: np.ndarray, names: list[str]) -> list[list[Any]]:
    spread = train.std(axis=0)
    moving = np.flatnonzero(spread > 0)
    scaled = (train[:, moving] - train[:, moving].mean(axis=0)) / spread[moving]
    r = scaled.T @ scaled / len(train)
    pairs = np.argwhere(np.triu(np.abs(r) > CORRELATED, k=1))
    return [[names[moving[a]], names[moving[b]], round(float(r[a, b]), 4)] for a, b in pairs]


def _psi(train: np.ndarray, other: np.ndarray) -> list[float]:
    scores = []
    for old, new in zip(train.T, other.T, strict=True):
        edges = drift.edges(old)
        scores.append(round(drift.stability_index(drift.shares(old, edges), drift.shares(new, edges)), 4))
    return scores
