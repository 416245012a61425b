"""One bar file (CSV, plain or gzip; Parquet) read as raw rows: nothing dropped, every fault on its line.

What makes a file unreadable as a whole (missing, damaged, wrong encoding, unknown header, dates with two
readings) raises at once. What is wrong with single rows is marked, so that it can be counted and scored.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from algospace.data import stamps
from algospace.data.bars import PRICES, from_ms
from algospace.data.params import DataParams
from algospace.data.sessions import MINUTE_MS
from algospace.errors import InputError

VALUES = (*PRICES, "volume")
_ALIASES = {
    "datetime": ("datetime", "timestamp"),
    "date": ("date",),
    "time": ("time",),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l", "llow"),
    "close": ("close", "c", "last"),
    "volume": ("volume", "vol", "v"),
}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Fault(NamedTuple):
    """Rows that are wrong in one way."""

    kind: str
    rows: npt.NDArray[np.bool_]  # (n,) over all raw rows
    first: str  # FILE:LINE: expected ..., found ...

    @property
    def total(self) -> int:
        """Number of faulty rows."""
        return int(self.rows.sum())


class RawBars(NamedTuple):
    """Rows as they stand in the files.

    ``rows``: ``file`` (index into ``files``), ``line`` (CSV: of the text, the header is line 1; Parquet: row,
    from 1), ``start_utc`` (bar start, NaT where unreadable), ``open, high, low, close, volume`` (NaN where no
    number). ``faults``: what reading them found.
    """

    files: tuple[str, ...]
    rows: pd.DataFrame
    faults: tuple[Fault, ...]

    def place(self, row: int) -> str:
        """Say FILE:LINE of a row."""
        return f"{self.files[self.rows['file'].iat[row]]}:{self.rows['line'].iat[row]}"


class _Table(NamedTuple):
    """A file's columns: texts of the stamps, numbers, and the texts behind them for messages."""

    lines: npt.NDArray[np.int64]
    stamps: list[str]
    iso: bool  # the stamps were moments, so their texts are ISO 8601
    values: dict[str, npt.NDArray[np.float64]]
    texts: dict[str, Sequence[object]]
    width: npt.NDArray[np.int64]  # fields found in each row
    expected_width: int


def read_file(path: Path, name: str, params: DataParams) -> RawBars:
    """Read one bar file as ``params`` (source, columns, date_order, timezone, stamp, bar_minutes) say.

    Parameters
    ----------
    path
        Where the file is.
    name
        What messages call it.
    params
        The ``data`` section; ``source`` is csv or parquet.

    Raises
    ------
    InputError
        The file as a whole cannot be read; the line names the file and, where there is one, the line.
    """
    zone = stamps.zone(params.timezone)
    try:
        table = (_parquet if params.source == "parquet" else _csv)(path, name, params)
    except OSError as error:
        raise InputError(f"{name}: expected a readable file, found {error.strerror or type(error).__name__}") from None
    if not table.lines.size:
        raise InputError(f"{name}: expected bars, found none")

    def place(row: int) -> str:
        return f"{name}:{table.lines[row]}"

    order = "iso" if table.iso else params.date_order
    read = stamps.parse(table.stamps, order, zone, place)
    before = {"start": 0, "end": params.bar_minutes, "last_minute": params.bar_minutes - 1}[params.stamp]
    known = ~(read.unreadable | read.skipped | read.repeated)
    start = np.where(known, read.utc_ms - before * MINUTE_MS * known, np.iinfo(np.int64).min)
    ragged = table.width != table.expected_width
    wrong = {column: ~ragged & ~np.isfinite(values) for column, values in table.values.items()}
    number = np.any(list(wrong.values()), axis=0)

    def first_number(row: int) -> str:
        column = next(column for column in VALUES if wrong[column][row])
        return f"expected a number for {column}, found {str(table.texts[column][row])!r}"

    dates = "YYYY-MM-DD or D/M/YYYY" if order == "auto" else order
    found = (
        ("fields", ragged, lambda i: f"expected {table.expected_width} fields, found {table.width[i]}"),
        (
            "time",
            read.unreadable & ~ragged,
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
        ("number", number, first_number),
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
        }
    )
    return RawBars((name,), rows, faults)


def _csv(path: Path, name: str, params: DataParams) -> _Table:
    text = _text(path, name)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = next(reader, [])
        for row in reader:
            if row:  # a blank line is no bar
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{name}:{reader.line_num}: expected comma-separated values, found {error}") from None
    columns = _match(header, f"{name}:1", params.columns)
    width = np.fromiter(map(len, rows), np.int64, len(rows))
    blank = [""] * len(header)
    whole = [row if len(row) == len(header) else blank for row in rows]
    cells = {ours: [row[i] for row in whole] for ours, i in columns.items()}
    values = {column: _numbers(cells[column]) for column in VALUES}
    texts: dict[str, Sequence[object]] = {column: cells[column] for column in VALUES}
    return _Table(np.array(lines, np.int64), _stamps(cells), False, values, texts, width, len(header))


