"""`algospace features`: anyone's bar file becomes the table that prepare computes, or one line says why not."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from algospace import artefacts, cli
from algospace.features import table

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT.parent / "shared" / "data"
COLUMNS = (
    "start_utc", "close_utc", "open", "high", "low", "close", "volume", "is_synthetic", "session_id", "atr_5m",
    "fvg_bullish_active", "fvg_bearish_active", "fvg_nearest_level", "fvg_age", "fvg_mitigation_signal",
    "m30_close_utc", "m30_ha_open", "m30_ha_high", "m30_ha_low", "m30_ha_close", "m30_mlmi_value", "m30_mlmi_signal",
    "m30_nwrqk_value", "m30_nwrqk_slope", "m30_nwrqk_signal", "m30_lvn_nearest_price", "m30_lvn_nearest_strength",
    "m30_lvn_distance_points", "m30_lvn_support_price", "m30_lvn_support_strength", "m30_lvn_resistance_price",
    "m30_lvn_resistance_strength", "gate1_type", "gate1_direction", "gate1_bars_to_complete", "gate1_quality",
    *(f"m30_mmd_{i}" for i in range(12)),
)  # fmt: skip


@pytest.fixture
def workspace(tmp_path, monkeypatch, fitted_state):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    artefacts.write_tensors(tmp_path / "data/prepared/fitted.safetensors", fitted_state.tensors(), {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_data(**values):
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["data"] |= values
    Path("params.yaml").write_text(yaml.safe_dump(params))


def write_csv(bars, path):
    frame = bars[["start_utc", "open", "high", "low", "close", "volume"]].copy()
    frame["start_utc"] = frame["start_utc"].dt.strftime("%Y-%m-%d %H:%M:%S")
    frame.rename(columns={"start_utc": "Datetime"}).to_csv(path, index=False)


def run(*arguments):
    return cli.main(["features", *map(str, arguments)])


def test_the_table_is_that_of_prepare(workspace, market_bars, settings, fitted_state, capsys):
    bars = market_bars.iloc[:4000]
    write_csv(bars, workspace / "bars.csv")
    assert run("bars.csv", "--out", "out.parquet") == 0
    assert "4000 rows, 5-minute bars" in capsys.readouterr().out
    found = pd.read_parquet("out.parquet")
    expected = table.build(bars, settings.contract, settings.indicators, settings.gate1, fitted_state.reference).m5
    pd.testing.assert_frame_equal(found, expected.reset_index(drop=True), check_exact=True)
    assert set(COLUMNS) <= set(found.columns)
    first = (workspace / "out.parquet").read_bytes()
    assert run("bars.csv", "--out", "again.parquet") == 0
    assert (workspace / "again.parquet").read_bytes() == first


def test_half_hour_bars_give_their_part(workspace, market_bars, settings, fitted_state, capsys):
    from algospace.data.bars import resample

    m30 = resample(market_bars.iloc[:4000])
    write_csv(m30, workspace / "bars.csv")
    assert run("bars.csv", "--out", "out.parquet") == 0
    assert f"{len(m30)} rows, 30-minute bars" in capsys.readouterr().out
    found = pd.read_parquet("out.parquet")
    built = table.build(
        market_bars.iloc[:4000], settings.contract, settings.indicators, settings.gate1, fitted_state.reference
    )
    wanted = [name for name in COLUMNS if name.startswith("m30_") and name != "m30_close_utc"]
    for name in wanted:
        np.testing.assert_array_equal(found[name], built.m30[name.removeprefix("m30_")])
    assert found["m30_close_utc"].equals(found["close_utc"])


@pytest.mark.parametrize(
    ("sample", "symbol", "rows"),
    [("nq_30min_eth_2020_2025.csv.gz", "NQ", 56_083), ("cl_30min_eth_2020_2025.csv.gz", "CL", 59_217)],
)
def test_real_half_hours(workspace, capsys, sample, symbol, rows):
    if not (SAMPLES / sample).exists():
        pytest.skip(f"{sample} is not here")
    set_data(symbol=symbol, timezone="Asia/Jerusalem")
    assert run(SAMPLES / sample, "--out", "out.parquet") == 0
    found = pd.read_parquet("out.parquet")
    assert (~found["is_synthetic"]).sum() == rows
    assert found["close_utc"].is_monotonic_increasing
    assert found["close_utc"].is_unique
    late = found.iloc[1000:]
    for name in ("m30_mlmi_value", "m30_nwrqk_slope", "m30_mmd_0", "m30_atr", "m30_lvn_nearest_price"):
        assert late[name].notna().mean() > 0.98, name
    assert late["m30_lvn_nearest_strength"].dropna().between(0, 100).all()


def test_real_spy(workspace):
    sample = SAMPLES / "spy_5min_2018_2019.csv.gz"
    if not sample.exists():
        pytest.skip(f"{sample.name} is not here")
    set_data(symbol="SPY", stamp="last_minute")
    assert run(sample, "--out", "out.parquet") == 0
    found = pd.read_parquet("out.parquet")
    assert (~found["is_synthetic"]).sum() == 38_598
    assert (found["gate1_type"] != 0).sum() > 50


def refused(capsys, arguments, *words):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for word in words:
        assert str(word) in err
    assert not Path("out.parquet").exists()


def test_refusals(workspace, market_bars, capsys):
    write_csv(market_bars.iloc[:600], workspace / "bars.csv")
    refused(capsys, ["none.csv", "--out", "out.parquet"], "none.csv")
    refused(capsys, ["bars.csv", "--out", "out.csv"], "--out: expected a name that ends in .parquet")
    refused(capsys, ["bars.csv", "--out", "out.parquet", "--fitted", "."], "fitted.safetensors", "dvc repro prepare")
    refused(capsys, ["bars.csv", "--out", "out.parquet", "--params", "p.yaml"], "p.yaml")
    text = (workspace / "bars.csv").read_text().splitlines()
    (workspace / "bars.csv").write_text("\n".join([*text[:9], text[9].replace("2022", "2o22"), *text[10:]]))
    refused(capsys, ["bars.csv", "--out", "out.parquet"], "bars.csv:10: expected a date")


def test_poor_bars_are_computed_and_said_to_be_poor(workspace, market_bars, capsys):
    write_csv(market_bars.iloc[:3000:1].drop(index=range(700, 1400)), workspace / "bars.csv")
    assert run("bars.csv", "--out", "out.parquet") == 0
    assert "is below data.min_quality (70)" in capsys.readouterr().err


def test_nothing_of_the_users_is_overwritten(workspace, market_bars, capsys):
    write_csv(market_bars.iloc[:600], workspace / "bars.csv")
    pd.read_csv("bars.csv").to_parquet("bars.parquet")
    before = Path("bars.parquet").read_bytes()
    assert run("bars.parquet", "--out", "./bars.parquet") == 2
    assert "which it would overwrite" in capsys.readouterr().err
    assert Path("bars.parquet").read_bytes() == before
    Path("folder.parquet").mkdir()
    Path("file").touch()
    for out in ("folder.parquet", "file/x.parquet"):
        assert run("bars.csv", "--out", out) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert out.partition("/")[0] in err


def test_under_auto_a_file_is_read_as_its_entry_says(workspace, market_bars, capsys):
    set_data(source="auto")
    write_csv(market_bars.iloc[:600], workspace / "ES_5min.csv")
    assert run("ES_5min.csv", "--out", "out.parquet") == 0
    write_csv(market_bars.iloc[:600], workspace / "SPY_5min.csv")  # not New York's hours
    assert run("SPY_5min.csv", "--out", "spy.parquet") == 2
    assert "inside a session of NYSE" in capsys.readouterr().err
