"""One bar file (CSV, plain or gzip; Parquet) read as raw rows: nothing dropped, every fault on its line.

What makes a file unreadable as a whole (missing, damaged, wrong encoding, unknown header, dates with two
readings) raises at once. What is wrong with single rows is marked, so that it can be counted and scored.
"""

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.data import columns, csv_file, parquet_file, stamps
from algospace.data.bars import M30_MINUTES, VALUES, FloatArray, IntArray, from_ms, to_ms
from algospace.data.columns import Block
from algospace.data.params import DataParams
from algospace.data.sessions import MINUTE_MS
from algospace.errors import InputError

_ROLL = {"0": 0, "false": 0, "1": 1, "true": 1}
_SHOWN = 40  # characters of a cell in a message

Mask = npt.NDArray[np.bool_]


class Fault(NamedTuple):
    """Rows that are wrong in one way."""

    kind: str
    rows: Mask  # (n,) over all raw rows
    first: str  # FILE:LINE: expected ..., found ...

    @property
    def total(self) -> int:
        """Number of faulty rows."""
        return int(self.rows.sum())


class RawBars(NamedTuple):
    """Rows as they stand in the files.

    ``rows``: ``file`` (index into ``files``), ``line`` (CSV: of the text, the header is line 1; Parquet: row,
    from 1), ``start_utc`` (bar start, NaT where unreadable), ``open, high, low, close, volume`` (NaN where no
    number); where ``data.rolls`` is column also ``roll`` (bool, the first bar of a new contract). ``faults``: what
    reading them found.
    """

    files: tuple[str, ...]
    rows: pd.DataFrame
    faults: tuple[Fault, ...]
    minutes: int  # length of a bar that the stamps were read with

    def place(self, row: int) -> str:
        """Say FILE:LINE of a row."""
        return f"{self.files[self.rows['file'].iat[row]]}:{self.rows['line'].iat[row]}"

    @property
    def spacing(self) -> float | None:
        """Minutes from most bars to the next; None where none has a later one."""
        return _spacing(to_ms(self.rows["start_utc"]))


class _Table(NamedTuple):
    """A file's columns, and what is said of the first row that is wrong in one of them."""

    lines: npt.NDArray[np.int32]
    stamps: stamps.Texts
    iso: bool  # the stamps were moments, so their texts are ISO 8601
    values: dict[str, FloatArray]
    ragged: Mask  # rows with another number of fields
    first_ragged: str
    first_number: str
    roll: npt.NDArray[np.int8]  # 0, 1, or -1 where unreadable; empty without such a column
    first_roll: str


def after_start(minutes: int) -> dict[str, int]:
    """Minutes from a bar's start to the moment that its stamp names, for each reading of ``data.stamp``."""
    return {"start": 0, "end": minutes, "last_minute": minutes - 1}


