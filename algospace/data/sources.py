"""From bar files to clean bars: find, read, judge, refuse or drop, put into sessions, fill gaps."""

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.data import quality
from algospace.data.bars import PRICES, IntArray, assign_sessions, fill_gaps, from_ms, resample, to_ms
from algospace.data.contracts import Contract
from algospace.data.params import DataParams as DataParams
from algospace.data.params import SyntheticParams as SyntheticParams
from algospace.data.reader import Fault as Fault
from algospace.data.reader import RawBars as RawBars
from algospace.data.reader import read_file
from algospace.data.sessions import MINUTE_MS, covering, locate
from algospace.errors import InputError

BAR_MINUTES = 5  # what the pipeline runs on


class RefusedBars(InputError):
    """Bars that were read but are not good enough; ``report`` holds the quality report and the faults."""

    def __init__(self, message: str, report: dict[str, Any]):
        super().__init__(message)
        self.report = report


class Loaded(NamedTuple):
    """What `load` gives."""

    bars: pd.DataFrame  # 5-minute bars of algospace.data.bars.SCHEMA, gaps filled
    quality: dict[str, float | int | str]  # of the raw rows
    source: dict[str, Any]  # kind, files (name, sha256, bytes), rows, first_utc, last_utc of the raw rows
    faults: tuple[Fault, ...]  # of the raw rows; empty unless data.on_invalid is drop


def find(params: DataParams, raw_dir: Path) -> list[Path]:
    """Find the files of ``data.files`` below ``raw_dir``, or raise InputError."""
    if not params.files:
        raise InputError(f"data.files: expected at least one path below {raw_dir.as_posix()}, found none")
    for name in params.files:
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:  # links are followed: DVC may link data/raw to its cache
            raise InputError(f"data.files: expected a path below {raw_dir.as_posix()}, found {name!r}")
        if not (raw_dir / name).is_file():
            raise InputError(f"{(raw_dir / name).as_posix()}: expected a bar file (data.files), found none")
    return [raw_dir / name for name in params.files]


def read(params: DataParams, raw_dir: Path) -> RawBars:
    """Read the files of ``data.files`` in their order, as they stand: nothing dropped, filled or sorted.

    Bars of any length are read; `load` wants those of ``data.bar_minutes``.

    Raises
    ------
    InputError
        A file is missing, lies outside ``raw_dir``, or cannot be read as a whole.
    """
    parts = [read_file(path, path.as_posix(), params) for path in find(params, raw_dir)]
    if len(parts) == 1:
        return parts[0]
    rows = pd.concat([part.rows.assign(file=np.int16(i)) for i, part in enumerate(parts)], ignore_index=True)
    sizes = [len(part.rows) for part in parts]
    faults: dict[str, Fault] = {}
    for i, part in enumerate(parts):
        before, after = sum(sizes[:i]), sum(sizes[i + 1 :])
        for kind, mask, first in part.faults:
            padded = np.pad(mask, (before, after))
            known = faults.get(kind)
            faults[kind] = Fault(kind, known.rows | padded, known.first) if known else Fault(kind, padded, first)
    return RawBars(tuple(name for part in parts for name in part.files), rows, tuple(faults.values()))


def check(raw: RawBars, params: DataParams, contract: Contract) -> tuple[Fault, ...]:
    """List all that is wrong with single rows, the first fault of the files first.

    Raises
    ------
    InputError
        Fewer than two bars, or bars of another length than ``data.bar_minutes``.
    """
    rows, minutes = raw.rows, params.bar_minutes
    if len(rows) < 2:
        raise InputError(f"{raw.place(0)}: expected at least 2 bars, found 1")
    start = to_ms(rows["start_utc"])
    timed = rows["start_utc"].notna().to_numpy()
    _check_length(raw, start[timed], minutes)
    values = rows[[*PRICES, "volume"]].to_numpy(np.float64)
    latest = quality.latest_before(start)
    session = np.zeros(start.size, np.int64)
    if timed.any():
        table = covering(contract.calendar, int(start[timed].min()), int(start[timed].max()))
        session[timed] = locate(table, start[timed], minutes)

    def moment(ms: Any) -> str:
        return f"{np.datetime64(int(ms), 'ms')}"[:19] + "Z"

    def candle(i: int) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in zip(PRICES, values[i, :4], strict=True))

    found: tuple[tuple[str, quality.Mask, Callable[[int], str]], ...] = (
        ("price", quality.bad_prices(rows), lambda i: f"expected prices above 0, found {candle(i)}"),
        (
            "range",
            quality.bad_range(rows),
            lambda i: f"expected low <= open, close <= high, found {candle(i)}",
        ),
        (
            "volume",
            quality.bad_volume(rows),
            lambda i: f"expected a volume of 0 or more, found {values[i, 4]:g}",
        ),
        (
            "order",
            timed & quality.disordered(rows),
            lambda i: f"expected a bar that starts after {moment(latest[i])}, found {moment(start[i])}",
        ),
        (
            "mark",
            timed & (start % (minutes * MINUTE_MS) != 0),
            lambda i: (
                f"expected a bar start on a mark of {minutes} minutes (data.stamp is {params.stamp}), "
                f"found {moment(start[i])}"
            ),
        ),
        (
            "session",
            timed & (session < 0),
            lambda i: (
                f"expected a bar inside a session of {contract.calendar} (data.calendar, data.timezone, "
                f"data.stamp), found one that starts {moment(start[i])}"
            ),
        ),
    )
    faults = list(raw.faults)
    for kind, mask, text in found:
        if mask.any():
            row = int(mask.argmax())
            faults.append(Fault(kind, mask, f"{raw.place(row)}: {text(row)}"))
    return tuple(sorted(faults, key=lambda fault: int(fault.rows.argmax())))


