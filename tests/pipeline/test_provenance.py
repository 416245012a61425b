"""A bundle's origin is hashes alone; the test bars' uses are counted once a bundle."""

import hashlib
import json

import pandas as pd
import pytest

from algospace.errors import InputError
from algospace.pipeline import provenance

PREPARED = {
    "source": {"kind": "synthetic"},
    "contract": {"symbol": "MES"},
    "splits": {"test_first": "2022-11-01"},
    "quality": {"score": 88.5, "coverage": 1.0},
    "rows": 5,
}


def bars(name):
    return pd.DataFrame({"close": [1.0, 2.0, float(ord(name))]})


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def log():
    return [json.loads(line) for line in provenance.TEST_USES.read_text().splitlines()]


def test_origin_is_the_inputs_hashes_and_the_data(workspace):
    from pathlib import Path

    Path("models").mkdir()
    Path("models/a.safetensors").write_bytes(b"a")
    Path("requirements.lock").write_bytes(b"lock")
    found = provenance.of_bundle(PREPARED, [Path("models/a.safetensors"), Path("requirements.lock")], {"report": 1})
    assert found == {
        "inputs": {
            "models/a.safetensors": hashlib.sha256(b"a").hexdigest(),
            "requirements.lock": hashlib.sha256(b"lock").hexdigest(),
        },
        "data": {key: PREPARED[key] for key in ("source", "contract", "splits")},
        "quality": 88.5,
        "validation": {"report": 1},
    }
    assert str(workspace) not in json.dumps(found)


def test_each_bundle_counts_once():
    assert provenance.count_test_use("one", bars("x")).endswith("judged 1 different bundle here.")
    assert provenance.count_test_use("one", bars("x")).endswith("judged 1 different bundle here.")
    assert provenance.count_test_use("two", bars("x")).endswith("judged 2 different bundles here.")
    assert provenance.count_test_use("one", bars("x")).endswith("judged 2 different bundles here.")
    (key,) = {use["bars"] for use in log()}
    assert log() == [{"bars": key, "bundle": "one"}, {"bars": key, "bundle": "two"}]


def test_other_bars_have_their_own_count():
    for bundle in ("one", "two", "three"):
        provenance.count_test_use(bundle, bars("x"))
    assert "judged 1 different bundle here" in provenance.count_test_use("one", bars("y"))
    assert "judged 3 different bundles here" in provenance.count_test_use("one", bars("x"))
    assert len(log()) == 4


def test_log_holds_no_time_or_host():
    provenance.count_test_use("one", bars("x"))
    assert [set(use) for use in log()] == [{"bars", "bundle"}]


@pytest.mark.parametrize("line", ["{", "[]", '{"bars": "x"}', "7", 10**5 * "["], ids=lambda line: line[:12])
def test_a_damaged_log_is_named_and_kept(line):
    provenance.count_test_use("one", bars("x"))
    damaged = provenance.TEST_USES.read_text() + line + "\n"
    provenance.TEST_USES.write_text(damaged)
    with pytest.raises(InputError, match=r"^logs/test_uses.jsonl:2: expected a JSON object"):
        provenance.count_test_use("two", bars("x"))
    assert provenance.TEST_USES.read_text() == damaged


def test_a_log_that_is_no_text_is_refused():
    provenance.count_test_use("one", bars("x"))
    provenance.TEST_USES.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"^logs/test_uses.jsonl: expected UTF-8, found the byte 0xff"):
        provenance.count_test_use("two", bars("x"))
