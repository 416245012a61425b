"""Golden decisions are made again by the same policy, and by no other."""

import json

import numpy as np
import pytest

from algospace import cli
from algospace.calibration import Calibration
from algospace.data.splits import EMBARGO, REPORT, SELECT, TEST, TRAIN
from algospace.errors import BundleError
from algospace.policy import bundle, golden
from algospace.policy.decide import decide


@pytest.fixture(scope="module")
def bars(market_bars):
    return market_bars.iloc[:10_000]


@pytest.fixture(scope="module")
def contents(trading, bars):
    return golden.contents(trading, bars)


@pytest.fixture
def directory(contents, tmp_path):
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_last_bars_are_kept(trading, bars, contents):
    kept = bars.iloc[-golden.COUNT :].reset_index(drop=True)
    records = [json.loads(line) for line in contents[golden.DECISIONS].decode().splitlines()]
    assert records == decide(trading, kept).records
    assert len(records) > 10
    assert {r["decision"] for r in records} == {"trade", "refuse"}
    assert sum(map(len, contents.values())) < 500_000


def test_same_bytes_again(trading, bars, contents):
    assert golden.contents(trading, bars) == contents


def test_the_policy_makes_them_again(trading, directory, contents):
    assert golden.check(trading, directory) == contents[golden.DECISIONS].count(b"\n")


def test_another_policy_does_not(trading, passing, directory):
    others = [passing, trading._replace(calibration=Calibration(0.0, -5.0))]
    others.append(trading._replace(settings=trading.settings._replace(seed=43)))
    for other in others:
        with pytest.raises(BundleError, match=rf"{golden.DECISIONS}:\d+: [\w.]+: expected .* as written, found"):
            golden.check(other, directory)


@pytest.mark.parametrize("content", [b"{", b"\xff\n"])
def test_decisions_that_are_none_are_refused(trading, directory, content):
    (directory / golden.DECISIONS).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{golden.DECISIONS}: expected a JSON object a line, found"):
        golden.check(trading, directory)


@pytest.mark.parametrize(("by", "passes"), [(1e-7, True), (1e-3, False)])
def test_rounding_passes_and_no_more(trading, directory, by, passes):
    """The last bits of another machine are forgiven."""
    path = directory / golden.DECISIONS
    records = [json.loads(line) for line in path.read_text().splitlines()]
    judged = next(r for r in records if "consensus" in r)
    judged["consensus"]["probability"] += by
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    if passes:
        golden.check(trading, directory)
    else:
        with pytest.raises(BundleError, match=r"consensus\.probability"):
            golden.check(trading, directory)


def test_a_missing_decision_is_named(trading, directory):
    path = directory / golden.DECISIONS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(BundleError, match="decisions written there, found"):
        golden.check(trading, directory)


def test_verify_makes_them_again(trading, contents, tmp_path, capsys):
    bundle.write(tmp_path / "bundle", trading, {}, contents)
    assert cli.main(["verify", str(tmp_path / "bundle")]) == 0
    count = contents[golden.DECISIONS].count(b"\n")
    assert f"{count} golden decisions made again" in capsys.readouterr().out
    lines = contents[golden.DECISIONS].decode().splitlines()
    record = json.loads(lines[-1]) | {"price": 1.0}
    forged = contents | {golden.DECISIONS: "\n".join([*lines[:-1], json.dumps(record)]).encode()}
    bundle.write(tmp_path / "bundle", trading, {}, forged)
    assert cli.main(["verify", str(tmp_path / "bundle")]) == 3
    assert f"{golden.DECISIONS}:{count}: price: expected 1.0" in capsys.readouterr().err


def test_bars_that_are_none_are_refused(trading, directory):
    (directory / golden.BARS).write_bytes(b"PAR1")
    with pytest.raises(BundleError, match="expected bars") as caught:
        golden.check(trading, directory)
    assert "\n" not in str(caught.value)


def test_test_bars_do_not_enter(market_bars):
    """Nor does the embargo before them."""
    codes = np.repeat([TRAIN, EMBARGO, SELECT, EMBARGO, REPORT, EMBARGO, TEST], 10)
    table = market_bars.iloc[: len(codes)].assign(split=codes)
    assert golden.before_test(table)["split"].tolist() == codes[:50].tolist()
