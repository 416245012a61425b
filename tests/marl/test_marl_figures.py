import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import trim_mean

from algospace.calibration import Calibration
from algospace.env import AGAINST, PASS, WITH
from algospace.marl import engine, figures
from algospace.marl.exams import Judged

DAYS = np.arange(20240101, 20240131)  # more sessions than have candidates


def what_pays(candidates):
    """The side that pays at the next open, PASS where neither does."""
    r = candidates.net_r[:, :, 0]
    return np.where(r.max(axis=1) > 0, r.argmax(axis=1) + 1, PASS)


def judged(candidates, action, delay=0, confidence=0.5):
    action = np.asarray(action)
    n = len(action)
    return Judged(
        action,
        np.full(n, delay),
        np.full(n, confidence),
        figures._net_r(action, np.full(n, delay), candidates),
        np.where(np.arange(n) % 4, 3, 2),
        np.full(n, 0.25),
    )


def half(made, params, settings, action, n=120):
    given = made(n)
    trained = judged(given.candidates, action(given.candidates))
    initial = judged(given.candidates, np.full(n, PASS))
    return figures._half(initial, trained, given, Calibration(1.0, 0.0), params(), settings)


def test_who_knows_what_pays_beats_every_shift(made, params, settings):
    found = half(made, params, settings, what_pays)
    assert found["trained"]["mean_r"] == pytest.approx(80 / 120)
    assert found["trained"]["taken_mean_r"] == 1.0
    assert found["random_p_value"] == pytest.approx(1 / 201)
    assert found["random_mean_r"] < 0.0
    assert found["changed_rate"] == pytest.approx(80 / 120)
    assert found["initial"]["mean_r"] == 0.0
    assert found["trained"]["unanimous_rate"] == 0.75
    assert found["trained"]["epistemic"] == 0.25


def test_chance_is_told_from_skill(made, params, settings):
    """The share of p values below 5 % of teams that guess is about 5 %."""
    rng = np.random.default_rng(0)
    p = [
        half(made, params, settings, lambda c: rng.choice([PASS, WITH, AGAINST], len(c.row)))["random_p_value"]
        for _ in range(60)
    ]
    assert np.mean(np.array(p) < 0.05) < 0.15
    assert 0.3 < np.mean(p) < 0.7


def test_runs_of_actions_over_runs_of_outcomes_are_no_skill(made, params, settings):
    """Actions that change once in 30 candidates, outcomes too: chance agrees or not for long."""
    rng = np.random.default_rng(1)
    given = made(240)
    p = []
    for _ in range(60):
        pays = np.repeat(rng.choice([-1.0, 1.0], 8), 30)
        net_r = np.repeat(np.stack([pays, -pays], axis=1)[:, :, None], 5, axis=2)
        candidates = given.candidates._replace(net_r=net_r)
        trained = judged(candidates, np.repeat(rng.choice([WITH, AGAINST], 8), 30))
        found = figures._half(
            trained, trained, given._replace(candidates=candidates), Calibration(1.0, 0.0), params(), settings
        )
        p.append(found["random_p_value"])
    assert np.mean(np.array(p) < 0.05) < 0.15


def test_figures_of_synergies_are_theirs_alone(made, params, settings):
    def action(c):
        chosen = np.full(len(c.row), PASS)
        chosen[::5] = what_pays(c)[::5]
        return chosen

    found = half(made, params, settings, action)
    assert found["synergies"] == 24
    assert found["trained"]["synergy_mean_r"] == pytest.approx(120 / 24 * found["trained"]["mean_r"])


def test_confident_are_those_over_break_even(made, params, settings):
    given = made(120)
    sure, doubtful = (
        figures._half(
            judged(given.candidates, np.full(120, PASS)), judged(given.candidates, np.full(120, WITH), confidence=c),
            given, Calibration(1.0, 0.0), params(), settings,
        )
        for c in (0.9, 0.2)
    )  # fmt: skip
    assert sure["confident_rate"] == 1.0
    assert sure["confident_mean_r"] == pytest.approx(sure["always_with_mean_r"])
    assert doubtful["confident_rate"] == 0.0
    assert doubtful["confident_mean_r"] is None


def runs(table):
    def one(values):
        return SimpleNamespace(judged={h: SimpleNamespace(net_r=np.array([v])) for h, v in values.items()})

    return [one({"select": s, "report": r}) for s, r in table]


