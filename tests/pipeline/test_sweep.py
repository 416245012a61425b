"""Sweeps: seeded, resumable, given up early where hopeless, shared by several processes; what ran is on the record."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

from algospace import trials
from algospace.errors import InputError
from algospace.marl.params import MARLParams
from algospace.pipeline import space, status, sweep
from algospace.pipeline.config import lookup, read_yaml
from algospace.training import Attempt

ROOT = Path(__file__).parents[2]
SEEDS = 3
SPACE = """
marl:
  ppo.learning_rate: {low: 0.0001, high: 0.01, log: true}
  ppo.update_epochs: {low: 1, high: 8, log: false}
  channels: {choices: [[16, 32, 32], [8, 8, 8]]}
"""
WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_sweep import attempts, searched
study = searched(Path.cwd(), 16, slow=0.05)
"""


def attempts(values, slow=0.0, seen=None):
    """A tiny objective: best at a learning rate of 0.001, the same after each seed; its Sharpe ratio is the rate."""
    import time

    rate = values["marl.ppo.learning_rate"]
    for done in range(1, SEEDS + 1):
        time.sleep(slow)
        if seen is not None:
            seen.append(done)
        cut = {} if done == SEEDS else {"seeds": list(range(done))}
        days = "session\t0\n20240102\t0.5\n20240103\t-0.25\n"
        yield Attempt(-abs(rate - 0.001) - 0.01 * values["marl.ppo.update_epochs"], cut, rate, days)


def searched(folder, count, slow=0.0, seen=None, tried=None):
    varied = space.load_space("marl", MARLParams)
    return sweep.search(
        "marl-test", varied, tried or (lambda values: attempts(values, slow, seen)), count, "journal.log", 42
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "sweep.yaml").write_text(SPACE)
    (tmp_path / "metrics").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values_of(study):
    return [trial.user_attrs["values"] for trial in study.get_trials()]


def test_trial_0_is_params_yaml_and_the_best_beats_it(folder):
    study = searched(folder, 20)
    first = study.get_trials()[0]
    assert first.user_attrs["values"] == {
        "marl.ppo.learning_rate": 0.0003, "marl.ppo.update_epochs": 4, "marl.channels": [16, 32, 32],
    }  # fmt: skip
    best = study.best_trial
    assert best.value > first.value
    assert f"trial {best.number} scored" in sweep.summary(study)
    values = best.user_attrs["values"]
    assert sweep.command(study) == (
        f"dvc exp run marl -S marl.ppo.learning_rate={json.dumps(values['marl.ppo.learning_rate'])} "
        f"-S marl.ppo.update_epochs={values['marl.ppo.update_epochs']} "
        f"-S 'marl.channels={json.dumps(values['marl.channels'], separators=(',', ':'))}'"
    )


def test_a_number_that_dvc_wrote_with_an_exponent_is_a_number(folder):
    """DVC writes 0.0003 as it was, and 3e-05 for what is smaller: to YAML 1.1 that is text."""
    text = (folder / "params.yaml").read_text().replace("learning_rate: 0.0003", "learning_rate: 3e-04")
    (folder / "params.yaml").write_text(text)
    first = searched(folder, 1).get_trials()[0]
    assert first.user_attrs["values"]["marl.ppo.learning_rate"] == 0.0003
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert trials.read(folder / trials.PATH)[0].config == trials.config_hash(params)


def test_a_sweep_that_was_stopped_goes_on_as_if_it_had_not_been(folder):
    undisturbed = values_of(searched(folder, 13))
    (folder / "journal.log").unlink()
    assert values_of(searched(folder, 7)) == undisturbed[:7]
    assert values_of(searched(folder, 13)) == undisturbed
    assert len({json.dumps(values) for values in undisturbed}) > 10
    seen = []
    searched(folder, 13, seen=seen)
    assert not seen, "a finished sweep trains nothing"


