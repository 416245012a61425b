"""5-minute bars from Yahoo through yfinance (extra ``download``), and the CSV file that keeps them.

Yahoo serves 5-minute bars of about the last 60 days and never again, so the file only grows: a bar that was
downloaded once stays as it is, and an answer that contradicts it is refused.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from algospace.artefacts import write_bytes
from algospace.errors import InputError

MAX_DAYS = 59
_PRICES = ["open", "high", "low", "close"]
_HEADER = "datetime,open,high,low,close,volume"
_STAMP = "%Y-%m-%dT%H:%M:%SZ"  # with its zone: read alike whatever data.timezone says
_ROW = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:00Z(,-?\d+\.\d+){4},\d+", re.ASCII)
_SYMBOL = re.compile(r"[A-Z0-9.^=-]{1,20}")


class Kept(NamedTuple):
    """What a file of downloaded bars holds."""

    bars: int
    new: int  # of them, those that it did not hold before
    first: str  # ISO, start of the first bar in UTC
    last: str
    days: int  # different dates


def download(symbol: str, days: int) -> pd.DataFrame:
    """Fetch the regular sessions of the last days that have ended.

    Parameters
    ----------
    symbol
        As Yahoo writes it.
    days
        How far back, at most `MAX_DAYS`.

    Returns
    -------
    DataFrame
        ``datetime`` (bar start, UTC), ``open, high, low, close`` (not adjusted for dividends), ``volume``.

    Raises
    ------
    InputError
        yfinance is not installed, the service cannot be reached, or its answer has no bar of such a session.
    """
    if not _SYMBOL.fullmatch(symbol):
        raise InputError(f"--symbol: expected capital letters, digits and .^=- only, found {symbol!r}")
    if not 1 <= days <= MAX_DAYS:
        raise InputError(
            f"--days: expected 1 to {MAX_DAYS}, as Yahoo serves 5-minute bars of the last 60 days only; found {days}"
        )
    bars = _ask(symbol, days)
    if bars.empty:
        raise InputError(f"{symbol}: expected 5-minute bars of a session that has ended from Yahoo, found none")
    return bars


def finished(answer: pd.DataFrame, ends: pd.Series, clock: pd.Timestamp) -> pd.DataFrame:
    """Keep the whole bars of the sessions that have ended.

    A session has ended when the last trade that the answer knows is not before its end. So what is kept hangs on
    the answer alone, and neither a bar that is still open nor one that late reports of today may change is in it.

    Parameters
    ----------
    answer
        yfinance's history: Open, High, Low, Close, Volume by bar start.
    ends
        End of each regular session of the answer.
    clock
        Moment of the last regular trade that the answer knows.

    Returns
    -------
    DataFrame
        As `download` has it. Bars without a trade (null in the answer) are left out.
    """
    over = ends[ends <= clock].max()  # NaT, so before no bar, when no session has ended
    rows = answer[answer.index < over].rename(columns=str.lower).dropna(subset=_PRICES)
    # The service's numbers are of single precision (631.2000122070312); no stock trades in less than 0.0001.
    prices = rows[_PRICES].astype("float64").round(4)
    table = prices.assign(volume=rows["volume"].astype("int64"))
    table.insert(0, "datetime", rows.index.tz_convert("UTC"))
    return table.reset_index(drop=True)


def keep(path: Path, bars: pd.DataFrame) -> Kept:
    """Add downloaded bars to their file, whole or not at all; the rows that it holds stay byte for byte.

    Parameters
    ----------
    path
        CSV of earlier downloads, or no file yet.
    bars
        As `download` gives them.

    Raises
    ------
    InputError
        The file is none of ours or cannot be written, DVC tracks one that is not checked out, or a bar in it differs
        from ``bars``.
    """
    old = _read(path)
    rows = bars.to_csv(index=False, date_format=_STAMP, lineterminator="\n").splitlines()[1:]
    new = {_stamp(row): row for row in rows}
    for line, (stamp, row) in enumerate(old.items(), 2):
        if new.get(stamp, row) != row:
            raise InputError(
                f"{path}:{line}: expected the bar that was downloaded before ({row}), found {new[stamp]}; "
                "the file stays as it is, --out takes the new bars to another"
            )
    merged = new | old
    stamps = sorted(merged)
    try:
        write_bytes(path, "\n".join([_HEADER, *(merged[stamp] for stamp in stamps), ""]).encode())
    except OSError as error:
        raise InputError(f"{path}: expected a place to write the bars to, found {_line(error)}") from None
    return Kept(len(merged), len(merged) - len(old), stamps[0], stamps[-1], len({stamp[:10] for stamp in stamps}))


def _read(path: Path) -> dict[str, str]:
    """Read the rows of earlier downloads by their stamps, in their order."""
    tracked = path.with_name(f"{path.name}.dvc")
    if not path.exists():
        if tracked.exists():
            raise InputError(f"{path}: expected the bars that {tracked} tracks, found none; run `dvc pull {tracked}`")
        return {}
    try:
        *lines, rest = path.read_bytes().decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected the CSV of an earlier download, found {_line(error)}") from None
    if lines[:1] != [_HEADER]:
        found_header = [*lines, rest][0][:80]
        raise InputError(f"{path}:1: expected the header of an earlier download ({_HEADER}), found {found_header!r}")
    if rest:
        raise InputError(f"{path}:{len(lines) + 1}: expected a whole line, found {rest[:80]!r}")
    found: dict[str, str] = {}
    last = ""
    for line, row in enumerate(lines[1:], 2):
        if not _ROW.fullmatch(row) or _stamp(row) <= last:
            raise InputError(f"{path}:{line}: expected a later bar as a download writes it, found {row[:80]!r}")
        last = _stamp(row)
        found[last] = row
    return found


def _stamp(row: str) -> str:
    return row.partition(",")[0]


def _ask(symbol: str, days: int) -> pd.DataFrame:
    """Get what is `finished` of Yahoo's answer, every failure as one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's own imports are not the user's affair
            import yfinance
    except ImportError:
        raise InputError(
            "expected yfinance, found none: run "
            "`pip install -c requirements.lock -c requirements-dev.lock -e '.[download]'`"
        ) from None
    with _raising(yfinance):
        try:
            ticker = yfinance.Ticker(symbol)
            answer = ticker.history(period=f"{days}d", interval="5m", prepost=False, auto_adjust=False, actions=False)
            meta = ticker.history_metadata
            return finished(answer, meta["tradingPeriods"]["end"], meta["regularMarketTime"])
        except Exception as error:  # no network, a refusal, an answer of another form: each has its own
            raise InputError(f"{symbol}: expected 5-minute bars from Yahoo, found {_line(error)}") from None


@contextmanager
def _raising(yfinance: Any) -> Iterator[None]:
    """Let yfinance raise what it would log, and keep it and its parsers from writing to stderr."""
    debug, disabled = yfinance.config.debug, logging.root.manager.disable
    hidden = debug.hide_exceptions
    debug.hide_exceptions = False
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        debug.hide_exceptions = hidden


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
