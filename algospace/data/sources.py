"""From bar files to clean bars: find, read, judge, refuse or drop, put into sessions, fill gaps."""

import os
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace.artefacts import sha256
from algospace.data import quality, rolls
from algospace.data.agreement import compare
from algospace.data.auto import Resolved as Resolved
from algospace.data.auto import resolve as resolve
from algospace.data.bars import M5_MINUTES, M30_MINUTES, assign_sessions, fill_gaps, from_ms, resample, to_ms
from algospace.data.checks import any_fault, check, sessions_of
from algospace.data.contracts import Contract
from algospace.data.params import DataParams as DataParams
from algospace.data.params import SyntheticParams as SyntheticParams
from algospace.data.reader import Fault as Fault
from algospace.data.reader import RawBars as RawBars
from algospace.data.reader import read_file
from algospace.errors import InputError

_DVC_CACHE = ("files", "md5")  # CACHE/files/md5/ab/cdef...


class RefusedBars(InputError):
    """Bars that were read but are not good enough; ``report`` holds the quality report and the faults."""

    def __init__(self, message: str, report: dict[str, Any]):
        super().__init__(message)
        self.report = report


class Loaded(NamedTuple):
    """What `load` gives."""

    bars: pd.DataFrame  # of algospace.data.bars.SCHEMA, gaps filled
    quality: dict[str, Any]  # of the raw rows: algospace.data.quality.score, and that of each of the ``files``
    source: dict[str, Any]  # kind, files (name, sha256, bytes), rows, first_utc, last_utc of the raw rows
    faults: tuple[Fault, ...]  # of the raw rows; empty unless data.on_invalid is drop
    minutes: int  # length of a bar: 5 or 30


def find(params: DataParams, raw_dir: Path, key: str = "files") -> list[Path]:
    """Find the files of ``data.files``, or of another key, below ``raw_dir``, or raise InputError."""
    names: list[str] = getattr(params, key)
    if not names:
        raise InputError(f"data.{key}: expected at least one path below {raw_dir.as_posix()}, found none")
    for name in names:
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:  # links are followed: DVC may link data/raw to its cache
            raise InputError(f"data.{key}: expected a path below {raw_dir.as_posix()}, found {name!r}")
        if not (raw_dir / name).is_file():
            found = "a directory" if (raw_dir / name).is_dir() else "none"
            raise InputError(f"{(raw_dir / name).as_posix()}: expected a bar file (data.{key}), found {found}")
    return [raw_dir / name for name in names]


def confine(params: DataParams, raw_dir: Path) -> None:
    """Refuse a file of the params that lies outside ``raw_dir``; a link into a DVC cache is DVC's own.

    Raises
    ------
    InputError
        Naming the file and where it leads.
    """
    for key, name in ((each, name) for each in ("files", "m30_files") for name in getattr(params, each)):
        target = Path(os.path.realpath(raw_dir / name))
        if not target.is_relative_to(os.path.realpath(raw_dir)) and target.parts[-4:-2] != _DVC_CACHE:
            raise InputError(f"data.{key}: expected a path below {raw_dir.as_posix()}, found {name!r}: {target}")


def read(params: DataParams, raw_dir: Path, key: str = "files", *, m30: bool = False) -> RawBars:
    """Read the files of ``data.files``, or another key's, in order, as they stand: nothing dropped, filled or sorted.

    Bars of any length are read; `load` wants those of ``data.bar_minutes``, or of 30 minutes with ``m30``.

    Raises
    ------
    InputError
        A file is missing, lies outside ``raw_dir``, or cannot be read as a whole.
    """
    parts = [read_file(path, path.as_posix(), params, m30=m30) for path in find(params, raw_dir, key)]
    if len(parts) == 1:
        return parts[0]
    for part in parts[1:]:
        if part.minutes != parts[0].minutes:
            raise InputError(
                f"{part.place(0)}: expected {parts[0].minutes}-minute bars as in {parts[0].files[0]}, "
                f"found {part.minutes}-minute bars"
            )
    rows = pd.concat([part.rows.assign(file=np.int16(i)) for i, part in enumerate(parts)], ignore_index=True)
    sizes = [len(part.rows) for part in parts]
    faults: dict[str, Fault] = {}
    for i, part in enumerate(parts):
        before, after = sum(sizes[:i]), sum(sizes[i + 1 :])
        for kind, mask, first in part.faults:
            padded = np.pad(mask, (before, after))
            known = faults.get(kind)
            faults[kind] = Fault(kind, known.rows | padded, known.first) if known else Fault(kind, padded, first)
    return RawBars(tuple(name for part in parts for name in part.files), rows, tuple(faults.values()), parts[0].minutes)


