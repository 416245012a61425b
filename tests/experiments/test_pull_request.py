"""The pull request's report, run on a small repository: dvc.lock without data, tables in order, comment or summary."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from algospace.pipeline.status import STAGES

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
import yaml
name = sys.argv[1]
section = yaml.safe_load(Path("params.yaml").read_text())[name]
for folder in ("models", "metrics"):
    Path(folder).mkdir(exist_ok=True)
Path(f"models/{name}").write_text(str(section))
Path(f"metrics/{name}.json").write_text(json.dumps({"figure": 2.0 * section["rate"]}))
"""


def run(folder, *command, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "GITHUB", "PR"))}
    path = f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=folder, env=clean | {"PATH": path} | environment, capture_output=True, text=True, check=False
    )


def ok(folder, *command):
    done = run(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_params(folder, **rates):
    lines = [f"{name}: {{rate: {rates.get(name, 1.0)}}}" for name in STAGES]
    (folder / "params.yaml").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Five stages that write a figure each, and a tracked file of bars; run, committed, pushed to a remote beside."""
    folder = tmp_path_factory.mktemp("pull") / "origin"
    folder.mkdir()
    (folder / "work.py").write_text(SCRIPT)
    write_params(folder)
    stages = ["stages:"]
    for before, name in zip((None, *STAGES), STAGES, strict=False):
        deps = ["work.py", f"models/{before}" if before else "data/raw"]
        stages.append(
            f"  {name}: {{cmd: {sys.executable} work.py {name}, deps: {json.dumps(deps)}, params: [{name}],"
            f" outs: [models/{name}], metrics: [{{metrics/{name}.json: {{cache: false}}}}]}}"
        )
    (folder / "dvc.yaml").write_text("\n".join(stages) + "\n")
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    ok(folder, "git", "init", "--quiet", "--initial-branch", "main")
    ok(folder, "git", "config", "user.name", "a")
    ok(folder, "git", "config", "user.email", "a@example.org")
    ok(folder, "dvc", "init", "--quiet")
    ok(folder, "dvc", "config", "core.analytics", "false")
    ok(folder, "dvc", "remote", "add", "--default", "store", str(folder.parent / "store"))
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/bars.csv").write_text("a bar\n")
    ok(folder, "dvc", "add", "data/raw/bars.csv")
    ok(folder, "dvc", "repro")
    ok(folder, "dvc", "push")
    ok(folder, "git", "add", ".")
    ok(folder, "git", "commit", "--quiet", "--message", "base")
    return folder


@pytest.fixture
def clone(origin, tmp_path):
    """A fresh clone, without any data; `gh` is a stand-in that keeps what it is given."""
    folder = tmp_path / "clone"
    ok(tmp_path, "git", "clone", "--quiet", str(origin), str(folder))
    ok(folder, "git", "config", "user.name", "a")
    ok(folder, "git", "config", "user.email", "a@example.org")
    ok(folder, "git", "branch", "base")
    (folder / "bin").mkdir()
    gh = folder / "bin/gh"
    gh.write_text('#!/bin/sh\necho "$@" > gh_called\nexit ${GH_EXIT:-0}\n')
    gh.chmod(0o755)
    return folder


def report(folder, *arguments, **environment):
    return run(folder, sys.executable, ".ci/pull_request.py", "base", *arguments, **environment)


def test_an_honest_lock_needs_no_data_and_nothing_differs(clone):
    done = report(clone)
    assert done.returncode == 0, done.stderr
    assert "`dvc.lock` fits code and params." in done.stdout
    assert done.stdout.count("no difference") == 6, "four stages, test bars, params"
    assert not (clone / "models/rde").exists()
    assert not (clone / "data/raw/bars.csv").exists()
    assert not (clone / "gh_called").exists(), "no comment without a pull request"


def test_a_run_that_was_committed_shows_validation_first_and_marks_test_figures(clone, tmp_path):
    write_params(clone, marl=3.0, export=5.0)
    ok(clone, "dvc", "repro", "--pull", "--allow-missing")
    ok(clone, "git", "commit", "--quiet", "--all", "--message", "change")
    summary = tmp_path / "summary.md"
    done = report(clone, GITHUB_STEP_SUMMARY=str(summary), PR="7")
    assert done.returncode == 0, done.stderr
    text = summary.read_text()
    assert text == (clone / "comment.md").read_text()
    validation, test = text.split("## Test bars: not for selection")
    assert "metrics/marl.json" in validation
    assert "metrics/export.json" not in validation
    test, params = test.split("## Params")
    assert "metrics/export.json" in test
    assert "marl.rate" in params
    assert (clone / "gh_called").read_text().split()[:3] == ["pr", "comment", "7"]


def test_a_lock_that_was_not_run_fails_and_is_run_again_up_to_marl(clone):
    write_params(clone, marl=3.0, export=5.0)
    ok(clone, "git", "commit", "--quiet", "--all", "--message", "forgot to run")
    done = report(clone)
    assert done.returncode == 1
    assert "\n- marl: params.yaml marl\n- export: params.yaml export\n" in done.stdout
    assert "- rde" not in done.stdout
    assert "metrics/" not in done.stdout.split("## Validation")[1].split("##")[0]
    done = report(clone, "--rerun")
    assert done.returncode == 1
    assert "metrics/marl.json" in done.stdout.split("## Validation")[1].split("##")[0]
    assert "no difference" in done.stdout.split("not for selection")[1].split("##")[0], "test bars are left alone"
    assert not (clone / "models/rde").exists(), "what fits is not fetched"


def test_a_run_that_fails_is_told_where_the_report_would_be(clone):
    write_params(clone, marl=3.0)
    (clone / "work.py").write_text("raise SystemExit('no memory')\n")
    done = report(clone, "--rerun", PR="7")
    assert done.returncode == 1
    text = (clone / "comment.md").read_text()
    assert "`dvc.lock` does not fit:" in text
    assert "The run here failed: dvc repro" in text
    assert (clone / "gh_called").exists()


def test_without_a_remote_the_cache_is_the_store(origin, clone):
    ok(clone, "dvc", "remote", "remove", "store")
    shutil.copytree(origin / ".dvc/cache", clone / ".dvc/cache")
    write_params(clone, marl=3.0)
    done = report(clone, "--rerun")
    assert "metrics/marl.json" in done.stdout.split("## Validation")[1].split("##")[0], done.stderr


@pytest.mark.parametrize(("began", "falls_back"), [("", True), ("Running stage 'marl':", False)])
def test_a_remote_that_does_not_answer_leaves_the_cache(origin, clone, began, falls_back):
    """It fails before any stage runs; a stage that fails is not run once more."""
    shutil.copytree(origin / ".dvc/cache", clone / ".dvc/cache")
    real = Path(sys.executable).parent / "dvc"
    stub = clone / "bin/dvc"
    failing = f'echo "{began}"; echo "ERROR: unable to connect" >&2; exit 1'
    stub.write_text(f'#!/bin/sh\ncase "$*" in *--pull*) {failing};; *) exec {real} "$@";; esac\n')
    stub.chmod(0o755)
    write_params(clone, marl=3.0)
    done = report(clone, "--rerun")
    assert ("the remote did not answer, going on with the cache: ERROR: unable to connect" in done.stderr) == falls_back
    assert ("metrics/marl.json" in done.stdout) == falls_back
    assert ("The run here failed" in (clone / "comment.md").read_text()) != falls_back


def test_whatever_does_not_fit_is_named(clone, monkeypatch):
    stale = runpy.run_path(str(ROOT / ".ci/pull_request.py"))["stale"]
    monkeypatch.chdir(clone)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def after(change):
        change()
        found = stale("base")
        ok(clone, "git", "checkout", "--quiet", ".")
        return found

    assert after(lambda: None) == {}
    assert after(lambda: (clone / "work.py").write_text(SCRIPT + "# a word\n")) == {
        name: ["work.py"] for name in STAGES
    }
    assert after(lambda: (clone / "metrics/rde.json").write_text("{}")) == {"rde": ["metrics/rde.json"]}
    assert after(lambda: (clone / "metrics/rde.json").unlink()) == {"rde": ["metrics/rde.json"]}, "git keeps it"
    bars = clone / "data/raw/bars.csv.dvc"
    assert after(lambda: edited(bars, "md5: ", "md5: 0")) == {"prepare": ["data/raw (dvc.lock is of other bars)"]}
    assert after(lambda: bars.write_text(bars.read_text() + "desc: the same bars\n")) == {}
    assert after(lambda: edited(clone / "dvc.yaml", "py mrms,", "py  mrms,")) == {"mrms": ["changed command"]}
    assert after(lambda: mixed_lock(clone)) == {"mrms": ["models/rde (dvc.lock has two)"]}
    assert set(after(lambda: (clone / "dvc.lock").unlink())) == set(STAGES)


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def mixed_lock(folder):
    """A merge that took one stage's entry from here and the next one's from there."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    lock["stages"]["mrms"]["deps"][0]["md5"] = "0" * 32
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))


