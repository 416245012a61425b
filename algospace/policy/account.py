"""The state of an account between two bars: what a simulation can go on from, as JSON."""

from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, FiniteFloat, ValidationError, field_validator, model_validator

from algospace.errors import InputError
from algospace.params import Params

Exit = Literal["stop", "target", "time", "session end"]
MOST = 2**31 - 1  # of whatever is counted


class ClosedTrade(Params):
    """One closed trade: what M-RMS knows of it."""

    units: int = Field(ge=1, le=MOST)
    stop_atr: FiniteFloat = Field(gt=0)  # the stop in 30-minute ATR, as it was proposed
    reward_risk: FiniteFloat = Field(ge=0)
    confidence: FiniteFloat = Field(ge=0, le=1)  # of the proposed size
    exit: Exit
    net_r: FiniteFloat
    bars: int = Field(ge=1, le=MOST)
    pnl: FiniteFloat  # USD, net
    session_id: int  # YYYYMMDD of its exit


class WorkingOrder(Params):
    """An order that waits for its fill, or the trade that it has become."""

    direction: Literal["long", "short"]
    units: int = Field(ge=1, le=MOST)
    stop_distance: FiniteFloat = Field(gt=0)  # in price
    reward_risk: FiniteFloat = Field(ge=0)
    stop_atr: FiniteFloat = Field(gt=0)
    confidence: FiniteFloat = Field(ge=0, le=1)
    wait: int = Field(ge=0, le=MOST)  # bars to pass before it fills at an open
    entry: FiniteFloat | None = Field(gt=0)  # price of the fill, null before
    held: int = Field(ge=0, le=MOST)  # bars since the fill, that of the fill included

    @model_validator(mode="after")
    def _filled_or_not(self) -> Self:
        if (self.entry is None) != (self.held == 0):
            raise ValueError("expected held of at least 1 with an entry, and 0 without one")
        return self


class AccountState(Params):
    """An account after the close of a bar; what belongs to a session is that of ``session_id``."""

    time: str | None = None  # ISO, of that close; bars up to it are history. None: before the first bar
    close: FiniteFloat | None = Field(default=None, gt=0)  # price of that close: a trade may be left at it
    session_close: str | None = None  # ISO, when the session of that bar ends
    equity: FiniteFloat  # USD, of closed trades; a loss may have gone beyond the account
    peak: FiniteFloat = Field(gt=0)  # highest equity so far
    session_id: int | None = None  # YYYYMMDD; None: the next bar begins a session
    session_start: FiniteFloat | None = None  # equity at the session's start; None: the equity
    session_trades: int = Field(default=0, ge=0, le=MOST)
    losing_streak: int = Field(default=0, ge=0, le=MOST)  # losses in a row within the session
    trades: list[ClosedTrade] = Field(default=[])  # oldest first
    working: WorkingOrder | None = None

    @field_validator("time", "session_close")
    @classmethod
    def _iso(cls, time: str | None) -> str | None:
        try:
            zoned = time is None or datetime.fromisoformat(time).tzinfo is not None
        except ValueError:
            zoned = False
        if not zoned:
            raise ValueError(f"expected an ISO time with its zone, found {time!r}")
        return time

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.peak < self.equity:
            raise ValueError(f"expected a peak of at least the equity {self.equity:g}, found {self.peak:g}")
        if self.working is not None and self.session_id is None:
            raise ValueError("expected the session_id that the working order belongs to, found none")
        bar = {"time": self.time, "close": self.close, "session_close": self.session_close}
        missing = [name for name, value in bar.items() if value is None]
        if missing and self.working is not None and self.working.entry is not None:
            raise ValueError(f"expected the {missing[0]} of the last bar of an open trade, found none")
        return self


def read(path: Path) -> AccountState:
    """Read an account's state from a JSON file.

    Raises
    ------
    InputError
        For a file that is missing or no such JSON: names the file, the key, what was expected and what was found.
    """
    try:
        return AccountState.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise InputError(f"{path}: expected the JSON file of an account, found nothing there") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected the JSON file of an account, found a directory") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        told = first["msg"].removeprefix("Value error, ")
        found = "" if first["type"] in ("missing", "value_error", "json_invalid") else f", found {first['input']!r:.60}"
        raise InputError(f"{path}: {key + ': ' if key else ''}{told[:1].lower()}{told[1:]}{found}") from None
