"""`algospace sweep` over the stages themselves: their figures, on the record, and nothing else touched."""

import json
from pathlib import Path

import pytest
import yaml

from algospace import cli, trials


def test_a_sweep_gets_the_figures_of_the_stage_and_writes_nothing_but_trials(project):
    folder = project.folder
    (folder / "sweep.yaml").write_text("marl:\n  ppo.learning_rate: {low: 0.0001, high: 0.01, log: true}\n")
    before = project.digests()
    done = project.algospace("sweep", "--trials", "2")
    assert done.returncode == 0, done.stderr
    assert "2 complete, 0 given up early, 0 failed" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("dvc exp run marl -S marl.ppo.learning_rate=0.0")
    assert project.digests() == before
    assert not (folder / "logs/test_uses.jsonl").read_text().splitlines()[1:], "no bundle but the first was judged"
    (own, other) = trials.read(folder / trials.PATH)
    assert own.config == trials.config_hash(yaml.safe_load((folder / "params.yaml").read_text()))
    assert own.changes == {}
    assert list(other.changes) == ["marl.ppo.learning_rate"]
    judged = json.loads((folder / "metrics/marl.json").read_text())["report"]
    assert own.sharpe == judged["traded"]["consensus"]["sharpe"]
    lines = (folder / "metrics/curves/marl/validation_daily.tsv").read_text().splitlines()
    names, *rows = [line.split("\t") for line in lines]
    assert names == ["session_id", "seed_0", "seed_1"]
    assert own.daily == {seed: [float(row[k]) for row in rows] for k, seed in enumerate(names) if k}
    assert own.sessions == [int(rows[0][0]), int(rows[-1][0])]
    assert "0 of them new" in project.algospace("trials").stdout, "the committed run is that of trial 0"


@pytest.mark.parametrize(("stage", "key"), [("rde", "beta"), ("mrms", "optimizer.learning_rate")])
def test_the_frozen_experts_are_swept_too(project, stage, key):
    (project.folder / "sweep.yaml").write_text(f"{stage}:\n  {key}: {{low: 0.0001, high: 0.01, log: true}}\n")
    done = project.algospace("sweep", "--stage", stage, "--trials", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"dvc exp run marl -S {stage}.")
    assert not trials.read(project.folder / trials.PATH), "without agents there is no Sharpe ratio"


def test_a_sweep_over_stale_inputs_is_refused(project):
    project.params(mrms__optimizer__learning_rate=0.002)
    done = project.algospace("sweep", "--trials", "2")
    assert done.returncode == 2
    assert done.stderr == "error: mrms: expected it up to date before a sweep; run `dvc repro mrms` first\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trials", "0"], "--trials: expected at least 1, found 0"),
        (["--trials", "1", "--stage", "export"], "--stage: expected one of rde, mrms, marl, found export"),
        (["--trials", "1", "--space", "nowhere.yaml"], "nowhere.yaml: expected the parameter file, found nothing"),
    ],
)
def test_bad_arguments_are_one_line(capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert cli.main(["sweep", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