def _check_length(raw: RawBars, start: IntArray, minutes: int) -> None:
    steps = np.diff(start)
    steps = steps[steps > 0]
    if not steps.size:
        return
    lengths, counts = np.unique(steps, return_counts=True)
    length = float(lengths[counts.argmax()]) / MINUTE_MS
    if length != minutes:
        raise InputError(
            f"{raw.place(0)}: expected {minutes}-minute bars (data.bar_minutes), as prepare needs 5-minute "
            f"bars or 1-minute bars to build them from; found bars {length:g} minutes apart"
        )


def clean(raw: RawBars, faults: tuple[Fault, ...], params: DataParams, contract: Contract) -> pd.DataFrame:
    """Make 5-minute bars of the rows without a fault: sessions assigned, 1-minute bars merged, gaps filled.

    Raises
    ------
    InputError
        No bar is left.
    """
    invalid = _any(faults, len(raw.rows))
    kept = raw.rows[~invalid].reset_index(drop=True)
    if not kept.size:
        raise InputError(f"{raw.files[0]}: expected valid bars, found none among {len(raw.rows)} rows")
    bars = assign_sessions(kept, contract.calendar, params.bar_minutes)
    if params.bar_minutes != BAR_MINUTES:
        bars = resample(bars, BAR_MINUTES)
    return fill_gaps(bars, contract.calendar, BAR_MINUTES)


def load(params: DataParams, contract: Contract, raw_dir: Path) -> Loaded:
    """Read, judge and clean the files of ``data.files``.

    Parameters
    ----------
    params
        The ``data`` section; ``source`` is csv or parquet.
    contract
        As `algospace.data.contracts.resolve` gives it, with ``data.calendar`` where that is set.
    raw_dir
        Folder that ``data.files`` are relative to.

    Raises
    ------
    InputError
        A file cannot be read, or its bars have another length.
    RefusedBars
        A row is invalid and ``data.on_invalid`` is refuse, or the score is below ``data.min_quality``.
    """
    if params.calendar not in (None, contract.calendar):
        raise ValueError(f"the contract's calendar is {contract.calendar!r}, data.calendar {params.calendar!r}")
    raw = read(params, raw_dir)
    faults = check(raw, params, contract)
    report = quality.score(raw.rows, contract.calendar, params.bar_minutes)
    told = {**report, "faults": {f.kind: {"rows": f.total, "first": f.first} for f in faults}}
    if faults and params.on_invalid == "refuse":
        total = int(_any(faults, len(raw.rows)).sum())
        kinds = ", ".join(f"{fault.kind} {fault.total}" for fault in faults)
        raise RefusedBars(
            f"{faults[0].first}; {total} of {len(raw.rows)} rows are faulty ({kinds}), quality "
            f"{report['score']:.1f}; data.on_invalid: drop leaves them out",
            told,
        )
    if float(report["score"]) < params.min_quality:
        parts = ", ".join(f"{name} {report[name]:.0f}" for name in quality.PARTS if name in report)
        raise RefusedBars(
            f"{raw.files[0]}: expected a quality of at least {params.min_quality:g} (data.min_quality), "
            f"found {report['score']:.1f} ({parts})",
            told,
        )
    return Loaded(clean(raw, faults, params, contract), report, _describe(params, raw, raw_dir), faults)


def _any(faults: tuple[Fault, ...], n: int) -> npt.NDArray[np.bool_]:
    """Mark the rows that have any fault."""
    mask = np.zeros(n, np.bool_)
    for fault in faults:
        mask |= fault.rows
    return mask


def _describe(params: DataParams, raw: RawBars, raw_dir: Path) -> dict[str, Any]:
    files = []
    for name, path in zip(params.files, find(params, raw_dir), strict=True):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append({"path": name, "sha256": digest, "bytes": path.stat().st_size})
    start = to_ms(raw.rows["start_utc"])[raw.rows["start_utc"].notna().to_numpy()]
    first, last = from_ms(np.array([start.min(), start.max()]))
    return {
        "kind": params.source,
        "files": files,
        "rows": len(raw.rows),
        "first_utc": first.isoformat(),
        "last_utc": last.isoformat(),
    }