def test_what_is_worse_than_the_median_is_given_up_and_recorded_as_what_ran(folder):
    seen = []
    study = searched(folder, 20, seen=seen)
    pruned = study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    assert pruned
    assert len(seen) == 20 * SEEDS - (SEEDS - 1) * len(pruned)
    known = {trial.name: trial for trial in trials.read(folder / trials.PATH)}
    assert len(known) == 20
    for trial in study.get_trials():
        changes = known[f"sweep-{trial.number}"].changes
        assert (changes.get("marl.seeds") == [0]) == (trial in pruned)
        assert known[f"sweep-{trial.number}"].sharpe == trial.user_attrs["values"]["marl.ppo.learning_rate"]
        assert known[f"sweep-{trial.number}"].daily == {"0": [0.5, -0.25]}


def test_two_processes_share_the_work_and_lose_no_line(folder):
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    with (
        subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE) as one,
        subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE) as other,
    ):
        errors = [worker.communicate(timeout=120)[1].decode() for worker in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), errors
    journal = [json.loads(line) for line in (folder / "journal.log").read_text().splitlines()]
    creators = {line["worker_id"] for line in journal if line["op_code"] == 4}
    assert len(creators) == 2, "both have created trials"
    numbers = [trial.name for trial in trials.read(folder / trials.PATH)]
    assert len(numbers) == len(set(numbers))
    assert 16 <= len(numbers) <= 17


def test_a_configuration_that_cannot_be_trained_fails_alone(folder, capsys):
    def tried(values):
        if values["marl.channels"] == [8, 8, 8]:
            raise InputError("marl: expected a finite loss, found nan")
        yield from attempts(values)

    study = searched(folder, 8, tried=tried)
    states = [trial.state.name for trial in study.get_trials()]
    assert "FAIL" in states
    assert "COMPLETE" in states
    assert study.best_trial.user_attrs["values"]["marl.channels"] == [16, 32, 32]
    assert "marl: expected a finite loss, found nan" in capsys.readouterr().err
    assert f"{states.count('FAIL')} failed" in sweep.summary(study)


def test_no_trial_that_ended_is_no_command(folder):
    def tried(values):
        raise InputError("marl: expected memory")
        yield

    with pytest.raises(InputError, match="expected a trial that came to its end, found none"):
        sweep.command(searched(folder, 2, tried=tried))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("marl: {}", "marl: expected keys to vary, found none"),
        ("rde:\n  beta: {low: 1, high: 2, log: true}", "marl: expected this section, found none"),
        ("marl:\n  ppo.lr: {low: 1, high: 2, log: true}", "marl.ppo.lr: expected a key of params.yaml"),
        ("marl:\n  dropout: {low: 0.0, high: 1.5, log: false}", "marl.dropout: params.yaml: marl.dropout: expected"),
        ("marl:\n  dropout: {low: 0.5, high: 0.1, log: false}", "expected low < high"),
        ("marl:\n  dropout: {low: 0.0, high: 0.1, log: true}", "above 0 where log is true"),
        ("marl:\n  dropout: {choices: [0.1]}", "sweep.yaml: marl.dropout"),
        ("marl:\n  dropout: 0.1", "sweep.yaml: marl.dropout"),
        ("marl: [", "expected YAML"),
    ],
)
def test_a_bad_space_is_one_line(folder, text, words):
    (folder / "sweep.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        space.load_space("marl", MARLParams)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("storage", ["nosuch://host/db", "sqlite:////nowhere/at/all.db"])
def test_a_bad_storage_is_one_line(folder, storage):
    with pytest.raises(InputError, match=r"--storage: expected a journal file or a database's URL") as caught:
        sweep.search("marl-test", space.load_space("marl", MARLParams), attempts, 1, storage, 0)
    assert "\n" not in str(caught.value)


def test_a_database_serves_too(folder):
    study = sweep.search("marl-test", space.load_space("marl", MARLParams), attempts, 3, "sqlite:///study.db", 42)
    assert values_of(study) == values_of(searched(folder, 3))


def test_a_new_study_beside_others_is_told(folder, capsys):
    """On another machine it may mean that the inputs are not the same bytes."""
    for name in ("rde-a", "marl-a", "marl-b"):
        sweep.search(name, space.load_space("marl", MARLParams), attempts, 1, "sqlite:///study.db", 42)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "a new study" in line]
    assert line == "marl-b: a new study, since params, inputs, code or space differ from 1 before"


