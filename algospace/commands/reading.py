"""What a command line says of bars: how a file is read, from when on."""

from datetime import datetime
from pathlib import Path

import pandas as pd

from algospace.data import auto
from algospace.data.params import DataParams
from algospace.errors import InputError


def require_bars(path: Path) -> None:
    """Refuse what is no file, before anything else is read."""
    if not path.is_file():
        raise InputError(f"{path}: expected a bar file, found {'a directory' if path.is_dir() else 'none'}")


def reading_of(data: DataParams, path: Path) -> DataParams:
    """How a file of the command line is read: as the ``data`` section says, or its ``auto`` entry for such a name."""
    kind = "parquet" if path.suffix.lower() == ".parquet" else "csv"
    return auto.reading_of(data, path.name).model_copy(update={"source": kind, "files": [path.name], "m30_files": []})


def require_from(path: Path, bars: pd.DataFrame, start: pd.Timestamp | None) -> None:
    """Refuse bars of a file that all close before ``--from``."""
    if start is not None and not (bars["close_utc"] >= start).any():
        last = bars["close_utc"].iloc[-1].isoformat()
        raise InputError(f"--from: expected bars of {path} from {start.isoformat()} on, found the last to close {last}")


def moment(text: str | None) -> pd.Timestamp | None:
    """Point in time of an ISO text, UTC where it names no zone."""
    if text is None:
        return None
    try:
        stamp = pd.Timestamp(datetime.fromisoformat(text))
    except ValueError:
        raise InputError(f"--from: expected an ISO time, found {text!r}") from None
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")