def test_every_seed_is_shown_with_the_mean_of_the_middle(params):
    table = [(0.1, 0.5), (0.2, -9.0), (0.3, 0.1), (0.4, 0.3)]
    found = figures.seeds(runs(table), params(seeds=(5, 6, 7, 8)), 3, 0)
    assert found["exported"] == 8
    assert [found["report"][f"seed_{k}_mean_r"] for k in (5, 6, 7, 8)] == [0.5, -9.0, 0.1, 0.3]
    assert found["report"]["interquartile_mean_r"] == pytest.approx(0.2)  # of 0.1 and 0.3: the -9 does not count
    assert found["report"]["interquartile_mean_r"] == trim_mean([0.5, -9.0, 0.1, 0.3], 0.25)
    assert found["report"]["interquartile_mean_r_low"] < 0.1 < found["report"]["interquartile_mean_r_high"]


def test_one_seed_has_no_interval(params):
    found = figures.seeds(runs([(0.1, 0.2)]), params(seeds=(0,)), 0, 0)
    assert found["report"]["interquartile_mean_r"] == 0.2
    assert found["report"]["interquartile_mean_r_low"] is found["report"]["interquartile_mean_r_high"] is None


def test_daily_results_and_their_sharpe_ratio_by_hand(made, params, settings):
    """One trade a session: with the signal at the first candidate, against it, none."""
    given, days = made(31), np.array([20231229, 20240101, 20240102, 20240103, 20240104])  # three of ten, two of few
    given.candidates.net_r[0:30:10, 0] = np.array([1.0, -0.5, 2.0])[:, None]
    given.candidates.net_r[0:30:10, 1] = np.array([-1.0, 0.5, -2.0])[:, None]
    first = np.arange(31) % 10 == 0
    runs = [
        SimpleNamespace(judged={"report": judged(given.candidates, np.where(first, action, PASS))})
        for action in (WITH, AGAINST, PASS)
    ]
    table = pd.read_csv(io.StringIO(figures.daily(runs, params(seeds=(0, 4, 7)), given, days, settings)), sep="\t")
    assert table.columns.tolist() == ["session_id", "seed_0", "seed_4", "seed_7"]
    assert table["session_id"].tolist() == days.tolist()
    assert table["seed_4"].tolist() == pytest.approx([0.0, -1.0, 0.5, -2.0, 0.0])
    of_a_day = [0, 1, -0.5, 2, 0]
    a_year = (258 + 260) / 2  # sessions of 2023 and 2024 by the contract's calendar
    found = figures.sharpe(runs[0].judged["report"], given, days, settings)
    assert found == pytest.approx(np.mean(of_a_day) / np.std(of_a_day, ddof=1) * a_year**0.5)


def test_what_is_traded_in_time_order_is_less_than_what_is_voted_for(made, params, settings):
    """Trades of 15 bars, candidates every six: while one is open the next two are nobody's."""
    given = made(120, hold=15)
    n, team = 120, engine.new_team(params(), given.candidates.context, given.candidates.net_r[:, :, 0], 0)
    trained = judged(given.candidates, np.full(n, WITH), confidence=0.9)
    found = figures.traded(team, trained, given, DAYS, Calibration(1.0, 0.0), params(), settings)
    assert set(found) == {"sampled", "consensus", "deployed", "every_signal", "every_synergy"}
    assert found["consensus"] == found["every_signal"]
    assert 0 < found["consensus"]["trades"] <= 40
    synergies = given.synergies[: n - 1].sum()
    assert found["every_synergy"]["trades"] == found["deployed"]["trades"] <= synergies, "all of them are confident"
    assert found["every_synergy"]["total_r"] == pytest.approx(len(DAYS) * found["every_synergy"]["session_mean_r"])
    doubtful = judged(given.candidates, np.full(n, WITH), confidence=0.1)
    found = figures.traded(team, doubtful, given, DAYS, Calibration(1.0, 0.0), params(), settings)
    assert found["deployed"]["trades"] == 0
    unsized = given.candidates.proposal._replace(units=np.zeros((n, 2), np.int64))
    given = given._replace(candidates=given.candidates._replace(proposal=unsized))
    found = figures.traded(team, trained, given, DAYS, Calibration(1.0, 0.0), params(), settings)
    assert found["deployed"]["trades"] == 0
    assert found["sampled"]["trades"] > 0
