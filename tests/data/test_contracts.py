import pytest
from pydantic import ValidationError

from algospace.data.contracts import CONTRACTS, ContractParams, resolve
from algospace.data.sessions import bars_per_session
from algospace.errors import InputError


@pytest.mark.parametrize(
    ("symbol", "tick", "tick_value"),
    [
        ("ES", 0.25, 12.5),
        ("MES", 0.25, 1.25),
        ("NQ", 0.25, 5.0),
        ("CL", 0.01, 10.0),
        ("6E", 0.00005, 6.25),
        ("SPY", 0.01, 1.0),
    ],
)
def test_tick_values(symbol, tick, tick_value):
    contract = resolve(symbol, None)
    assert contract.tick == tick
    assert contract.tick * contract.point_value == pytest.approx(tick_value)


@pytest.mark.parametrize("symbol", CONTRACTS)
def test_every_calendar_is_known(symbol):
    assert bars_per_session(CONTRACTS[symbol].calendar, 5) > 0


def test_an_unknown_symbol_needs_a_contract():
    with pytest.raises(InputError, match=r"data\.symbol: expected one of ES.*found 'DOGE'"):
        resolve("DOGE", None)
    terms = {"tick": 1.0, "point_value": 2.0, "commission": 0.1, "slippage_ticks": 1.0, "calendar": "24/7"}
    assert resolve("DOGE", ContractParams(**terms)).model_dump() == {**terms, "symbol": "DOGE"}


def test_data_calendar_wins():
    assert resolve("ES", None, "CME_Equity").calendar == "CME_Equity"


def test_params_are_checked(data_params):
    for wrong in (
        {"train_fraction": 0.9, "validation_fraction": 0.1},
        {"bar_minutes": 15},
        {"calender": "NYSE"},
    ):
        with pytest.raises(ValidationError):
            data_params(**wrong)
