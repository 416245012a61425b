"""What was tried, out of a small DVC repository: each configuration once, and only with figures of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from algospace import trials
from algospace.errors import InputError
from algospace.pipeline import experiments

PARAMS = "seed: 7\nmarl:\n  lr: 0.00001\n  width: 1\nexport:\n  min_trades: 30\n"
MARL = """
import json, yaml, pathlib
p = yaml.safe_load(open("params.yaml"))
width = p["marl"]["width"]
pathlib.Path("metrics/curves/marl").mkdir(parents=True, exist_ok=True)
json.dump({"report": {"traded": {"consensus": {"sharpe": width / 2}}}}, open("metrics/marl.json", "w"))
rows = "".join(f"{day}\\t{width * day % 7}\\t{-width}\\n" for day in (20220103, 20220104, 20220105))
open("metrics/curves/marl/validation_daily.tsv", "w").write("session\\tseed_0\\tseed_1\\n" + rows)
"""
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def run(folder, *command):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "GIT"))}
    subprocess.run(command, cwd=folder, env=clean | {"PATH": PATH}, check=True, capture_output=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A committed run; an experiment with another width; one that stopped before `marl`."""
    folder = tmp_path_factory.mktemp("tried")
    for command in (
        ["git", "init", "-q"], ["git", "config", "user.email", "a@b.c"], ["git", "config", "user.name", "A"],
        ["dvc", "init", "-q"], ["dvc", "config", "core.analytics", "false"],
    ):  # fmt: skip
        run(folder, *command)
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "marl.py").write_text(MARL)
    stages = {
        name: {"cmd": f"echo {name} > {name}.txt", "params": ["seed"], "outs": [f"{name}.txt"]}
        for name in ("prepare", "rde", "mrms")
    }
    stages["marl"] = {
        "cmd": f"{sys.executable} marl.py", "deps": ["mrms.txt", "marl.py"], "params": ["marl"],
        "metrics": [{"metrics/marl.json": {"cache": False}}], "plots": [{"metrics/curves/marl": {"cache": False}}],
    }  # fmt: skip
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    run(folder, "dvc", "repro", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "a run")
    run(folder, "dvc", "exp", "run", "-q", "-n", "wide", "-S", "marl.width=3")
    run(folder, "dvc", "exp", "run", "-q", "-n", "stopped", "-S", "marl.width=5", "mrms")
    return folder


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.setenv("PATH", PATH)


def test_each_finished_configuration_is_found_once(project):
    found = experiments.collect(project)
    assert [trial.name for trial in found.trials] == ["master", "wide"] or found.trials[0].name == "main"
    first, wide = found.trials
    assert (first.sharpe, wide.sharpe) == (0.5, 1.5)
    assert (first.changes, wide.changes) == ({}, {"marl.width": 3})
    assert wide.sessions == [20220103, 20220105]
    assert wide.daily == {"seed_0": [3 * day % 7 for day in (20220103, 20220104, 20220105)], "seed_1": [-3.0] * 3}
    assert found.left_out == 2  # the experiment that stopped, and the workspace that it left behind


def test_collecting_again_adds_nothing(project, tmp_path):
    path = tmp_path / "trials.jsonl"
    assert len(trials.add(experiments.collect(project).trials, path)) == 2
    before = path.read_bytes()
    assert trials.add(experiments.collect(project, all_commits=True).trials, path) == []
    assert path.read_bytes() == before
    assert [json.loads(line)["sharpe"] for line in before.splitlines()] == [0.5, 1.5]


def test_a_workspace_with_params_of_its_own_does_not_count_before_it_ran(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(PARAMS.replace("width: 1", "width: 9"))
    try:
        assert len(experiments.collect(project).trials) == 2
    finally:
        (project / "params.yaml").write_text(text)


def test_without_a_repository_it_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a DVC repository, found: .*not inside of a DVC repository"):
        experiments.collect(tmp_path)


def test_the_dvc_of_this_environment_is_asked_whatever_the_path_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="expected a DVC repository"):
        experiments.collect(tmp_path)


def test_without_dvc_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="expected DVC beside this Python, found none"):
        experiments.collect(tmp_path)
