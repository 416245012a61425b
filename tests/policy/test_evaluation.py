"""The judgement of a replay that trades: costs, chance, evidence, breakdowns, calibration, tables."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from algospace import market, performance, report, trials
from algospace.calibration import Calibration
from algospace.data import sessions
from algospace.errors import InputError
from algospace.features import windows
from algospace.policy import breakdown, evaluation, outputs, page
from algospace.policy.decide import decide
from algospace.policy.params import ExportParams
from algospace.policy.simulation import Simulation
from algospace.trials import Trials

FIRST, LAST = 6000, 9500
TRIED = Trials(12, 0.8, None, "3 configurations have daily returns on the same sessions, 10 are needed")


@pytest.fixture(scope="module")
def params(section):
    return section("export", ExportParams).model_copy(
        update={"bootstrap_draws": 50, "random_draws": 20, "min_trades": 10}
    )


@pytest.fixture(scope="module")
def bars(market_bars):
    return market_bars.iloc[:LAST]


@pytest.fixture(scope="module")
def found(trading, bars, params):
    idle = trading._replace(calibration=Calibration(0.0, -9.0))
    return evaluation.evaluate(trading, bars, params, TRIED, bars["close_utc"].iloc[FIRST], against=idle)


@pytest.fixture(scope="module")
def replay(found):
    return found.replay


def test_funnel_narrows(replay):
    steps = breakdown.funnel(replay)
    counts = list(steps.values())
    assert counts == sorted(counts, reverse=True)
    assert steps["bars"] == len(replay.m5) - FIRST
    assert steps["synergies"] == (replay.m5["gate1_type"].iloc[FIRST:] != 0).sum()
    assert steps["signals"] == (replay.m5["candidate_direction"].iloc[FIRST:] != 0).sum()
    assert steps["trades"] == len(replay.simulation.trades) > 10


def test_refusals_count_each_reason(replay):
    counts = breakdown.refusals(replay.records)
    assert sum(counts.values()) == sum(len(r["reasons"]) for r in replay.records)
    records = [{"reasons": ["b"]}, {"reasons": ["a", "b"]}, {"reasons": []}, {"reasons": ["c"]}]
    assert list(breakdown.refusals(records).items()) == [("b", 2), ("a", 1), ("c", 1)]


def test_parity_is_exact(replay):
    assert evaluation.parity(replay, replay.m5.copy())
    for column in ("momentum_5", "m30_mmd_3", "gate1_quality"):
        other = replay.m5.copy()
        row = int(np.flatnonzero(other[column].notna())[-1])
        other.loc[row, column] = np.nextafter(other.loc[row, column], np.inf)
        assert not evaluation.parity(replay, other)
    assert not evaluation.parity(replay, replay.m5.iloc[:-1])
    assert not evaluation.parity(replay, replay.m5.drop(columns="momentum_5"))


def test_parity_survives_parquet(replay, tmp_path):
    from algospace import artefacts

    artefacts.write_parquet(tmp_path / "m5.parquet", replay.m5.assign(split=np.int8(0), is_candidate=False))
    assert evaluation.parity(replay, pd.read_parquet(tmp_path / "m5.parquet"))


def test_every_record_is_summarised(found):
    assert list(found.records) == list(found.summaries)
    assert list(found.records) == ["policy", "other policy", "flat", "buy and hold", "every synergy, fixed risk"]
    policy = found.summaries["policy"]
    closed = breakdown.closed_trades(found.replay.simulation.trades)
    assert policy["trades"] == len(closed) >= 10
    assert policy["mean_r_low"] < policy["mean_r"] < policy["mean_r_high"]
    assert policy["random_p_value"] is not None
    assert found.summaries["other policy"]["trades"] == 0
    assert found.summaries["buy and hold"]["exposure"] == 1.0


def test_a_trade_that_is_still_open_does_not_count(found, params):
    opened = found.replay.simulation.trades.copy()
    opened.loc[opened.index[-1], "exit_reason"] = market.EXITS[market.OPEN]
    given = (found.replay.m5, found.settings, params, FIRST)
    before = evaluation.summary("policy", found.replay.simulation, *given)
    after = evaluation.summary("policy", found.replay.simulation._replace(trades=opened), *given)
    assert after["trades"] == before["trades"] - 1


def test_equity_has_each_session_once():
    curve = pd.DataFrame({"session_id": [1, 1, 2, 2, 3, 3], "equity": [100.0, 110.0, 150.0, 121.0, 90.0, 108.9]})
    np.testing.assert_array_equal(evaluation.equity_of(Simulation(pd.DataFrame(), curve)), [100, 110, 121, 108.9])


def test_the_year_has_the_sessions_of_the_calendar(settings):
    curve = pd.DataFrame({"session_id": [20220103, 20221230, 20230105]})
    listed = len(sessions.sessions(settings.contract.calendar, "2022-01-01", "2023-12-31"))
    assert evaluation.sessions_per_year(settings.contract, curve) == listed / 2
    assert 250 < listed / 2 < 262


def test_gross_is_net_plus_costs_by_hand(settings):
    """MES, two units: a target pays one slippage, a stop two; a tick is 1.25 USD, a commission 0.6 a side."""
    trades = pd.DataFrame(
        {"units": [2, 2], "exit_reason": ["target", "stop"], "pnl": [97.6, -104.9], "costs": [2.4, 2.4]}
    )
    costs = evaluation.with_costs(trades, settings)
    assert costs["slippage"].tolist() == [2.5, 5.0]
    assert costs["commission"].tolist() == [2.4, 2.4]
    assert costs["gross_pnl"].tolist() == pytest.approx([102.5, -97.5])


def test_gross_is_what_the_same_fills_earn_without_costs(found):
    """At prices without slippage: recomputed from entry and exit prices."""
    trades = evaluation.with_costs(found.replay.simulation.trades, found.settings)
    slip = found.settings.contract.slippage_ticks * found.settings.contract.tick
    side, target = trades["side"], trades["exit_reason"] == "target"
    entry, leave = trades["entry"] - side * slip, trades["exit"] + side * slip * ~target
    money = trades["units"] * found.settings.contract.point_value
    np.testing.assert_allclose(trades["gross_pnl"], side * (leave - entry) * money, atol=1e-6)


def test_activity_by_hand(settings, params):
    """One session of four bars, a trade of two bars of one unit at 4000 that loses its costs."""
    trades = pd.DataFrame(
        {"units": [1], "exit_reason": ["stop"], "pnl": [-3.7], "costs": [1.2], "entry": [4000.0], "exit": [4000.0],
         "bars": [2]}
    )  # fmt: skip
    curve = pd.DataFrame({"session_id": [1] * 4, "equity": [50_000.0, 50_000.0, 49_996.3, 49_996.3]})
    few = params.model_copy(update={"min_trades": 2})
    found = evaluation.activity(Simulation(trades, curve), settings, few, per_year=250.0)
    assert found["exposure"] == 0.5
    assert found["costs"] == pytest.approx(3.7)
    assert found["gross_return"] == pytest.approx(0.0, abs=1e-9)
    assert found["turnover"] == pytest.approx(2 * 4000 * 5 / curve["equity"].mean() * 250, rel=1e-5)
    assert found["cost_share"] is None


def test_ratios_need_trades(found, params):
    strict = params.model_copy(update={"min_trades": 1000})
    record, settings = found.replay.simulation, found.settings
    summary = evaluation.summary("policy", record, found.replay.m5, settings, strict, FIRST)
    ratios = ("sharpe", "sortino", "calmar", "win_rate", "profit_factor", "mean_r", "cost_share", "random_p_value")
    assert all(summary[name] is None for name in ratios)
    evidence = evaluation.evidence_of(record, settings.contract, strict, TRIED)
    assert evidence["probabilistic_sharpe"] is evidence["deflated_sharpe"] is evidence["minimum_sessions"] is None
    rows = [row for rows in breakdown.breakdowns(found.replay, strict, 0).values() for row in rows]
    assert {row["mean_r"] for row in rows} == {None}


def test_evidence_is_deflated_by_the_trials(found, params):
    settings, record = found.settings, found.replay.simulation
    evidence = found.evidence
    assert evidence["trials"] == 12
    assert evidence["deflated_sharpe"] < evidence["probabilistic_sharpe"]
    alone = evaluation.evidence_of(record, settings.contract, params, trials.judged([]))
    assert alone["deflated_sharpe"] is None
    assert alone["probabilistic_sharpe"] == evidence["probabilistic_sharpe"]
    returns = performance.simple_returns(evaluation.equity_of(record))
    year = evaluation.sessions_per_year(settings.contract, record.equity)
    expected = evaluation.evidence.deflated_sharpe(returns, 12, 0.8 / np.sqrt(year))
    assert evidence["deflated_sharpe"] == pytest.approx(expected, rel=1e-5)


def test_breakdowns_share_out_every_event_and_trade(found):
    closed = breakdown.closed_trades(found.replay.simulation.trades)
    assert list(found.breakdowns) == ["archetype", "synergy", "hour", "month"]
    for rows in found.breakdowns.values():
        assert sum(row["events"] for row in rows) == len(found.replay.records)
        assert sum(row["trades"] for row in rows) == len(closed)
        assert sum(row["net_pnl"] for row in rows) == pytest.approx(closed["pnl"].sum(), rel=1e-4)
    hours = {row["group"] for row in found.breakdowns["hour"]}
    stamp = pd.Timestamp(found.replay.records[0]["time"]).tz_convert("America/New_York")
    assert f"{stamp.hour:02d}:00" in hours
    judged = {row["group"] for row in found.breakdowns["archetype"]}
    assert judged <= {"calm", "volatile", breakdown.UNJUDGED}


def test_confidence_is_judged_on_synergies_where_it_was_calibrated_on_these(trading, found, bars):
    rows = found.replay.rows(trading)
    whole = windows.complete(rows, trading.settings.features)
    m5, first = found.replay.m5, found.replay.first_row
    judged = evaluation.confidence_on_candidates(trading, m5, rows, whole, first, "synergies")
    expected = ((m5["gate1_type"].to_numpy() != 0) & whole)[first:].sum()
    assert 0 < judged.counts.sum() == expected < found.confidence.counts.sum()


def test_confidence_is_judged_on_every_whole_candidate(found):
    wanted = (found.replay.m5["candidate_direction"].iloc[FIRST:] != 0).sum()
    assert 0 < outputs.candidates(found) <= wanted
    assert outputs.candidates(found) > found.funnel["synergies"]
    assert found.confidence.stated.min() > 0.9  # this policy's calibration says so whatever happens


def test_the_other_policy_is_compared_session_by_session(found):
    ours, theirs = (evaluation.equity_of(found.records[name]) for name in ("policy", "other policy"))
    paired = np.diff(ours) / ours[:-1] - np.diff(theirs) / theirs[:-1]
    assert found.difference["mean_return"] == pytest.approx(paired.mean(), rel=1e-5)
    assert found.difference["mean_return_low"] < paired.mean() < found.difference["mean_return_high"]


def test_the_difference_is_paired_by_hand(params):
    """Session returns 0.1, 0.0 against 0.05, -0.05: 0.05 in both, so that no resample says anything else."""
    ours, theirs = (
        Simulation(pd.DataFrame(), pd.DataFrame({"session_id": [1, 1, 2], "equity": [100.0, first, second]}))
        for first, second in ((110.0, 110.0), (105.0, 99.75))
    )
    found = evaluation.difference(ours, theirs, params.model_copy(update={"min_trades": 2}), 0)
    assert found == {"sessions": 2, "mean_return": 0.05, "mean_return_low": 0.05, "mean_return_high": 0.05}
    found = evaluation.difference(ours, theirs, params.model_copy(update={"min_trades": 3}), 0)
    assert found == {"sessions": 2, "mean_return": 0.05, "mean_return_low": None, "mean_return_high": None}


def test_net_is_gross_less_costs_while_a_trade_is_open(found, trading, bars, params, settings):
    """Cut inside a trade, the equity holds its gain so far and what its entry has cost."""
    trade = found.records["policy"].trades.query("bars > 4").iloc[-1]
    cut = int((bars["close_utc"] <= trade["entry_utc"]).sum()) + 2
    record = decide(trading, bars.iloc[:cut], bars["close_utc"].iloc[FIRST]).simulation
    assert record.trades["exit_reason"].iloc[-1] == market.EXITS[market.OPEN]
    known = evaluation.activity(record, settings, params, 252.0)
    equity = record.equity["equity"]
    net = equity.iloc[-1] / equity.iloc[0] - 1
    assert known["gross_return"] - known["costs"] / equity.iloc[0] == pytest.approx(net, abs=1e-7)
    closed = evaluation.with_costs(record.trades.iloc[:-1], settings)
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    entry = trade["units"] * (costs.commission + costs.slippage * costs.point_value)
    assert known["costs"] == pytest.approx((closed["commission"] + closed["slippage"]).sum() + entry, rel=1e-5)
    marked = trade["side"] * (bars["close"].iloc[cut - 1] - trade["entry"]) + costs.slippage
    gross = closed["gross_pnl"].sum() + trade["units"] * costs.point_value * marked
    assert known["gross_return"] == pytest.approx(gross / equity.iloc[0], rel=1e-5)


def test_bars_that_end_too_early_are_refused(trading, bars, params):
    with pytest.raises(InputError, match="expected bars from"):
        evaluation.evaluate(trading, bars, params, TRIED, pd.Timestamp("2040-01-01", tz="UTC"))


def test_tables_and_figures_are_written_the_same_twice(found, tmp_path):
    for name in ("one", "two"):
        outputs.write(tmp_path / name, found)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(
        ["evaluation.json", *(f"{t}.{form}" for t in ("trades", "decisions", "equity") for form in ("csv", "parquet"))]
    )
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    trades = pd.read_parquet(tmp_path / "one/trades.parquet")
    assert (trades["record"] == "policy").sum() == len(found.replay.simulation.trades)
    assert set(trades["record"]) == {"policy", "every synergy, fixed risk"}
    np.testing.assert_allclose(trades["pnl"], trades["gross_pnl"] - trades["commission"] - trades["slippage"])
    assert len(pd.read_csv(tmp_path / "one/trades.csv")) == len(trades)
    decisions = pd.read_parquet(tmp_path / "one/decisions.parquet")
    assert len(decisions) == len(found.replay.records)
    assert (decisions["decision"] == "trade").sum() == found.funnel["gate 2"]
    assert decisions["net_r"].notna().sum() == len(found.replay.simulation.trades)
    equity = pd.read_parquet(tmp_path / "one/equity.parquet")
    assert list(equity) == ["close_utc", "session_id", "policy", "other_policy", "flat", "buy_and_hold",
                            "every_synergy_fixed_risk"]  # fmt: skip
    assert len(equity) == LAST - FIRST


def test_tables_without_a_trade_keep_their_types(found, tmp_path):
    none = found._replace(
        records={name: found.records[name] for name in ("other policy", "flat")} | {"policy": found.records["flat"]},
        replay=found.replay._replace(records=[], simulation=found.records["flat"]),
    )
    for name, given in (("none", none), ("some", found)):
        outputs.write(tmp_path / name, given)
    for table in ("trades.parquet", "decisions.parquet"):
        assert pq.read_metadata(tmp_path / "none" / table).num_rows == 0
        assert pq.read_schema(tmp_path / "none" / table) == pq.read_schema(tmp_path / "some" / table)


def test_metrics_are_flat_and_json(found):
    metrics = outputs.metrics(found, True)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert set(metrics["test"]) == {"policy", "other_policy", "flat", "buy_and_hold", "every_synergy_fixed_risk"}
    assert metrics["feature_parity"] is True
    assert all(not isinstance(value, dict | list) for part in metrics["test"].values() for value in part.values())
    assert all(" " not in key for key in metrics["funnel"])


def test_the_page_shows_each_decision_once(found):
    of_half = dict.fromkeys(
        ("candidates", "always_with_mean_r", "always_against_mean_r", "random_mean_r", "random_p_value"), 0.5
    )
    rules = {"consensus": {"trades": 12, "session_mean_r": 0.345}, "deployed": {"trades": 3, "session_mean_r": 0.678}}
    half = of_half | {"initial": {"with_rate": 0.1234}, "trained": {"with_rate": 0.2}, "traded": rules}
    columns = page.validation({"select": half, "report": half})
    data = page.report_data(
        found, {"kind": "csv", "files": []}, "ab" * 32, TRIED, "Once.", "test bars", columns, "cd" * 32
    )
    assert not data.source["is_synthetic"]
    assert data.decisions["accepted"].sum() == found.funnel["gate 2"]
    np.testing.assert_array_equal(
        data.decisions["net_r"].dropna().to_numpy(), found.replay.simulation.trades["net_r"].to_numpy()
    )
    assert (data.bars["close_utc"] >= found.replay.m5["close_utc"].iloc[FIRST]).all()
    assert (data.regimes["close_utc"] <= data.bars["close_utc"].iloc[0]).sum() == 1
    assert [name.split(",")[0] for name in data.validation] == ["trained", "untrained"] * 2
    html = report.render(data)
    assert "Votes with the signal" in html
    assert "12.3\u00a0%" in html
    assert "+0.345" in html
    assert "+0.678" in html
    assert report.words(data).split(".")[0] in html
    assert "other policy" in html
    assert TRIED.overfitting_why_not in html
