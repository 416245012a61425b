"""`algospace readiness`: what it finds is so, what fails says what to do, and nothing is made."""

import json
import shutil

import pytest
import yaml

from algospace import artefacts, cli
from algospace.pipeline import readiness, status
from algospace.pipeline.owners import OWNERS


@pytest.fixture
def inside(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PATH", project.environment["PATH"])
    return project


def looked(capsys, *arguments):
    code = cli.main(["readiness", *arguments])
    return code, capsys.readouterr().out


def as_json(capsys):
    code, out = looked(capsys, "--json")
    found = json.loads(out)
    assert found["ready"] == (code == 0)
    return found


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".dvc" not in path.parts[:-1]}


def test_a_finished_project_is_ready_and_left_as_it_is(inside, capsys):
    before = everything(inside.folder)
    code, out = looked(capsys)
    assert code == 0, out
    assert "\033" not in out, "no colours but on a terminal"
    assert everything(inside.folder) == before
    found = as_json(capsys)
    assert [phase["stage"] for phase in found["plan"]] == list(status.STAGES)
    assert {phase["state"] for phase in found["plan"]} == {"up to date"}
    assert all(phase["seconds"] > 0 for phase in found["plan"])
    census = json.loads((inside.folder / "metrics/prepare.json").read_text())["gate1"]
    assert found["checks"]["gate 1"]["details"] == census
    assert str(census["default"]["window_30"]["synergies"]) in found["checks"]["gate 1"]["found"]


def test_the_plan_names_what_runs_and_does_not_invent_a_time(inside, capsys):
    inside.params(mrms__optimizer__learning_rate=0.002)
    (inside.folder / "logs/mrms.jsonl").unlink()
    plan = {phase["stage"]: phase for phase in as_json(capsys)["plan"]}
    assert plan["rde"]["state"] == "up to date"
    assert plan["mrms"]["state"] == "runs: params.yaml mrms modified"
    assert plan["marl"]["state"] == "runs if mrms gives other bytes"
    assert plan["mrms"]["seconds"] is None
    out = looked(capsys)[1]
    assert "params.yaml mrms modified; not measured here yet" in out
    assert "in all" not in out


def test_the_time_is_that_of_a_run_from_beginning_to_end(inside, capsys):
    """A run that went on from a saved state, one that failed and a line cut short say nothing of how long it takes."""
    entries = [
        {"event": "start"}, {"event": "end", "result": "done", "seconds": 71.0},
        {"event": "start"}, {"event": "end", "result": "killed", "seconds": 13.0},
        {"event": "start"}, {"event": "resumed", "step": 4}, {"event": "end", "result": "done", "seconds": 5.0},
    ]  # fmt: skip
    log = inside.folder / "logs/marl.jsonl"
    log.write_text("\n".join(map(json.dumps, entries)) + '\n{"event": "sta')
    plan = {phase["stage"]: phase for phase in as_json(capsys)["plan"]}
    assert plan["marl"]["seconds"] == 71.0
    log.write_text("\n".join(map(json.dumps, entries[4:])))
    plan = {phase["stage"]: phase for phase in as_json(capsys)["plan"]}
    assert plan["marl"]["seconds"] is None


def test_each_failing_check_says_what_to_do(inside, capsys):
    (inside.folder / "requirements.lock").write_text("numpy==0.1\nno-such-package==1.0\n")
    inside.params(rde__patch="four")
    code, out = looked(capsys)
    assert code == 1
    assert "numpy" in out
    assert "no-such-package missing for 1.0" in out
    assert "-> pip install -r requirements.lock" in out
    assert 'rde.patch: expected a valid integer, found "four"' in out
    assert out.splitlines()[-1] == "not ready"


