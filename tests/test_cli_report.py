"""`algospace report`, `monitor` and `trials`: files, exit codes, refusals in one line."""

import json

import numpy as np
import pytest

from algospace import cli, trials
from algospace.data import splits as splits_module
from algospace.policy import bundle, monitor
from algospace.policy.params import ExportParams
from algospace.trials import Trial

FIRST, LAST = 5000, 8000
CUTS = (FIRST - 1000, FIRST - 500, FIRST)  # where select, report and test begin


@pytest.fixture(scope="module")
def bundles(trading, passing, market_bars, section, tmp_path_factory):
    """A bundle that knows its train and how it is judged, another, and one that knows neither."""
    root = tmp_path_factory.mktemp("bundles")
    judging = section("export", ExportParams).model_copy(update={"bootstrap_draws": 20, "random_draws": 20})
    train = monitor.reference(monitor.see(trading, market_bars.iloc[:FIRST]))
    known = {
        "data": {"source": {"kind": "synthetic"}}, "train": train, "export": judging.model_dump(mode="json"),
        "training": {"marl": {"train_on": "signals"}},
    }  # fmt: skip
    bundle.write(root / "trading", trading, known)
    bundle.write(root / "passing", passing, known)
    splits = splits_module.boundaries(market_bars, np.digitize(np.arange(len(market_bars)), CUTS).astype(np.int8))
    bundle.write(root / "learnt", trading, known | {"data": {"source": {"kind": "csv"}, "splits": splits}})
    bundle.write(root / "bare", trading, {})
    return root


def as_csv(bars, path, volume=1.0):
    table = bars[["start_utc", "open", "high", "low", "close", "volume"]].rename(columns={"start_utc": "datetime"})
    table["datetime"] = table["datetime"].dt.strftime("%Y-%m-%d %H:%M:%S")
    table.assign(volume=table["volume"] * volume).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def csv(market_bars, tmp_path_factory):
    return as_csv(market_bars.iloc[:LAST], tmp_path_factory.mktemp("bars") / "bars.csv")


