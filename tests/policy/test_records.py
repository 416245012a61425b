"""Every record has the form of the committed JSON Schema, and the schema says no to other forms."""

import copy
import json
from importlib.resources import files

import jsonschema
import pytest

from algospace.policy import records
from algospace.policy.decide import decide

SCHEMA = json.loads(files("algospace.policy").joinpath("decision.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def check():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate


@pytest.fixture(scope="module")
def found(trading, passing, market_bars):
    bars = market_bars.iloc[:8000]
    late = trading.settings.features.model_copy(update={"window_arbitrage": 3000})
    early = decide(trading._replace(settings=trading.settings._replace(features=late)), bars.iloc[:3500])
    return [*early.records, *decide(trading, bars).records, *decide(passing, bars).records]


def of(found, **wanted):
    return next(r for r in found if all(r[key] == value for key, value in wanted.items()))


def test_every_record_has_the_form(found, check):
    kinds = {(record["decision"], record["stage"]) for record in found}
    assert kinds >= {("trade", None), ("refuse", "gate1"), ("refuse", "consensus"), ("refuse", "gate")}
    for record in found:
        check(json.loads(json.dumps(record)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("units",), 0), (("units",), 1.5), (("stage",), "risk"), (("reasons",), ["limit: drawdown"]),
        (("direction",), "up"), (("time",), "2022-01-03 10:00"), (("id",), "MES"), (("synergy", "type"), 5),
        (("consensus", "passes"), 49), (("consensus", "probability"), 1.01), (("consensus", "action"), "buy"),
        (("checks", "risk"), False), (("proposal", "stop_distance"), 0.0), (("regime",), []), (("delay_bars",), 5),
        (("price",), None), (("extra",), 1), (("proposal", "extra"), 1),
    ],
)  # fmt: skip
def test_a_trade_of_another_form_is_none(found, check, path, value):
    record = copy.deepcopy(of(found, decision="trade"))
    *inner, last = path
    part = record
    for key in inner:
        part = part[key]
    part[last] = value
    with pytest.raises(jsonschema.ValidationError):
        check(record)


@pytest.mark.parametrize("key", ["id", "time", "reasons", "stage", "checks", "proposal", "consensus", "delay_bars"])
def test_a_trade_without_a_key_is_none(found, check, key):
    record = dict(of(found, decision="trade"))
    del record[key]
    with pytest.raises(jsonschema.ValidationError):
        check(record)


@pytest.mark.parametrize(
    "changes", [{"units": 1}, {"reasons": []}, {"stage": None}, {"delay_bars": 0}, {"reasons": ["because"]}]
)
def test_a_refusal_of_another_form_is_none(found, check, changes):
    with pytest.raises(jsonschema.ValidationError):
        check(of(found, stage="gate1") | changes)


@pytest.mark.parametrize(
    ("reasons", "stage"),
    [
        ([], None),
        (["consensus: pass", "risk: proposed size is 0", "limit: drawdown"], "consensus"),
        (["confidence: below break-even"], "consensus"),
        (["risk: reward below the limit", "limit: drawdown"], "risk"),
        (["limit: drawdown"], "gate"),
        (["account: a trade is open"], "gate"),
        (["gate1: windows not whole yet"], "gate1"),
    ],
)
def test_the_first_stage_that_refuses_is_named(reasons, stage):
    verdict = records.verdict(reasons, units=2, delay=1)
    assert verdict["stage"] == stage
    assert (verdict["units"], verdict.get("delay_bars")) == ((0, None) if reasons else (2, 1))
    failed = {reason.split(":")[0] for reason in reasons}
    assert {name for name, passed in verdict["checks"].items() if not passed} == failed & set(records.CHECKS)