def test_bars_are_judged_or_refused_in_one_line(inside, capsys, market_bars):
    raw = inside.folder / "data/raw"
    bars = market_bars.assign(time=market_bars["start_utc"].astype(str))
    bars[["time", "open", "high", "low", "close", "volume"]].to_csv(raw / "mine.csv", index=False)
    inside.params(data__source="csv", data__files=["mine.csv"])
    check = as_json(capsys)["checks"]["bars"]
    assert check["ready"], check
    assert check["details"]["rows"] == len(bars)
    assert check["details"]["quality"] > 70
    (raw / "mine.csv").write_text("time,open,high,low,close,volume\n2024-01-02 15:00,1,2,3,4,x\n")
    check = as_json(capsys)["checks"]["bars"]
    assert not check["ready"]
    assert "mine.csv" in check["found"]
    few = bars.iloc[: len(bars) // 10]
    few[["time", "open", "high", "low", "close", "volume"]].to_csv(raw / "few.csv", index=False)
    inside.params(data__files=["few.csv"])
    check = as_json(capsys)["checks"]["bars"]
    assert "data.min_sessions: expected at least 12 trading days, found 6" in check["found"]
    inside.params(data__files=["other.csv"])
    assert "other.csv" in as_json(capsys)["checks"]["bars"]["found"]


def test_little_room_many_threads_and_no_repository_are_said(inside, capsys, monkeypatch):
    monkeypatch.setattr(readiness, "MEMORY_GIB", 1e6)
    monkeypatch.setattr(readiness, "DISK_GIB", 1e9)
    inside.params(runtime__threads=4096)
    shutil.rmtree(inside.folder / ".dvc")
    checks = as_json(capsys)["checks"]
    assert not any(checks[name]["ready"] for name in ("memory", "disk", "dvc"))
    assert all(checks[name]["remedy"] for name in ("memory", "disk", "dvc"))
    assert checks["device"]["ready"], "slower, but a run can begin"
    assert "wait for each other" in checks["device"]["found"]


def test_counts_of_other_bars_are_not_shown(inside, capsys):
    inside.params(data__synthetic__sessions=13)
    assert as_json(capsys)["checks"]["gate 1"]["found"] == "not measured here yet (prepare counts)"


def test_a_census_that_cannot_be_read_is_a_failing_check(inside, capsys):
    path = inside.folder / "metrics/prepare.json"
    for content in ("[]", "{", '{"gate1": []}', '{"gate1": {"default": {"window_3": {}}}}'):
        path.write_text(content)
        inside.ok("dvc", "commit", "--force", "prepare")
        check = as_json(capsys)["checks"]["gate 1"]
        assert not check["ready"]
        assert check["found"] == "metrics/prepare.json: expected prepare's census, found another file"


def test_a_repository_without_a_commit_is_not_ready(inside, capsys):
    inside.ok("git", "update-ref", "-d", "HEAD")
    check = as_json(capsys)["checks"]["dvc"]
    assert not check["ready"]
    assert "git commit" in check["remedy"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALGOSPACE_MAX_HOURS", "soon", "expected hours above 0, found soon"),
        ("ALGOSPACE_CKPT", "params.yaml", "cannot be"),
    ],
)
def test_states_that_could_not_be_saved_are_told_before(inside, capsys, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    check = as_json(capsys)["checks"]["states"]
    assert words in check["found"]
    assert check["remedy"]


def test_a_killed_stage_is_told_by_what_it_saves(inside, capsys):
    for stage in ("prepare", "rde"):
        artefacts.write_json(inside.folder / f"logs/{stage}.status.json", {"state": "running", "pid": 2**22})
    inside.params(data__synthetic__sessions=13)
    notes = {phase["stage"]: phase["note"] for phase in as_json(capsys)["plan"]}
    assert notes["prepare"] == "was killed; begins anew"
    assert notes["rde"] == "was killed; goes on from its last saved state"


def test_files_too_large_to_read_in_passing_are_told_as_prepared(inside, capsys, monkeypatch):
    """By what the last `prepare` said of the same bytes; of others nothing is said."""
    monkeypatch.setattr(readiness, "READ_BYTES", 0)
    path = inside.folder / "data/raw/bars.csv"
    path.write_text("any bytes\n")
    inside.params(data__source="csv", data__files=["bars.csv"])
    assert "not measured here yet" in as_json(capsys)["checks"]["bars"]["found"]
    manifest = artefacts.read_json(readiness.MANIFEST)
    file = {"path": "bars.csv", "sha256": artefacts.sha256(path)}
    manifest["source"] |= {"files": [file], "rows": 7, "first_utc": "2022-01-03", "last_utc": "2022-01-04"}
    artefacts.write_json(readiness.MANIFEST, manifest)
    found = as_json(capsys)["checks"]["bars"]
    assert f"bars.csv ({file['sha256'][:12]}): 7 rows, 2022-01-03 to 2022-01-04, quality" in found["found"]
    assert found["ready"]


def test_cuda_is_wanted_on_purpose(inside, capsys):
    import torch

    inside.params(runtime__device="cuda")
    check = as_json(capsys)["checks"]["device"]
    assert check["ready"] == torch.cuda.is_available()


def test_colours_are_for_a_terminal():
    found = readiness.Readiness([readiness.Check("python", "2.7", "get another")], [])
    assert any("\033[31mFAIL" in line for line in readiness.lines(found, colour=True))
    assert not any("\033" in line for line in readiness.lines(found, colour=False))


def test_every_section_of_dvc_yaml_is_checked(inside):
    declared = yaml.safe_load((inside.folder / "dvc.yaml").read_text())["stages"].values()
    assert {name for stage in declared for name in stage["params"]} == set(OWNERS)