def load(params: DataParams, contract: Contract, raw_dir: Path, *, m30: bool = False) -> Loaded:
    """Read, judge and clean the files of ``data.files``.

    Parameters
    ----------
    params
        The ``data`` section; ``source`` is csv or parquet.
    contract
        As `algospace.data.contracts.resolve` gives it, with ``data.calendar`` where that is set.
    raw_dir
        Folder that ``data.files`` are relative to.
    m30
        Take files of 30-minute bars too, whatever ``data.bar_minutes`` says; `Loaded.minutes` tells.

    Raises
    ------
    InputError
        A file cannot be read, or its bars have another length.
    RefusedBars
        A row is invalid and ``data.on_invalid`` is refuse, or the score is below ``data.min_quality``.
    """
    if params.source not in ("csv", "parquet"):
        raise ValueError(f"the source is {params.source!r}: resolve it first, load reads files")
    if params.calendar not in (None, contract.calendar):
        raise ValueError(f"the contract's calendar is {contract.calendar!r}, data.calendar {params.calendar!r}")
    if params.rolls == "quarterly":
        rolls.require_quarterly(contract.calendar)
    judged = _judge(params, contract, raw_dir, m30)
    rows, minutes = judged.rows, judged.minutes
    report, source, faults = judged.quality, judged.source, judged.faults
    del judged  # of millions of rows, one table less: from here on the bars share its columns
    bars = assign_sessions(rows, contract.calendar, minutes)
    del rows
    if minutes < M5_MINUTES:
        bars, minutes = resample(bars, M5_MINUTES), M5_MINUTES
        if bars.empty:
            raise InputError(
                f"{(raw_dir / params.files[0]).as_posix()}: expected a whole bar of {minutes} minutes, found none"
            )
    return Loaded(fill_gaps(bars, contract.calendar, minutes), report, source, faults, minutes)


class _Judged(NamedTuple):
    rows: pd.DataFrame  # those without a fault
    minutes: int
    quality: dict[str, Any]
    source: dict[str, Any]
    faults: tuple[Fault, ...]


def _judge(params: DataParams, contract: Contract, raw_dir: Path, m30: bool) -> _Judged:
    """Read the files, score them and refuse what is not good enough."""
    raw = _numbered(read(params, raw_dir, m30=m30), params, contract.calendar)
    faults = check(raw, params, contract.calendar)
    beside = _m30_files(params, contract.calendar, raw_dir)
    report = _report(raw, faults, beside, params, contract)
    found = [(raw, faults), *beside]
    told = {**report, "faults": {f.kind: {"rows": f.total, "first": f.first} for _, some in found for f in some}}
    if told["faults"] and params.on_invalid == "refuse":
        first = next(fault.first for _, some in found for fault in some)
        kinds = ", ".join(f"{fault.kind} {fault.total}" for _, some in found for fault in some)
        bad = sum(int(any_fault(some, len(file.rows)).sum()) for file, some in found)
        rows = sum(len(file.rows) for file, _ in found)
        remedy = "; data.on_invalid: drop leaves them out" if bad < rows else ""
        raise RefusedBars(
            f"{first}; {bad} of {rows} rows are faulty ({kinds}), quality {report['score']:.1f}{remedy}", told
        )
    if float(report["score"]) < params.min_quality:
        parts = ", ".join(f"{name} {report[name]:.0f}" for name in quality.PARTS if name in report)
        raise RefusedBars(
            f"{raw.files[0]}: expected a quality of at least {params.min_quality:g} (data.min_quality), "
            f"found {report['score']:.1f} ({parts})",
            told,
        )
    valid = _valid(raw, faults)
    if valid.empty:
        raise InputError(f"{raw.files[0]}: expected valid bars, found none among {len(raw.rows)} rows")
    return _Judged(valid, raw.minutes, report, _describe(params, raw, raw_dir), faults)