def test_every_folder_lists_the_trials_of_all(folder, tmp_path_factory, monkeypatch):
    searched(folder, 3)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("params.yaml", "sweep.yaml", "journal.log"):
        shutil.copy(folder / name, elsewhere)
    (elsewhere / "metrics").mkdir()
    monkeypatch.chdir(elsewhere)
    searched(elsewhere, 5)
    assert [trial.name for trial in trials.read()] == [f"sweep-{k}" for k in range(5)]


def test_a_sweep_killed_in_its_first_trial_still_tries_the_params(folder, monkeypatch):
    def killed(values):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        searched(folder, 2, tried=killed)
    own = values_of(searched(folder, 2))  # beside one that is at work
    assert own.count(own[0]) == 1
    (folder / "journal.log").unlink()
    monkeypatch.setattr(sweep, "_process", lambda: [platform.node(), os.getpid(), 0.0])  # a pid that came again
    with pytest.raises(KeyboardInterrupt):
        searched(folder, 2, tried=killed)
    first, second, _ = searched(folder, 2).get_trials()
    assert (first.state.name, second.state.name) == ("RUNNING", "COMPLETE")
    assert first.user_attrs["values"] == second.user_attrs["values"]
    assert "params.yaml (trial 1)" in sweep.summary(searched(folder, 2))


def test_a_trial_at_work_stands_for_its_values_whatever_it_has_drawn_yet(folder):
    study = searched(folder, 1)
    fixed = {"a": 1, "b": 2}
    study.enqueue_trial(fixed)
    trial = study.ask()
    for key in (None, "a", "b"):
        if key:
            trial.suggest_int(key, 0, 9)
        assert sweep._stands_for(study.get_trials()[-1], fixed)


def test_a_list_of_trials_that_cannot_be_read_stops_it_before_it_trains(folder):
    (folder / trials.PATH).write_text("<<<<<<< HEAD\n")
    seen = []
    with pytest.raises(InputError, match=r"metrics/trials\.jsonl:1: expected a JSON object"):
        searched(folder, 2, seen=seen)
    assert not seen


@pytest.mark.parametrize("secret", ["me:s3cret@host/db", "me:a@s3cret@host/db", "host/db?user=me&password=s3cret"])
def test_a_password_is_not_shown(folder, secret):
    with pytest.raises(InputError, match=r"found nosuch://\.\.\.: ") as caught:
        sweep.search("marl-test", space.load_space("marl", MARLParams), attempts, 1, f"nosuch://{secret}", 0)
    assert "s3cret" not in str(caught.value)


def test_the_committed_space_is_valid(monkeypatch):
    from algospace.pipeline.owners import OWNERS

    monkeypatch.chdir(ROOT)
    params = read_yaml(ROOT / "params.yaml")
    for stage in status.TRAINING:
        varied = space.load_space(stage, OWNERS[stage])
        assert varied
        assert all(option.drawn(lookup(params, key)) is not None for key, option in varied.items()), (
            "trial 0 is drawable"
        )


def test_a_space_without_the_params_is_refused(folder):
    (folder / "sweep.yaml").write_text("marl:\n  dropout: {low: 0.3, high: 0.5, log: false}\n")
    with pytest.raises(
        InputError, match=r"marl.dropout: expected params.yaml's value in the space of the sweep, found 0"
    ):
        searched(folder, 1)
