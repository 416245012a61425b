"""The command line: what it prints, and how it refuses: one line on stderr and an exit code, no traceback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from algospace import __version__, cli
from algospace.policy import account, bundle
from algospace.policy.decide import decide

ROOT = Path(__file__).parents[1]
PROVENANCE = {"data": {"source": {"kind": "synthetic"}}}


@pytest.fixture(scope="module")
def bundle_dir(trading, tmp_path_factory):
    directory = tmp_path_factory.mktemp("cli") / "bundle"
    bundle.write(directory, trading, PROVENANCE)
    return directory


@pytest.fixture(scope="module")
def first_bars(market_bars):
    return market_bars.iloc[:9000]


@pytest.fixture(scope="module")
def csv(first_bars, tmp_path_factory):
    """The bars as someone's file: stamps of the bar's start, in UTC."""
    table = first_bars[["start_utc", "open", "high", "low", "close", "volume"]].rename(
        columns={"start_utc": "datetime"}
    )
    table["datetime"] = table["datetime"].dt.strftime("%Y-%m-%d %H:%M:%S")
    path = tmp_path_factory.mktemp("bars") / "bars.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, argv, code, *words):
    assert cli.main([str(a) for a in argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    for word in words:
        assert str(word) in err


def test_params(workspace, capsys):
    assert cli.main(["params"]) == 0
    assert capsys.readouterr().out == "params.yaml: every section is valid\n"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed: 42 ", "seed: x ", "seed: "),
        ("threads: 2 ", "threads: 0 ", "runtime.threads: "),
        ("source: synthetic ", "source: web ", "data.source: "),
        ("h: 8.0 ", "h: wide ", "indicators.nwrqk.h: "),
        ("cooldown: 5 ", "cooldown: -5 ", "gate1.cooldown: "),
        ("window_5m: 60 ", "window_5m: 6.5 ", "features.window_5m: "),
        ("max_bars: 100 ", "max_bar: 100 ", "market.max_bar"),
        ("latent_dim: 8 ", "latent_dim: 0 ", "rde.latent_dim: "),
        ("hidden_dim: 64 ", "hidden_dim: [64] ", "mrms.hidden_dim: "),
        ("train_on: signals ", "train_on: nothing ", "marl.train_on: "),
        ("min_trades: 30 ", "min_trades: 1 ", "export.min_trades: "),
    ],
)
def test_params_names_the_wrong_key_of_every_section(workspace, capsys, old, new, key):
    path = workspace / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    refused(capsys, ["params"], 2, f"params.yaml: {key}")


def test_params_without_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(capsys, ["params"], 2, "params.yaml: expected the parameter file")


def test_profile_there_and_back(workspace, capsys):
    before = (workspace / "params.yaml").read_bytes()
    assert cli.main(["profile", "prd"]) == 0
    out = capsys.readouterr().out
    assert "gate1.window: 30 -> 10\n" in out
    assert cli.main(["profile", "prd"]) == 0
    assert capsys.readouterr().out == "params.yaml: already at profile prd\n"
    assert cli.main(["profile", "default"]) == 0
    assert "gate1.window: 10 -> 30\n" in capsys.readouterr().out
    assert (workspace / "params.yaml").read_bytes() == before


def test_unknown_profile(workspace, capsys):
    refused(capsys, ["profile", "big"], 2, "expected one of default, bench, full, legacy200, prd, prop_firm, found big")


def test_metrics_of_the_last_run(workspace, capsys):
    (workspace / "metrics").mkdir()
    (workspace / "metrics/export.json").write_text('{"test": {"policy": {"sharpe": null, "trades": 0}}}')
    (workspace / "metrics/prepare.json").write_text('{"bars": 5}')
    assert cli.main(["metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["prepare"], ["bars", "5"], ["rde:", "no", "run", "yet"], ["mrms:", "no", "run", "yet"],
        ["marl:", "no", "run", "yet"], ["export", "(test", "bars:", "not", "for", "selection)"],
        ["test.policy.sharpe", "-"], ["test.policy.trades", "0"],
    ]  # fmt: skip


def test_verify(bundle_dir, capsys):
    assert cli.main(["verify", str(bundle_dir)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{bundle_dir}: whole, 8 files, trained on synthetic bars, no golden decisions, id ")
    assert out.count("\n") == 1


@pytest.mark.parametrize("name", ["manifest.json", "rde.safetensors"])
def test_altered_bundle_exits_3(bundle_dir, csv, tmp_path, capsys, name):
    copy = shutil.copytree(bundle_dir, tmp_path / "bundle")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    refused(capsys, ["verify", copy], 3, copy / name)
    refused(capsys, ["decide", copy, csv], 3, copy / name)


def test_missing_bundle_exits_3(tmp_path, csv, capsys):
    refused(capsys, ["verify", tmp_path / "none"], 3, tmp_path / "none")
    refused(capsys, ["decide", tmp_path / "none", csv], 3, tmp_path / "none")


def test_a_bundle_without_provenance_is_verified_and_said_to_be_of_unknown_bars(trading, tmp_path, capsys):
    bundle.write(tmp_path / "bundle", trading, {})
    assert cli.main(["verify", str(tmp_path / "bundle")]) == 0
    out, err = capsys.readouterr()
    assert "unknown" in out
    assert not err


@pytest.fixture(scope="module")
def decided(trading, first_bars):
    return decide(trading, first_bars).records


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_decide_gives_the_records_of_the_library(bundle_dir, csv, decided, capsys):
    assert cli.main(["decide", str(bundle_dir), str(csv)]) == 0
    assert lines(capsys) == decided
    assert any(r["decision"] == "trade" for r in decided)


@pytest.mark.parametrize("kind", ["bars.csv.gz", "bars.parquet"])
def test_decide_reads_other_forms(bundle_dir, csv, decided, tmp_path, capsys, kind):
    table = pd.read_csv(csv)
    path = tmp_path / kind
    if kind.endswith("gz"):
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    assert cli.main(["decide", str(bundle_dir), str(path)]) == 0
    assert lines(capsys) == decided


def test_account_is_what_the_decisions_begin_with(bundle_dir, csv, trading, first_bars, decided, tmp_path, capsys):
    path = tmp_path / "account.json"
    k = len(decided) // 2
    path.write_text(json.dumps({"equity": 5_000.0, "peak": 5_000.0, "time": decided[k]["time"]}))
    assert cli.main(["decide", str(bundle_dir), str(csv), "--account", str(path)]) == 0
    found = lines(capsys)
    assert [r["id"] for r in found] == [r["id"] for r in decided[k + 1 :]]
    assert found == decide(trading, first_bars, account=account.read(path)).records
    assert found != decided[k + 1 :]


def test_wrong_account_exits_2(bundle_dir, csv, tmp_path, capsys):
    path = tmp_path / "account.json"
    refused(capsys, ["decide", bundle_dir, csv, "--account", path], 2, path, "found nothing there")
    path.write_text('{"equity": -1, "peak": 0}')
    refused(capsys, ["decide", bundle_dir, csv, "--account", path], 2, path, "peak: ")


@pytest.mark.parametrize("form", ["{}", "{}Z", "{}+00:00"])
def test_from_hides_earlier_lines(bundle_dir, csv, decided, capsys, form):
    """They are decided all the same: the account goes on from them."""
    moment = decided[len(decided) // 2]["time"][:19]
    assert cli.main(["decide", str(bundle_dir), str(csv), "--from", form.format(moment)]) == 0
    found = lines(capsys)
    assert found == decided[len(decided) // 2 :]
    assert found[0]["time"].startswith(moment)


def test_from_a_moment_in_another_zone(bundle_dir, csv, decided, capsys):
    k = len(decided) // 3
    moment = pd.Timestamp(decided[k]["time"]).tz_convert("Asia/Tokyo").isoformat()
    assert moment.endswith("+09:00")
    assert cli.main(["decide", str(bundle_dir), str(csv), "--from", moment]) == 0
    assert lines(capsys) == decided[k:]


def test_from_after_the_last_bar_is_refused(bundle_dir, csv, capsys):
    refused(capsys, ["decide", bundle_dir, csv, "--from", "2040-01-01"], 2, f"--from: expected bars of {csv} from 2040")


@pytest.mark.parametrize("text", ["yesterday", "2022-13-01", "NaT", "", "now", "today", "03/04/2022", "5"])
def test_bad_time_exits_2(bundle_dir, csv, capsys, text):
    refused(capsys, ["decide", bundle_dir, csv, "--from", text], 2, "--from: expected an ISO time")


def test_missing_bars_exit_2(bundle_dir, tmp_path, capsys):
    refused(capsys, ["decide", bundle_dir, tmp_path / "none.csv"], 2, tmp_path / "none.csv")
    refused(capsys, ["decide", bundle_dir, tmp_path], 2, tmp_path)


@pytest.mark.parametrize("name", ["bars.csv", "bars.csv.gz", "bars.parquet"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"a,b,c\n1,2,3\n"])
def test_bars_that_are_none_exit_2(bundle_dir, tmp_path, capsys, name, content):
    (tmp_path / name).write_bytes(content)
    refused(capsys, ["decide", bundle_dir, tmp_path / name], 2, name)


def test_bad_bar_exits_2_with_its_line(bundle_dir, csv, tmp_path, capsys):
    rows = csv.read_text().splitlines()
    rows[100] = rows[100].rpartition(",")[0] + ",-5"
    (tmp_path / "bars.csv").write_text("\n".join(rows) + "\n")
    refused(capsys, ["decide", bundle_dir, tmp_path / "bars.csv"], 2, "bars.csv", "101", "volume")


def test_help_and_version_are_light():
    """No torch, no pandas: the answer comes at once."""
    code = (
        "import sys; from algospace import cli\n"
        "try:\n    cli.main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'pandas', 'numpy', 'numba', 'pydantic'} & set(sys.modules)\nassert not heavy, heavy"
    )
    for argument in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert done.stderr == ""
        assert ("decide" in done.stdout) if argument == "--help" else (done.stdout == f"algospace {__version__}\n")


def test_module_runs_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "algospace.cli", "verify", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_without_a_command_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2
    assert "usage: algospace" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "algospace.cli", "params"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("error: the output: expected to read or write there, found: ")


def test_closed_pipe_is_no_error(bundle_dir, csv):
    """`algospace decide ... | head -1`."""
    command = f"{sys.executable} -m algospace.cli decide {bundle_dir} {csv} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert json.loads(done.stdout)["symbol"] == "MES"
    assert done.stderr == ""