def _text(path: Path, name: str) -> str:
    """Read a whole text file, gunzipped where it is gzip; UTF-8 only."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{name}: expected a whole gzip file, found a damaged one ({error})") from None
    if not data.strip():
        raise InputError(f"{name}:1: expected a header and bars, found an empty file")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{name}:1: expected UTF-8 text, found UTF-16")
    nul = data.find(b"\0")
    if nul >= 0:
        raise InputError(f"{name}:{data.count(10, 0, nul) + 1}: expected UTF-8 text, found a NUL byte")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}:{line}: expected UTF-8 text, found byte 0x{data[error.start]:02x}") from None


def _parquet(path: Path, name: str, params: DataParams) -> _Table:
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except pa.ArrowException as error:
        found = str(error).splitlines()[0]
        raise InputError(f"{name}: expected a Parquet file, found: {found}") from None
    columns = _match(table.column_names, name, params.columns)
    chosen = {ours: table.column(i) for ours, i in columns.items()}
    cells = {}
    for ours in columns.keys() - set(VALUES):
        if pa.types.is_integer(chosen[ours].type) or pa.types.is_floating(chosen[ours].type):
            raise InputError(f"{name}: expected stamps in column {ours}, found {chosen[ours].type}")
        cells[ours] = [text or "" for text in chosen[ours].cast(pa.string()).to_pylist()]
    values: dict[str, npt.NDArray[np.float64]] = {}
    texts: dict[str, Sequence[object]] = {}
    for column in VALUES:
        array = chosen[column]
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            texts[column] = [text or "" for text in array.to_pylist()]
            values[column] = _numbers(texts[column])
        else:
            try:
                values[column] = array.cast(pa.float64()).to_pandas().to_numpy(np.float64)
            except pa.ArrowException:
                raise InputError(f"{name}: expected numbers in column {column}, found {array.type}") from None
            texts[column] = values[column].tolist()
    iso = all(pa.types.is_temporal(chosen[ours].type) for ours in cells)
    width = np.full(table.num_rows, table.num_columns)
    lines = np.arange(1, table.num_rows + 1, dtype=np.int64)
    return _Table(lines, _stamps(cells), iso, values, texts, width, table.num_columns)


def _match(header: Sequence[str], place: str, override: dict[str, str]) -> dict[str, int]:
    """Find our columns in a header: by ``data.columns`` first, then by alias, whatever the case."""
    unknown = override.keys() - _ALIASES.keys()
    if unknown:
        raise InputError(f"data.columns: expected {', '.join(_ALIASES)}, found {', '.join(sorted(unknown))}")
    clean = [title.strip().strip("<>") for title in header]
    columns: dict[str, int] = {}
    for ours, aliases in _ALIASES.items():
        wanted = [override[ours].strip()] if ours in override else [*aliases]
        hits = [
            i
            for i, title in enumerate(clean)
            if (title == wanted[0] if ours in override else re.sub("[ _]", "", title.lower()) in wanted)
            and (ours in override or title not in override.values())
        ]
        if len(hits) > 1:
            titles = ", ".join(header[i] for i in hits)
            raise InputError(f"{place}: expected one column for {ours}, found {titles}; set data.columns")
        if hits:
            columns[ours] = hits[0]
        elif ours in override:
            raise InputError(
                f"{place}: expected column {override[ours]!r} (data.columns.{ours}), found {_list(header)}"
            )
    for ours in VALUES:
        if ours not in columns:
            raise InputError(f"{place}: expected a column for {ours} (data.columns), found {_list(header)}")
    if not columns.keys() & {"datetime", "date", "time"}:
        raise InputError(f"{place}: expected a column for datetime (data.columns), found {_list(header)}")
    return columns


def _list(header: Sequence[str]) -> str:
    shown = ", ".join(title[:30] for title in header[:12])
    return f"columns {shown}" if len(header) <= 12 else f"columns {shown} and {len(header) - 12} more"


def _stamps(cells: dict[str, list[str]]) -> list[str]:
    """Make one text of the time columns: a whole stamp where there is one, else date and time together."""
    if "datetime" in cells:
        return cells["datetime"]
    if "date" in cells and "time" in cells:
        return [f"{day.strip()} {time.strip()}" for day, time in zip(cells["date"], cells["time"], strict=True)]
    return cells["date"] if "date" in cells else cells["time"]


def _numbers(cells: Sequence[object]) -> npt.NDArray[np.float64]:
    """Read plain decimal numbers; NaN for anything else (hexadecimal, thousands separators, blanks)."""
    try:
        array: npt.NDArray[np.float64] = pa.array(cells, pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # at least one is no number to Arrow, which says only which is the first
        texts = [str(cell).strip() for cell in cells]
        array = np.array([float(text) if _NUMBER.fullmatch(text) else np.nan for text in texts])
    return np.array(array, np.float64)