def _numbered(raw: RawBars, params: DataParams, calendar: str) -> RawBars:
    """Give the rows their ``contract_id``, by all of them: a faulty row may be the first of a contract.

    Raises
    ------
    InputError
        A row that marks a roll lies in no session, or out of order: left out, it would take the roll with it.
    """
    if params.rolls == "none":
        return raw
    table, session = sessions_of(raw.rows, calendar, raw.minutes)
    session = np.where(quality.disordered(raw.rows), -1, session)
    flags = raw.rows["roll"].to_numpy() if "roll" in raw.rows else np.zeros(session.size, np.bool_)
    lost = np.flatnonzero(flags & (session < 0))
    if lost.size and params.on_invalid == "drop":
        raise InputError(
            f"{raw.place(int(lost[0]))}: expected a roll at a bar in order, inside a session of {calendar}, found it "
            "at one that data.on_invalid: drop would leave out"
        )
    ids = rolls.contract_ids(params.rolls, flags, session, table["session_id"].to_numpy())
    return raw._replace(rows=raw.rows.assign(contract_id=ids))


def _valid(raw: RawBars, faults: tuple[Fault, ...]) -> pd.DataFrame:
    rows = raw.rows.drop(columns=["file", "line"])
    return rows[~any_fault(faults, len(rows))].reset_index(drop=True) if faults else rows


def _m30_files(params: DataParams, calendar: str, raw_dir: Path) -> list[tuple[RawBars, tuple[Fault, ...]]]:
    """Read and check ``data.m30_files``, where there are any."""
    if not params.m30_files:
        return []
    m30 = read(params.model_copy(update={"rolls": "none"}), raw_dir, "m30_files", m30=True)
    if m30.minutes != M30_MINUTES:
        raise InputError(
            f"{m30.place(0)}: expected {M30_MINUTES}-minute bars (data.m30_files), "
            f"found bars {m30.spacing or 0:g} minutes apart"
        )
    faults = check(m30, params, calendar)
    return [(m30, tuple(fault._replace(kind=f"30-minute {fault.kind}") for fault in faults))]


def _report(
    raw: RawBars,
    faults: tuple[Fault, ...],
    beside: list[tuple[RawBars, tuple[Fault, ...]]],
    params: DataParams,
    contract: Contract,
) -> dict[str, Any]:
    """Score all rows, and those of each file."""
    calendar, agreement, files = contract.calendar, None, {}
    for m30, m30_faults in beside:
        made = resample(assign_sessions(_valid(raw, faults), calendar, raw.minutes))
        agreement = compare(m30, any_fault(m30_faults, len(m30.rows)), made, contract.tick)
        files = _by_file(m30, params.m30_files, calendar, quality.score(m30.rows, calendar, m30.minutes))
    whole = quality.score(raw.rows, calendar, raw.minutes, agreement)
    return {**whole, "files": _by_file(raw, params.files, calendar, whole) | files}


def _by_file(
    raw: RawBars, names: list[str], calendar: str, whole: dict[str, Any]
) -> dict[str, dict[str, float | int | str]]:
    """Score each file's rows; ``whole`` is the score of all."""
    if len(names) == 1:
        return {names[0]: quality.flat(whole)}
    ends = np.searchsorted(raw.rows["file"].to_numpy(), np.arange(len(names) + 1))
    return {
        name: quality.flat(quality.score(raw.rows.iloc[ends[i] : ends[i + 1]], calendar, raw.minutes))
        for i, name in enumerate(names)
    }


def _describe(params: DataParams, raw: RawBars, raw_dir: Path) -> dict[str, Any]:
    start = to_ms(raw.rows["start_utc"])
    start = start[start != np.iinfo(np.int64).min]
    first, last = from_ms(np.array([start.min(), start.max()]))
    beside = {"m30_files": _hashes(params.m30_files, raw_dir)} if params.m30_files else {}
    return {
        "kind": params.source,
        "files": _hashes(params.files, raw_dir),
        **beside,
        "rows": len(raw.rows),
        "first_utc": first.isoformat(),
        "last_utc": last.isoformat(),
    }


def _hashes(names: list[str], raw_dir: Path) -> list[dict[str, Any]]:
    return [
        {"path": name, "sha256": sha256(raw_dir / name), "bytes": (raw_dir / name).stat().st_size} for name in names
    ]
