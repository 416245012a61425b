"""The ``data`` section of ``params.yaml``."""

from datetime import date
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from algospace.data.contracts import ContractParams
from algospace.params import Params

DateOrder = Literal["auto", "iso", "day_first", "month_first"]
Stamp = Literal["start", "end", "last_minute"]
BarMinutes = Literal[1, 5]
Rolls = Literal["none", "column", "quarterly"]


class SyntheticParams(Params):
    """Section ``data.synthetic``: the embedded market (see `algospace.synthetic`)."""

    market: Literal["regimes", "random_walk", "planted"]
    sessions: int = Field(gt=0)
    start: str
    price: float = Field(gt=0)
    annual_volatility: float = Field(gt=0, le=1)
    daily_volume: float = Field(gt=0)

    @field_validator("start")
    @classmethod
    def _iso_date(cls, start: str) -> str:
        try:
            year = date.fromisoformat(start).year
        except ValueError:
            year = 0
        if not 1970 <= year <= 2090:
            raise ValueError("expected an ISO date between 1970 and 2090")
        return start


class AutoEntry(Params):
    """A market of ``data.auto``: its files, and how they are to be read where that differs from the section.

    A key that is left out is the section's; ``contract`` and ``calendar`` are the contract table's, ``rolls`` and
    ``m30_files`` none: what is said of another market never comes along.
    """

    symbol: str = Field(min_length=1)
    files: list[str] = Field(min_length=1)
    contract: ContractParams | None = None
    columns: dict[str, str] | None = None
    date_order: DateOrder | None = None
    timezone: str | None = Field(default=None, min_length=1)
    stamp: Stamp | None = None
    calendar: str | None = None
    bar_minutes: BarMinutes | None = None
    rolls: Rolls = "none"
    m30_files: list[str] = Field(default=[])


class DataParams(Params):
    """Section ``data``: where bars come from, how a file is to be read, how days are split."""

    source: Literal["synthetic", "csv", "parquet", "auto"]
    auto: list[AutoEntry]
    allow_synthetic: bool
    files: list[str]
    symbol: str = Field(min_length=1)
    contract: ContractParams | None
    columns: dict[str, str]
    date_order: DateOrder
    timezone: str = Field(min_length=1)
    stamp: Stamp
    calendar: str | None
    bar_minutes: BarMinutes
    rolls: Rolls
    m30_files: list[str]
    on_invalid: Literal["refuse", "drop"]
    min_quality: float = Field(ge=0, le=100)
    min_sessions: int = Field(gt=0)
    train_fraction: float = Field(gt=0, lt=1)
    validation_fraction: float = Field(gt=0, lt=1)
    embargo_m30_bars: int = Field(ge=0)
    embargo_m5_bars: int = Field(ge=0)
    synthetic: SyntheticParams

    @model_validator(mode="after")
    def _test_remains(self) -> Self:
        if self.train_fraction + self.validation_fraction >= 1:
            raise ValueError("train_fraction + validation_fraction must leave a rest below 1 for the test split")
        return self
