import pytest

from algospace.data import sources
from algospace.data.contracts import resolve as contract_of
from algospace.data.sources import Resolved
from algospace.errors import InputError


@pytest.fixture
def auto(data_params):
    return lambda **changes: data_params(**{"source": "auto", "symbol": "MES", **changes})


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_another_source_stays_as_it_is(tmp_path, data_params):
    for source in ("synthetic", "csv", "parquet"):
        params = data_params(source=source)
        assert sources.resolve(params, tmp_path) == Resolved(params, [])


@pytest.mark.parametrize(
    "name",
    ["ES  5 min.csv", "ES - 5 min.csv", "ES_5min.csv.gz", "es_5min_2020.csv", "ES 5 min 2020.csv.gz"],
)
def test_es_comes_first(tmp_path, auto, name):
    touch(tmp_path, name, "SPY_5min.csv", "README.md", f"{name}.dvc")
    params, tried = sources.resolve(auto(), tmp_path)
    assert (params.source, params.symbol, params.files) == ("csv", "ES", [name])
    assert tried == []


@pytest.mark.parametrize("name", ["spy_5min_2018_2019.csv.gz", "SPY - 5 min.csv"])
def test_spy_is_the_fallback_and_why_is_told(tmp_path, auto, name):
    touch(tmp_path, name, "ES - 30 min.csv", "ES 15 min.csv", "MES_5min.csv")
    params, tried = sources.resolve(auto(), tmp_path)
    assert (params.source, params.symbol, params.files) == ("csv", "SPY", [name])
    assert [item["symbol"] for item in tried] == ["ES"]
    assert tried[0]["reason"].startswith("no file matches ES* 5 min*.csv, ")
    assert tried[0]["reason"].endswith(f" below {tmp_path.as_posix()}")


def test_parquet_files_in_folders_and_in_order(tmp_path, auto):
    touch(tmp_path, "b/2021.parquet", "b/2020.parquet", "a.csv")
    entry = {"symbol": "ES", "files": ["b/*.parquet", "*.csv"]}
    params, _ = sources.resolve(auto(auto=[entry]), tmp_path)
    assert (params.source, params.files) == ("parquet", ["b/2020.parquet", "b/2021.parquet"])


def test_an_entry_says_how_its_files_are_read(tmp_path, auto):
    touch(tmp_path, "x.csv")
    entry = {
        "symbol": "X", "files": ["x.csv"], "timezone": "Asia/Jerusalem", "stamp": "end", "date_order": "day_first",
        "bar_minutes": 1, "columns": {"close": "Px"}, "calendar": "24/7",
        "contract": {"tick": 1.0, "point_value": 1.0, "commission": 0.0, "slippage_ticks": 0.0, "calendar": "NYSE"},
    }  # fmt: skip
    params, _ = sources.resolve(auto(auto=[entry]), tmp_path)
    read = params.model_dump()
    assert {key: read[key] for key in entry} == entry
    assert contract_of(params.symbol, params.contract, params.calendar).calendar == "24/7"


def test_what_an_entry_leaves_out_is_the_sections_but_for_its_contract(tmp_path, auto):
    touch(tmp_path, "SPY_5min.csv")
    own = {"tick": 1.0, "point_value": 1.0, "commission": 0.0, "slippage_ticks": 0.0, "calendar": "24/7"}
    params, _ = sources.resolve(auto(stamp="last_minute", contract=own, calendar="24/7"), tmp_path)
    assert params.stamp == "last_minute"
    assert contract_of(params.symbol, params.contract, params.calendar) == contract_of("SPY", None)


def test_synthetic_bars_only_where_they_are_allowed(tmp_path, auto):
    with pytest.raises(InputError, match=r"data\.auto: expected a file .*ES: no file matches .*SPY: no file matches"):
        sources.resolve(auto(), tmp_path)
    params, tried = sources.resolve(auto(allow_synthetic=True), tmp_path)
    assert (params.source, params.symbol) == ("synthetic", "MES")
    assert [item["symbol"] for item in tried] == ["ES", "SPY"]


def test_two_kinds_of_file_are_refused(tmp_path, auto):
    touch(tmp_path, "a.csv", "b.parquet")
    with pytest.raises(InputError, match=r"data\.auto: expected CSV or Parquet files for ES, found both: a\.csv, b"):
        sources.resolve(auto(auto=[{"symbol": "ES", "files": ["*"]}]), tmp_path)


def test_a_damaged_first_choice_is_refused_not_passed_over(tmp_path, auto):
    touch(tmp_path, "ES_5min.csv", "SPY_5min.csv")
    params, _ = sources.resolve(auto(), tmp_path)
    with pytest.raises(InputError, match=r"ES_5min\.csv:1: expected a header and bars, found an empty file"):
        sources.load(params, contract_of("ES", None), tmp_path)


def test_load_wants_a_resolved_source(tmp_path, auto):
    with pytest.raises(ValueError, match="resolve it first"):
        sources.load(auto(), contract_of("ES", None), tmp_path)


def test_rolls_and_half_hours_of_one_market_do_not_come_along_to_another(tmp_path, auto):
    touch(tmp_path, "SPY_5min.csv")
    params, _ = sources.resolve(auto(rolls="quarterly", m30_files=["es30.csv"]), tmp_path)
    assert (params.symbol, params.rolls, params.m30_files) == ("SPY", "none", [])
    es = auto().auto[0].model_copy(update={"rolls": "quarterly", "m30_files": ["es30.csv"]})
    touch(tmp_path, "ES_5min.csv")
    params, _ = sources.resolve(auto().model_copy(update={"auto": [es]}), tmp_path)
    assert (params.symbol, params.rolls, params.m30_files) == ("ES", "quarterly", ["es30.csv"])
