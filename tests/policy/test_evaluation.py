"""Track record, baselines, funnel and parity, on a replay that trades."""

import numpy as np
import pandas as pd
import pytest

from algospace import market
from algospace.policy import baselines as rules
from algospace.policy import evaluation
from algospace.policy.decide import decide
from algospace.policy.params import ExportParams
from algospace.policy.simulation import Simulation

FIRST = 6000


@pytest.fixture(scope="module")
def params(section):
    return section("export", ExportParams).model_copy(update={"bootstrap_draws": 50})


@pytest.fixture(scope="module")
def replay(trading, market_bars):
    return decide(trading, market_bars, trade_from=market_bars["close_utc"].iloc[FIRST])


@pytest.fixture(scope="module")
def baselines(replay, settings, params):
    return rules.baselines(replay.m5, settings, params, FIRST)


def test_funnel_narrows(replay):
    found = evaluation.funnel(replay, FIRST)
    counts = list(found.values())
    assert counts == sorted(counts, reverse=True)
    assert found["bars"] == len(replay.m5) - FIRST
    assert found["synergies"] == (replay.m5["gate1_type"].iloc[FIRST:] != 0).sum()
    assert found["signals"] == (replay.m5["candidate_direction"].iloc[FIRST:] != 0).sum()
    assert found["trades"] == len(replay.simulation.trades) > 0


def test_refusals_count_each_reason(replay):
    found = evaluation.refusals(replay.records)
    assert sum(found.values()) == sum(len(r["reasons"]) for r in replay.records)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    records = [{"reasons": ["b"]}, {"reasons": ["a", "b"]}, {"reasons": []}, {"reasons": ["c"]}]
    assert list(evaluation.refusals(records).items()) == [("b", 2), ("a", 1), ("c", 1)]


def test_parity_is_exact(replay):
    assert evaluation.parity(replay, replay.m5.copy())
    for column in ("momentum_5", "m30_mmd_3", "gate1_quality"):
        other = replay.m5.copy()
        row = int(np.flatnonzero(other[column].notna())[-1])
        other.loc[row, column] = np.nextafter(other.loc[row, column], np.inf)
        assert not evaluation.parity(replay, other)
    assert not evaluation.parity(replay, replay.m5.iloc[:-1])


def test_parity_survives_parquet(replay, tmp_path):
    from algospace import artefacts

    artefacts.write_parquet(tmp_path / "m5.parquet", replay.m5.assign(split=np.int8(0), is_candidate=False))
    assert evaluation.parity(replay, pd.read_parquet(tmp_path / "m5.parquet"))


def test_parity_misses_no_column(replay):
    """A table that lacks a feature is not the same table."""
    assert not evaluation.parity(replay, replay.m5.drop(columns="momentum_5"))


def test_flat_baseline_keeps_the_account(baselines, settings):
    flat = baselines["flat"]
    assert flat.trades.empty
    assert (flat.equity["equity"] == settings.market.account.equity).all()


def test_every_synergy_is_taken_with_fixed_risk(baselines, replay, settings, params):
    taken = baselines["every synergy, fixed risk"]
    trades = taken.trades
    assert len(trades) > 20
    assert set(trades["units"]) == {params.baseline_units}
    assert set(trades["reward_risk"]) == {params.baseline_reward_risk}
    events = replay.m5.iloc[FIRST:]
    events = events[events["gate1_type"] != 0].reset_index(drop=True)
    directions = events["gate1_direction"].to_numpy()[trades["event"]]
    assert trades["side"].tolist() == directions.tolist()
    atr = events["m30_atr"].to_numpy()[trades["event"]]
    np.testing.assert_array_equal(
        trades["stop_distance"], market.stop_distance(atr, params.baseline_stop_atr, settings.contract.tick)
    )
    assert (trades["decided_utc"] >= replay.m5["close_utc"].iloc[FIRST]).all()
    end = settings.market.account.equity + trades["pnl"].sum()
    assert taken.equity["equity"].iloc[-1] == pytest.approx(end, abs=1e-6)