def read_file(path: Path, name: str, params: DataParams, *, m30: bool = False) -> RawBars:
    """Read one bar file as ``params`` (source, columns, date_order, timezone, stamp, bar_minutes, rolls) say.

    Parameters
    ----------
    path
        Where the file is.
    name
        What messages call it.
    params
        The ``data`` section; ``source`` is csv or parquet.
    m30
        Bars that are 30 minutes apart are taken for 30-minute bars, whatever ``bar_minutes`` says.

    Raises
    ------
    InputError
        The file as a whole cannot be read; the line names the file and, where there is one, the line.
    """
    zone = stamps.zone(params.timezone)
    blocks = (parquet_file if params.source == "parquet" else csv_file).blocks(path, name, params)
    try:
        table = _gather(blocks)
    except OSError as error:
        raise InputError(f"{name}: expected a readable file, found {error.strerror or type(error).__name__}") from None
    if not table.lines.size:
        raise InputError(f"{name}: expected bars, found none")

    def place(row: int) -> str:
        return f"{name}:{table.lines[row]}"

    order = "iso" if table.iso else params.date_order
    read = stamps.parse(table.stamps, order, zone, place)
    start = read.utc_ms
    minutes = M30_MINUTES if m30 and _spacing(start) == M30_MINUTES else params.bar_minutes
    start[~(read.unreadable | read.skipped | read.repeated)] -= after_start(minutes)[params.stamp] * MINUTE_MS
    number = ~np.logical_and.reduce([np.isfinite(values) for values in table.values.values()]) & ~table.ragged

    dates = "YYYY-MM-DD or D/M/YYYY" if order == "auto" else order
    found: tuple[tuple[str, Mask, Callable[[int], str]], ...] = (
        ("fields", table.ragged, lambda i: table.first_ragged),
        (
            "time",
            read.unreadable & ~table.ragged,
            lambda i: f"expected a date ({dates}) and a time, found {table.stamps[i]!r}",
        ),
        (
            "skipped time",
            read.skipped,
            lambda i: (
                f"expected a time that exists in {zone.key}, found {table.stamps[i]!r}, "
                "which the clocks skipped (data.timezone)"
            ),
        ),
        (
            "repeated time",
            read.repeated,
            lambda i: (
                f"expected a time that comes once in {zone.key}, found {table.stamps[i]!r}, "
                "which the clocks showed twice (data.timezone)"
            ),
        ),
        ("number", number, lambda i: table.first_number),
        ("roll", (table.roll < 0) & ~table.ragged[: table.roll.size], lambda i: table.first_roll),
    )
    faults = tuple(
        Fault(kind, rows, f"{place(int(rows.argmax()))}: {text(int(rows.argmax()))}")
        for kind, rows, text in found
        if rows.any()
    )
    rows = pd.DataFrame(
        {
            "file": np.zeros(table.lines.size, np.int16),
            "line": table.lines,
            "start_utc": from_ms(start),
            **table.values,
            **({"roll": table.roll > 0} if table.roll.size else {}),
        },
        copy=False,
    )
    return RawBars((name,), rows, faults, minutes)


def _gather(blocks: Iterator[Block]) -> _Table:
    """Put the blocks of a file together, its numbers as numbers and its stamps coded."""
    texts = stamps.Texts()
    lines, ragged, roll = array("i"), array("b"), array("b")
    values = {column: array("d") for column in VALUES}
    first_ragged, first_number, first_roll, iso = "", "", "", False
    for block in blocks:
        texts.add(columns.stamps(block.cells))
        lines.extend(block.lines)
        uneven = [width != block.expected_width for width in block.width]
        ragged.extend(uneven)
        if not first_ragged and any(uneven):
            first_ragged = f"expected {block.expected_width} fields, found {block.width[uneven.index(True)]}"
        wrong: list[tuple[int, int, str]] = []  # row, column, what is said
        for at, column in enumerate(VALUES):
            number = block.values[column] if column in block.values else columns.numbers(block.cells[column])
            values[column].frombytes(number.tobytes())
            bad = np.flatnonzero(~np.isfinite(number) & ~np.array(uneven))
            if bad.size:
                cell = block.cells[column][bad[0]] if column in block.cells else str(number[bad[0]])
                wrong.append((int(bad[0]), at, f"expected a number for {column}, found {_shown(cell)}"))
        first_number = first_number or min(wrong, default=(0, 0, ""))[2]
        if "roll" in block.cells:
            marks = [_ROLL.get(cell.strip().lower(), -1) for cell in block.cells["roll"]]
            roll.extend(marks)
            unclear = [i for i, mark in enumerate(marks) if mark < 0 and not uneven[i]]
            if not first_roll and unclear:
                cell = block.cells["roll"][unclear[0]]
                first_roll = f"expected 0, 1, true or false for roll, found {_shown(cell)}"
        iso = block.iso
    return _Table(
        np.frombuffer(lines, np.int32),
        texts,
        iso,
        {column: np.frombuffer(numbers, np.float64) for column, numbers in values.items()},
        np.frombuffer(ragged, np.bool_),
        first_ragged,
        first_number,
        np.frombuffer(roll, np.int8),
        first_roll,
    )


def _spacing(start: IntArray) -> float | None:
    steps = np.diff(start[start != np.iinfo(np.int64).min])
    lengths, counts = np.unique(steps[steps > 0], return_counts=True)
    return float(lengths[counts.argmax()]) / MINUTE_MS if lengths.size else None


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= _SHOWN else cell[:_SHOWN] + "...")
