"""Which column of a bar file is which of ours, and what a file hands over block by block."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from algospace.data.bars import VALUES, FloatArray
from algospace.data.params import DataParams
from algospace.errors import InputError

TIMES = ("datetime", "date", "time")
BLOCK_ROWS = 512  # so few lists that the garbage collector does not age them: twice as fast as with 8192
_ALIASES = {
    "datetime": ("datetime", "timestamp"),
    "date": ("date",),
    "time": ("time",),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l", "llow"),
    "close": ("close", "c", "last"),
    "volume": ("volume", "vol", "v", "tickvol"),
    "roll": ("roll",),
}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Block(NamedTuple):
    """Consecutive rows of a file, nothing judged yet."""

    lines: Sequence[int]  # (n,) CSV: line of the text, the header is line 1; Parquet: row, from 1
    cells: dict[str, list[str]]  # texts of our columns; blank in a row with another number of fields
    values: dict[str, FloatArray]  # the columns that the file holds as numbers, so not as texts
    width: Sequence[int]  # (n,) fields found
    expected_width: int
    iso: bool  # the stamps were moments, so their texts are ISO 8601


def match(header: Sequence[str], place: str, params: DataParams) -> dict[str, int]:
    """Find our columns in a header: by ``data.columns`` first, then by alias, whatever the case.

    A ``roll`` column is looked for where ``data.rolls`` is column, and passed over elsewhere.

    Parameters
    ----------
    header
        Titles as they stand in the file.
    place
        FILE:LINE of the header, for the refusal.
    params
        The ``data`` section.

    Returns
    -------
    dict
        Our name -> number of the column.

    Raises
    ------
    InputError
        A column is missing, or two fit.
    """
    override = {ours: _bare(title) for ours, title in params.columns.items()}
    unknown = override.keys() - _ALIASES.keys()
    if unknown:
        raise InputError(f"data.columns: expected {', '.join(_ALIASES)}, found {', '.join(sorted(unknown))}")
    clean = [_bare(title) for title in header]
    columns: dict[str, int] = {}
    for ours, aliases in _ALIASES.items():
        if ours == "roll" and params.rolls != "column":
            continue
        wanted = [override[ours]] if ours in override else [*aliases]
        hits = [
            i
            for i, title in enumerate(clean)
            if (title == wanted[0] if ours in override else re.sub("[ _]", "", title.lower()) in wanted)
            and (ours in override or title not in override.values())
        ]
        if len(hits) > 1:
            titles = ", ".join(_title(header[i]) for i in hits)
            raise InputError(f"{place}: expected one column for {ours}, found {titles}; set data.columns")
        if hits:
            columns[ours] = hits[0]
        elif ours in override:
            raise InputError(
                f"{place}: expected column {params.columns[ours]!r} (data.columns.{ours}), found {_list(header)}"
            )
    for ours in VALUES:
        if ours not in columns:
            raise InputError(f"{place}: expected a column for {ours} (data.columns), found {_list(header)}")
    if params.rolls == "column" and "roll" not in columns:
        raise InputError(
            f"{place}: expected a column for roll (data.rolls is column; data.columns), found {_list(header)}"
        )
    if not columns.keys() & {*TIMES}:
        raise InputError(f"{place}: expected a column for datetime (data.columns), found {_list(header)}")
    return columns


def _bare(title: str) -> str:
    """A title without the brackets that MetaTrader puts round it."""
    return title.strip().strip("<>")


def _list(header: Sequence[str]) -> str:
    shown = ", ".join(map(_title, header[:12]))
    return f"columns {shown}" if len(header) <= 12 else f"columns {shown} and {len(header) - 12} more"


def _title(title: str) -> str:
    return title[:30] if title.isprintable() else repr(title[:30])


def stamps(cells: dict[str, list[str]]) -> list[str]:
    """Make one text of the time columns: a whole stamp where there is one, else date and time together."""
    if "datetime" in cells:
        return cells["datetime"]
    if "date" in cells and "time" in cells:
        return [f"{day.strip()} {time.strip()}" for day, time in zip(cells["date"], cells["time"], strict=True)]
    return cells["date"] if "date" in cells else cells["time"]


def numbers(cells: list[str]) -> npt.NDArray[np.float64]:
    """Read plain decimal numbers; NaN for anything else (hexadecimal, thousands separators, blanks)."""
    try:
        array: npt.NDArray[np.float64] = pa.array(cells, pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # at least one is no number to Arrow, which says only which is the first
        texts = [cell.strip() for cell in cells]
        array = np.array([float(text) if _NUMBER.fullmatch(text) else np.nan for text in texts])
    return array