def test_a_fork_may_not_comment_but_the_summary_holds_the_tables(clone, tmp_path):
    done = report(clone, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"), PR="7", GH_EXIT="1")
    assert done.returncode == 0
    assert "## Validation" in (tmp_path / "summary.md").read_text()


def test_a_comment_holds_the_first_rows_of_a_long_table(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".ci")
    import pull_request

    rows = [f"| metrics/prepare.json | gate1.months.{i} | 0.123456789 | 0.123456789 | 0.0 |" for i in range(2000)]
    table = "\n".join(["| Path | Metric | a | b | Change |", "|---|---|---|---|---|", *rows])
    text = f"## Validation\n\n{table}\n\n## Params\n\nno difference\n"
    short = pull_request.shortened(text)
    assert len(text) > 65_536 > 10 * 1024 > 2 * len(short)
    assert rows[pull_request.ROWS - 1] in short
    assert rows[pull_request.ROWS] not in short
    assert f"\n\n{2000 - pull_request.ROWS} more rows: step summary\n\n## Params\n\nno difference\n" in short
    assert pull_request.shortened(short) == short


def test_the_workflow_keeps_its_cache_when_the_lock_does_not_fit():
    steps = yaml.safe_load((ROOT / ".github/workflows/metrics.yml").read_text())["jobs"]["report"]["steps"]
    assert steps[-1]["uses"].startswith("actions/cache/save@")
    assert steps[-1]["if"].startswith("always()")


def test_the_workflow_calls_the_script():
    steps = yaml.safe_load((ROOT / ".github/workflows/metrics.yml").read_text())["jobs"]["report"]["steps"]
    assert any(".ci/pull_request.py base --rerun" in step.get("run", "") for step in steps)


def test_main_fills_the_cache_that_a_pull_request_reads():
    workflow = yaml.safe_load((ROOT / ".github/workflows/metrics.yml").read_text())
    assert workflow[True]["push"] == {"branches": ["main"]}  # YAML 1.1 takes "on" for true
    (run,) = [step["run"] for step in workflow["jobs"]["report"]["steps"] if "push" in step.get("if", "")]
    assert "dvc checkout --allow-missing && dvc repro marl" in run
    assert run.startswith('test -n "$(dvc remote list)" || '), "with a remote the outs are there"
    assert run.endswith('|| echo "no outs to keep"'), "bars that are not in git are no failure of main"
