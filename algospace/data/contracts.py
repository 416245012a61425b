"""What one unit of a traded symbol is: tick, money per point, costs, exchange calendar."""

from pydantic import Field

from algospace.errors import InputError
from algospace.params import Params


class ContractParams(Params):
    """A contract given in ``data.contract`` for a symbol that the table lacks.

    ``tick`` is in price points, ``point_value`` in USD per 1.0 of price and unit traded, ``commission`` in
    USD per unit and side, ``slippage_ticks`` in ticks per market order; ``calendar`` is a name of
    pandas_market_calendars.
    """

    tick: float = Field(gt=0)
    point_value: float = Field(gt=0)
    commission: float = Field(ge=0)
    slippage_ticks: float = Field(ge=0)
    calendar: str = Field(min_length=1)


class Contract(ContractParams):
    """A contract and its symbol; units as in `ContractParams`."""

    symbol: str = Field(min_length=1)


_FULL, _MICRO = 2.25, 0.60  # USD a side: commission, exchange and clearing fees of a retail account
_EQUITY, _CRUDE, _FX = "CME Globex Equity", "CMEGlobex_CL", "CMEGlobex_FX"


def _row(symbol: str, tick: float, point_value: float, commission: float, calendar: str) -> Contract:
    # One tick of slippage a market order: these contracts quote one tick wide nearly all the time.
    return Contract(
        symbol=symbol,
        tick=tick,
        point_value=point_value,
        commission=commission,
        slippage_ticks=1.0,
        calendar=calendar,
    )


CONTRACTS: dict[str, Contract] = {
    contract.symbol: contract
    for contract in (
        _row("ES", 0.25, 50.0, _FULL, _EQUITY),
        _row("MES", 0.25, 5.0, _MICRO, _EQUITY),
        _row("NQ", 0.25, 20.0, _FULL, _EQUITY),
        _row("MNQ", 0.25, 2.0, _MICRO, _EQUITY),
        _row("RTY", 0.10, 50.0, _FULL, _EQUITY),
        _row("M2K", 0.10, 5.0, _MICRO, _EQUITY),
        _row("YM", 1.0, 5.0, _FULL, _EQUITY),
        _row("MYM", 1.0, 0.5, _MICRO, _EQUITY),
        _row("CL", 0.01, 1000.0, _FULL, _CRUDE),
        _row("MCL", 0.01, 100.0, _MICRO, _CRUDE),
        _row("6E", 0.00005, 125_000.0, _FULL, _FX),
        _row("M6E", 0.0001, 12_500.0, _MICRO, _FX),
        _row("SPY", 0.01, 100.0, 0.50, "NYSE"),  # the unit is 100 shares: 0.005 USD a share
    )
}


def resolve(symbol: str, override: ContractParams | None, calendar: str | None = None) -> Contract:
    """Find a symbol's contract.

    Parameters
    ----------
    symbol
        ``data.symbol``.
    override
        ``data.contract``; where it is given it wins over the table.
    calendar
        ``data.calendar``; where it is given it wins over the contract's own calendar.

    Raises
    ------
    InputError
        The table lacks the symbol and there is no override.
    """
    if override is not None:
        contract = Contract(symbol=symbol, **override.model_dump())
    elif symbol in CONTRACTS:
        contract = CONTRACTS[symbol]
    else:
        known = ", ".join(CONTRACTS)
        raise InputError(f"data.symbol: expected one of {known}, or data.contract for another; found {symbol!r}")
    return contract if calendar is None else contract.model_copy(update={"calendar": calendar})