@pytest.fixture
def start(market_bars):
    return market_bars["close_utc"].iloc[FIRST].isoformat()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No project around: the bundle is enough."""
    monkeypatch.chdir(tmp_path)


def refused(capsys, code, *argv):
    assert cli.main([str(a) for a in argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_report_writes_page_and_tables(bundles, csv, start, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["report", bundles / "trading", csv, "--against", bundles / "passing", "--out", out, "--from", start]
    assert cli.main([str(a) for a in argv]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == str(out / "report.html")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert said[0].split(".")[0] in page
    assert "other policy" in page
    assert "bars.csv (sha256 " in page
    assert sorted(path.name for path in out.iterdir()) == [
        "decisions.csv", "decisions.parquet", "equity.csv", "equity.parquet", "evaluation.json", "report.html",
        "trades.csv", "trades.parquet",
    ]  # fmt: skip
    assert json.loads((out / "evaluation.json").read_text())["funnel"]["bars"] == LAST - FIRST


def test_report_refuses(bundles, csv, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    bars = bundles / "trading", csv
    assert "--out" in refused(capsys, 2, "report", *bars, "--out", tmp_path / "file")
    assert "--from" in refused(capsys, 2, "report", *bars, "--out", tmp_path / "o", "--from", "soon")
    assert "2040" in refused(capsys, 2, "report", *bars, "--out", tmp_path / "o", "--from", "2040-01-01")
    assert "none.csv" in refused(capsys, 2, "report", bars[0], tmp_path / "none.csv", "--out", tmp_path / "o")
    assert "none" in refused(capsys, 3, "report", *bars, "--against", tmp_path / "none", "--out", tmp_path / "o")
    assert "provenance.export" in refused(capsys, 3, "report", bundles / "bare", csv, "--out", tmp_path / "o")
    assert "params" in refused(capsys, 2, "report", *bars, "--out", tmp_path / "o", "--params", tmp_path / "params")
    assert not (tmp_path / "o").exists()


def test_monitor_tells_drift_by_its_exit_code(bundles, csv, market_bars, tmp_path, capsys):
    quiet = as_csv(market_bars.iloc[:FIRST], tmp_path / "train.csv")
    assert cli.main(["monitor", str(bundles / "trading"), str(quiet)]) == 0
    table = capsys.readouterr().out
    assert table.rstrip().endswith("like train")
    assert table.count("\ninput") == 36
    assert "drifted\n" not in table
    other = market_bars.iloc[:LAST].copy()
    other[["open", "high", "low", "close"]] = 4000 + 8 * (other[["open", "high", "low", "close"]] - 4000)
    wild = as_csv(other[other["close"] > 1000].iloc[:1500], tmp_path / "wild.csv")
    code = cli.main(["monitor", str(bundles / "trading"), str(wild)])
    out, err = capsys.readouterr()
    assert (code, "drifted" in out) == (1, True), err


def test_monitor_says_what_it_could_not_judge(bundles, market_bars, tmp_path, capsys):
    few = as_csv(market_bars.iloc[:60], tmp_path / "few.csv")
    assert "go on after the features' warm-up" in refused(capsys, 2, "monitor", bundles / "trading", few)
    some = as_csv(market_bars.iloc[: FIRST // 2], tmp_path / "some.csv")
    assert cli.main(["monitor", str(bundles / "trading"), str(some)]) in (0, 1)
    *table, last = capsys.readouterr().out.splitlines()
    left = sum(line.endswith("not judged") for line in table)
    assert left > 0
    assert last.startswith(f"{left} not judged, of too few values; ")


def test_bars_of_train_are_told_from_others(bundles, csv, market_bars, tmp_path, capsys):
    day = str(market_bars["close_utc"].iloc[FIRST + 600])
    for argv in (["monitor", bundles / "learnt", csv], ["report", bundles / "learnt", csv, "--out", tmp_path / "o"]):
        assert cli.main([str(a) for a in argv]) in (0, 1)
        warning = capsys.readouterr().err
        assert "sessions are of the time that the bundle was trained and chosen on" in warning
        assert warning.count("\n") == 1
        assert cli.main([str(a) for a in (*argv, "--from", day)]) in (0, 1)
        assert capsys.readouterr().err == ""
    assert "trained and chosen on" not in (tmp_path / "o/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["decide", "report", "monitor", "features"])
def test_bars_that_are_no_file_are_refused_before_all_else(command, tmp_path, capsys):
    bundle_dir = [] if command == "features" else [tmp_path / "no bundle"]
    out = ["--out", tmp_path / "o.parquet"] if command in ("report", "features") else []
    for bars, found in ((tmp_path, "a directory"), (tmp_path / "none.csv", "none")):
        said = refused(capsys, 2, command, *bundle_dir, bars, *out)
        assert said == f"error: {bars}: expected a bar file, found {found}\n"


def test_monitor_needs_a_bundle_that_knows_train(bundles, csv, capsys):
    assert "provenance.train" in refused(capsys, 3, "monitor", bundles / "bare", csv)


def test_trials_are_listed(tmp_path, capsys):
    (tmp_path / "metrics").mkdir()
    trials.add([Trial("0123456789ab", "bold-idea", 1.25, {"marl.folds": 3}, [], None)])
    assert cli.main(["trials", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0123456789ab", "bold-idea", "1.25", "marl.folds=3"]
    assert lines[2].startswith("1 configurations")


def test_trials_outside_a_project_are_refused(capsys):
    assert "expected a DVC repository" in refused(capsys, 2, "trials")


@pytest.mark.parametrize(
    ("command", "entry", "content"),
    [
        ("report", "export", {"min_trades": "many"}),
        ("report", "export", []),
        ("report", "training", {"marl": {}}),
        ("report", "data", {"train_first": "long ago"}),
        ("monitor", "data", {"test_first": "soon"}),
        ("monitor", "train", {"judged": 3, "inputs": {"close": []}}),
        ("monitor", "train", []),
    ],
)
def test_forged_provenance_is_refused(bundles, csv, tmp_path, capsys, command, entry, content):
    policy, manifest = bundle.load(bundles / "learnt")
    data = manifest["provenance"]["data"]
    if entry == "data":
        content = data | {"splits": data["splits"] | content}
    bundle.write(tmp_path / "forged", policy, manifest["provenance"] | {entry: content})
    out = ["--out", tmp_path / "out"] if command == "report" else []
    assert f"manifest.json: provenance.{entry}" in refused(capsys, 3, command, tmp_path / "forged", csv, *out)


@pytest.mark.parametrize("data", [[], {"source": "csv"}, {"source": []}, None])
def test_what_a_bundle_was_trained_on_is_unknown_where_it_does_not_say(data):
    assert bundle.source_kind({"provenance": {"data": data}}) == "unknown"
    assert bundle.source_kind({"provenance": []}) == "unknown"
