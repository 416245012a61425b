"""The prepared files as later stages read them.

``main_training_data.parquet`` has a row per 5-minute bar, ``rde_training_data.h5`` a row per 30-minute bar and the
windows over them, ``mrms_training_data.parquet`` a row per candidate; ``manifest.json`` says what they are.
"""

import io
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from algospace import artefacts
from algospace.data.contracts import Contract
from algospace.data.params import DataParams
from algospace.data.splits import TEST
from algospace.errors import InputError

Decisions = Literal["signals", "synergies", "bars"]
# What the exchange needs of a row, and the split.
MARKET_COLUMNS = (
    "close_utc", "session_id", "session_close_utc", "open", "high", "low", "close", "is_synthetic", "split",
)  # fmt: skip


class RegimeRows(NamedTuple):
    """Row tables of the 30-minute bars and the whole regime windows over them."""

    rows: np.ndarray  # float32 (n, 12 or 155), scaled, NaN in warm-up
    structure: np.ndarray  # float32 (n, 8), NaN in warm-up
    close_utc: np.ndarray  # int64 (n,), milliseconds since 1970
    window_end: np.ndarray  # int64 (m,): row of each window's newest row
    split: np.ndarray  # int8 (m,): the split that holds the whole window; -1 (embargo) for none


def write_regime_rows(path: Path, content: RegimeRows, attributes: dict[str, Any]) -> None:
    """Write HDF5 atomically, the same bytes for the same content."""
    buffer = io.BytesIO()
    import h5py  # whoever decides needs none

    with h5py.File(buffer, "w") as file:
        for name, array in content._asdict().items():
            file.create_dataset(name, data=array, track_times=False, compression="gzip")
        for name, value in sorted(attributes.items()):
            file.attrs[name] = value
    artefacts.write_bytes(path, buffer.getvalue())


def read_regime_rows(path: Path) -> RegimeRows:
    """Read what `write_regime_rows` wrote."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return RegimeRows(*(file[name][:] for name in RegimeRows._fields))
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: expected the prepared regime rows, found {error}") from None


def learning_rows(main: pd.DataFrame) -> pd.DataFrame:
    """The rows before the test split: all that training and selection may look at; row numbers stay valid."""
    test = np.flatnonzero(main["split"].to_numpy() == TEST)
    return main.iloc[: test[0] if len(test) else len(main)]


def decision_rows(main: pd.DataFrame, split: int, on: Decisions) -> np.ndarray:
    """Row numbers of a split's bars on which is decided.

    ``on`` signals: on every candidate; on synergies: on those only that completed one; on bars: on every traded bar
    with whole windows that leaves another in its session.
    """
    chosen = main["is_decidable" if on == "bars" else "is_candidate"] & (main["split"] == split)
    if on == "synergies":
        chosen &= main["gate1_type"] != 0
    return np.flatnonzero(chosen.to_numpy())


def examined(train_on: Decisions) -> Decisions:
    """On which bars those are judged, and their confidence calibrated, who learn on ``train_on`` (decision 0017).

    On synergies where they learn on these alone, since a confidence learnt there says something else of other bars;
    otherwise on signals: no bar without one is decided on, and of synergies there may be too few.
    """
    return "synergies" if train_on == "synergies" else "signals"


def directions(events: pd.DataFrame) -> np.ndarray:
    """+1 or -1 of each event, int8: its signal's direction, and up where no signal fires."""
    signal = events["candidate_direction"].to_numpy()
    return np.where(signal == 0, 1, signal).astype(np.int8)


def regime_vectors_at(m5_or_events: pd.DataFrame, vectors: pd.DataFrame) -> np.ndarray:
    """Regime vector (rows, latent) of the 30-minute bar that each row names in ``m30_close_utc``, float32.

    Raises `InputError` where there is none.
    """
    columns = [name for name in vectors.columns if name.startswith("regime_")]
    found = vectors.set_index("close_utc")[columns].reindex(m5_or_events["m30_close_utc"])
    missing = np.flatnonzero(found.isna().any(axis=1).to_numpy())
    if len(missing):
        raise InputError(f"regime vectors: expected one for {found.index[missing[0]]}, found none")
    vectors_at: np.ndarray = found.to_numpy(np.float32)
    return vectors_at


def contract(manifest: dict[str, Any]) -> Contract:
    """The contract that the prepared bars are of."""
    return Contract.model_validate_json(json.dumps(manifest["contract"]), strict=True)


def reading(manifest: dict[str, Any]) -> DataParams:
    """How the prepared bars were read: the ``data`` section, its source resolved."""
    return DataParams.model_validate_json(json.dumps(manifest["data"]), strict=True)


def gather(table: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """Windows (len(ends), length, features) of a row table, whose newest rows are ``ends``; never stored."""
    windows: np.ndarray = table[ends[:, None] + np.arange(1 - length, 1)]
    return windows
