"""The record of trials: read, refused by line, added once, and what it says of the best of them."""

import json

import numpy as np
import pytest

from algospace import trials
from algospace.errors import InputError
from algospace.trials import Trial

PARAMS = {"seed": 42, "marl": {"ppo": {"gamma": 0.9}, "seeds": [0, 1]}, "export": {"min_trades": 30}}


def trial(number, sharpe=0.5, daily=None, sessions=(20221128, 20221227)):
    return Trial(f"{number:012d}", f"run-{number}", sharpe, {"marl.ppo.gamma": 0.9}, list(sessions), daily)


def test_what_is_added_is_read_back_and_never_twice(tmp_path):
    path = tmp_path / "trials.jsonl"
    assert trials.read(path) == []
    assert trials.add([trial(1), trial(2), trial(1)], path) == [trial(1), trial(2)]
    first = path.read_bytes()
    assert trials.add([trial(2, sharpe=9.0)], path) == []
    assert path.read_bytes() == first
    assert trials.add([trial(3)], path) == [trial(3)]
    assert path.read_bytes().startswith(first)
    assert trials.read(path) == [trial(1), trial(2), trial(3)]


LINE = trial(1)._asdict()


@pytest.mark.parametrize(
    "line",
    ["", "[]", "{", json.dumps(LINE | {"sharpe": "high"}), json.dumps(LINE | {"sharpe": None}),
     json.dumps(LINE).replace("0.5", "NaN"), json.dumps(LINE | {"more": 1}), json.dumps(LINE | {"daily": {}}),
     json.dumps(LINE | {"daily": {"seed_0": [1, "x"]}}), json.dumps(LINE | {"sessions": "2022"}),
     json.dumps(LINE | {"daily": {"seed_0": [1, 2], "seed_1": [1]}}), json.dumps(LINE | {"sharpe": 10**400}),
     json.dumps(LINE | {"daily": {"seed_0": [10**400]}}), 10**5 * "["],
)  # fmt: skip
def test_a_line_that_is_no_trial_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "trials.jsonl"
    trials.add([trial(7)], path)
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    with pytest.raises(InputError, match=r"trials\.jsonl:2: expected"):
        trials.read(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"trials\.jsonl: expected UTF-8, found the byte 0xff"):
        trials.read(path)


def test_a_configuration_twice_is_refused(tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_text(2 * (json.dumps(LINE) + "\n"))
    with pytest.raises(InputError, match=r":2: expected each configuration once"):
        trials.read(path)


def test_a_configuration_is_what_moves_a_validation_figure():
    name = trials.config_hash(PARAMS)
    assert trials.config_hash(dict(reversed(PARAMS.items()))) == name
    assert trials.config_hash(PARAMS | {"export": {"min_trades": 5}, "runtime": {"threads": 3}}) == name
    assert trials.config_hash(PARAMS | {"seed": 43}) != name


def test_changes_are_the_keys_that_differ():
    other = {"seed": 42, "marl": {"ppo": {"gamma": 0.8}, "seeds": [0, 1]}, "export": {"min_trades": 30}}
    assert trials.changes(other, PARAMS) == {"marl.ppo.gamma": 0.8}
    assert trials.changes(PARAMS, PARAMS) == {}


def test_fewer_than_two_have_no_spread():
    assert trials.judged([]).deviation is None
    found = trials.judged([trial(1)])
    assert (found.tried, found.deviation, found.overfitting) == (1, None, None)
    found = trials.judged([trial(1, 0.5), trial(2, 1.5)])
    assert found.deviation == pytest.approx(np.sqrt(0.5))
    assert found.overfitting_why_not.startswith("0 configurations have daily returns")


def daily(number, seeds=2, sessions=40, edge=0.0):
    rng = np.random.default_rng(number)
    return {f"seed_{k}": (rng.normal(size=sessions) + edge).tolist() for k in range(seeds)}


def test_overfitting_needs_ten_configurations_on_the_same_sessions():
    nine = [trial(k, daily=daily(k)) for k in range(9)]
    elsewhere = [trial(50 + k, daily=daily(k), sessions=(20230102, 20230131)) for k in range(3)]
    assert trials.judged(nine + elsewhere).overfitting is None
    assert "9 configurations" in trials.judged(nine + elsewhere).overfitting_why_not
    ten = [*nine, trial(9, daily=daily(9))]
    found = trials.judged(ten + elsewhere)
    assert 0.0 < found.overfitting <= 1.0
    assert found.overfitting_why_not == ""
    assert trials.daily_returns(ten + elsewhere)[1].shape == (40, 20)
    best = [*ten, trial(10, daily=daily(10, edge=3.0))]
    assert trials.judged(best).overfitting == 0.0


def test_overfitting_compares_nothing_between_two_markets():
    """A synthetic market of another seed has the same days, other prices."""
    drawn, real = {"source": "synthetic"}, {"source": "csv", "files": ["a.csv"]}
    markets = [trials.market_hash({"data": data, "seed": seed}) for data in (drawn, real) for seed in (42, 43)]
    assert markets[0] != markets[1]
    assert markets[2] == markets[3], "a file's bars are the same under any seed"
    planted = {"data": {"source": "synthetic", "synthetic": {"market": "planted"}}, "seed": 42}
    assert len({trials.market_hash(planted | {"gate1": {"window": k}}) for k in (10, 30)}) == 2, "events follow signals"
    nine = [trial(k, daily=daily(k))._replace(market=markets[0]) for k in range(9)]
    elsewhere = [trial(50 + k, daily=daily(k))._replace(market=markets[1]) for k in range(3)]
    assert trials.daily_returns(nine + elsewhere)[0] == 9


def test_a_line_without_an_end_is_not_written_on(tmp_path):
    path = tmp_path / "trials.jsonl"
    trials.add([trial(1)], path)
    path.write_bytes(path.read_bytes().rstrip())
    trials.add([trial(2)], path)
    assert trials.read(path) == [trial(1), trial(2)]


def test_a_line_of_before_has_no_market(tmp_path):
    line = trial(1)._asdict()
    del line["market"]
    (tmp_path / "trials.jsonl").write_text(json.dumps(line) + "\n")
    assert trials.read(tmp_path / "trials.jsonl") == [trial(1)]


def test_too_few_sessions_say_so():
    ten = [trial(k, daily=daily(k, sessions=3)) for k in range(10)]
    assert trials.judged(ten).overfitting_why_not == "3 sessions are too few"
