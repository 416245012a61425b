"""Bar files of text (CSV, plain or gzip), streamed: never more than a block of one is in memory."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from algospace.data.columns import BLOCK_ROWS, Block, match
from algospace.data.params import DataParams
from algospace.errors import InputError

_READ = 1 << 20  # bytes taken at a time
# No bar file comes near these. What a tiny gzip inflates to does, and would fill the memory.
MAX_LINE = 1 << 15  # bytes
MAX_LINES = 12_000_000  # twenty years of 1-minute bars, day and night, are 10.5 million


def blocks(path: Path, name: str, params: DataParams) -> Iterator[Block]:
    """Read a CSV file as blocks of rows; blank lines are no rows.

    Parameters
    ----------
    path
        Where the file is.
    name
        What messages call it.
    params
        The ``data`` section.

    Raises
    ------
    InputError
        The file as a whole cannot be read: damaged, not UTF-8, no header, no CSV.
    OSError
        The file cannot be opened.
    """
    lines = chain.from_iterable(io.StringIO(text, newline="") for text in _texts(path, name))
    before, first = next(((i, line) for i, line in enumerate(lines) if line.strip()), (0, ""))
    if not first:
        raise InputError(f"{name}:1: expected a header and bars, found an empty file")
    reader = csv.reader(chain([first], lines), delimiter=max(",;\t", key=first.count), strict=True)
    line, header = _rows(reader, 1, name, before)[0]
    columns = match(header, f"{name}:{line}", params)
    blank = [""] * len(header)
    while batch := _rows(reader, BLOCK_ROWS, name, before):
        rows = [(line, row) for line, row in batch if row]
        whole = [row if len(row) == len(header) else blank for _, row in rows]
        yield Block(
            [line for line, _ in rows],
            {ours: [row[i] for row in whole] for ours, i in columns.items()},
            {},
            [len(row) for _, row in rows],
            len(header),
            False,
        )


def _rows(reader: Any, most: int, name: str, before: int) -> list[tuple[int, list[str]]]:
    """Split the next lines into fields; each row with the number of its (last) line."""
    try:
        return [(before + reader.line_num, row) for row in islice(reader, most)]
    except csv.Error as error:
        line = before + reader.line_num
        raise InputError(f"{name}:{line}: expected comma-separated values, found {error}") from None


def _texts(path: Path, name: str) -> Iterator[str]:
    """Decode a file in pieces that end with a line."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source: IO[bytes] = gzip.GzipFile(fileobj=file) if zipped else file  # type: ignore[assignment]
        lines, rest, start = 1, b"", True
        while True:
            try:
                read = source.read(_READ)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise InputError(f"{name}: expected a whole gzip file, found a damaged one ({error})") from None
            data, rest = rest + read, b""
            if start and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise InputError(f"{name}:1: expected UTF-8 text, found UTF-16")
            if start:
                data = data.removeprefix(codecs.BOM_UTF8)
            if read:  # a carriage return at the end may be half of a line's end
                cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
                data, rest = data[:cut], data[cut:]
            long = _long_line(data, rest)
            if long is not None:
                raise InputError(
                    f"{name}:{lines + _ends(data[:long])}: expected lines of at most {MAX_LINE} bytes, "
                    "found a longer one"
                )
            nul = data.find(b"\0")
            if nul >= 0:
                raise InputError(f"{name}:{lines + _ends(data[:nul])}: expected UTF-8 text, found a NUL byte")
            try:
                yield data.decode()
            except UnicodeDecodeError as error:
                line = lines + _ends(data[: error.start])
                raise InputError(f"{name}:{line}: expected UTF-8 text, found byte 0x{data[error.start]:02x}") from None
            if not read:
                return
            lines += _ends(data)
            if lines > MAX_LINES:
                raise InputError(f"{name}:{MAX_LINES + 1}: expected at most {MAX_LINES} lines, found more")
            start = start and not data


def _ends(data: bytes) -> int:
    """Count the ends of lines: of Unix, of Windows and of old Macs."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _long_line(data: bytes, rest: bytes) -> int | None:
    """Find where the first line that is too long begins; ``rest`` goes on after the lines of ``data``."""
    array = np.frombuffer(data, np.uint8)
    begins = np.concatenate(([0], np.flatnonzero((array == ord("\n")) | (array == ord("\r"))) + 1))
    long = np.flatnonzero(np.diff(begins, append=len(data) + len(rest)) > MAX_LINE)
    return int(begins[long[0]]) if long.size else None
