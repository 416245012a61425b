"""The ``data`` section of ``params.yaml``."""

from datetime import date
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from algospace.data.contracts import ContractParams
from algospace.params import Params


class SyntheticParams(Params):
    """Section ``data.synthetic``: the embedded market (see `algospace.synthetic`)."""

    market: Literal["regimes", "random_walk"]
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


class DataParams(Params):
    """Section ``data``: where bars come from, how a file is to be read, how days are split."""

    source: Literal["synthetic", "csv", "parquet"]
    files: list[str]
    symbol: str = Field(min_length=1)
    contract: ContractParams | None
    columns: dict[str, str]
    date_order: Literal["auto", "iso", "day_first", "month_first"]
    timezone: str = Field(min_length=1)
    stamp: Literal["start", "end", "last_minute"]
    calendar: str | None
    bar_minutes: Literal[1, 5]
    rolls: Literal["none", "column", "quarterly"]
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