def test_baseline_obeys_the_limits(replay, settings, params):
    limits = settings.market.limits.model_copy(update={"max_session_trades": 1})
    strict = settings._replace(market=settings.market.model_copy(update={"limits": limits}))
    trades = rules.every_synergy(replay.m5, strict, params, FIRST).trades
    assert trades["session_id"].is_unique
    assert len(trades) > 10


def test_track_record_counts_closed_trades(replay, params):
    found = evaluation.track_record(replay.simulation, params, seed=1)
    assert found == evaluation.track_record(replay.simulation, params, seed=1)
    trades = replay.simulation.trades
    still_open = trades["exit_reason"] == market.EXITS[market.OPEN]
    assert found["trades"] == (~still_open).sum()


def test_track_record_leaves_a_trade_that_is_still_open_out(replay, params):
    opened = replay.simulation.trades.copy()
    opened.loc[opened.index[-1], "exit_reason"] = market.EXITS[market.OPEN]
    before = evaluation.track_record(replay.simulation, params, seed=1)
    after = evaluation.track_record(replay.simulation._replace(trades=opened), params, seed=1)
    assert after["trades"] == before["trades"] - 1


def test_track_record_of_no_trade_has_no_ratio(baselines, params):
    found = evaluation.track_record(baselines["flat"], params, seed=1)
    assert found["trades"] == 0
    assert found["sharpe"] is None


def test_track_record_sees_each_session_once(params):
    """Returns are of session ends; the first equity is the account's start."""
    curve = pd.DataFrame(
        {
            "close_utc": pd.date_range("2022-01-03", periods=6, freq="h", tz="UTC"),
            "session_id": [1, 1, 2, 2, 3, 3],
            "equity": [100.0, 110.0, 150.0, 121.0, 90.0, 108.9],
        }
    )
    found = evaluation.track_record(
        Simulation(pd.DataFrame({"exit_reason": [], "net_r": [], "pnl": []}), curve), params, 1
    )
    assert found["sessions"] == 3
    assert found["net_return"] == pytest.approx(0.089)


def test_figures_have_the_names_of_the_metrics(replay, baselines, params):
    simulations = {"policy": replay.simulation, **baselines}
    summaries = {name: evaluation.track_record(s, params, 1) for name, s in simulations.items()}
    found = evaluation.export_figures(replay, summaries, replay.m5, FIRST)
    assert set(found["test"]) == {"policy", "flat", "buy_and_hold", "every_synergy_fixed_risk"}
    assert found["feature_parity"] is True
    assert all(" " not in key for key in found["funnel"])


def test_report_shows_each_decision_once(replay, baselines, params):
    simulations = {"policy": replay.simulation, **baselines}
    summaries = {name: evaluation.track_record(s, params, 1) for name, s in simulations.items()}
    dates = {"test_first": "2022-02-01", "test_last": "2022-03-25"}
    manifest = {"contract": {"symbol": "MES"}, "source": {"kind": "synthetic", "files": []}, "splits": dates}
    vectors = pd.DataFrame({"close_utc": replay.m5["close_utc"].iloc[::6], "regime_0": 0.0})
    half = {"initial": {"with_rate": 0.1}, "trained": {"with_rate": 0.2}}
    validation = {"select": half, "report": half, "calibration": {"slope": 1.0}, "train_candidates": 3}
    page = evaluation.report_data(replay, simulations, summaries, manifest, "id", vectors, validation, FIRST)
    assert page.source["is_synthetic"]
    assert page.decisions["accepted"].sum() == len(replay.simulation.trades)
    np.testing.assert_array_equal(
        page.decisions["net_r"].dropna().to_numpy(), replay.simulation.trades["net_r"].to_numpy()
    )
    assert (page.bars["close_utc"] >= replay.m5["close_utc"].iloc[FIRST]).all()
    start = page.bars["close_utc"].iloc[0]
    assert (page.regimes["close_utc"] <= start).sum() == 1, "the regime at the start, and those that follow"
    assert [row["weights"] for row in page.validation] == ["initial", "trained"] * 2
    assert page.refusals == evaluation.refusals(replay.records)
