"""The whole pipeline, small: same bytes every time, after a kill too; a change reruns what depends on it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import _fire
import pandas as pd
import pytest
import yaml
from _workspace import environment, set_params, workspace

from algospace.data.splits import REPORT, SELECT
from algospace.features import prepared
from algospace.marl.params import MARLParams
from algospace.params import RuntimeParams
from algospace.pipeline.config import load_params
from stages import marl

# The pipeline of seconds, but for trainings that are long enough to be killed behind a saved state.
SMALL = _fire.TINY | {
    "data.synthetic.sessions": 30,
    "rde.optimizer.samples_per_epoch": 1280,
    "rde.optimizer.epochs": 5,
    "marl.seeds": [0, 1],
    "marl.folds": 1,
    "marl.ppo.num_envs": 16,
    "marl.ppo.total_timesteps": 768,
}


def repository(folder: Path) -> Path:
    """A workspace with small params and a DVC repository of its own."""
    workspace(folder, SMALL)
    dvc(folder, "init", "--no-scm", "--quiet")
    dvc(folder, "config", "core.analytics", "false")
    return folder


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["dvc", *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_stage(folder: Path, stage: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def lock(folder: Path) -> bytes:
    return (folder / "dvc.lock").read_bytes()


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace in which the pipeline ran undisturbed."""
    folder = repository(tmp_path_factory.mktemp("pipeline") / "undisturbed")
    assert stages_run(dvc(folder, "repro")) == ["prepare", "rde", "mrms", "marl", "export"]
    return folder


def test_a_finished_pipeline_is_up_to_date_and_leaves_no_training_state(finished):
    assert stages_run(dvc(finished, "repro")) == []
    assert not [path for path in (finished / ".ckpt").glob("*/*") if path.is_dir()]


def test_the_bundle_was_loaded_back_and_agrees_with_prepare(finished):
    figures = yaml.safe_load((finished / "metrics/export.json").read_text())
    assert figures["feature_parity"] is True
    assert figures["funnel"]["synergies"] > 0
    assert "SYNTHETIC DATA" in (finished / "reports/report.html").read_text(encoding="utf-8")


def test_features_that_the_bundle_does_not_compute_are_refused(finished, tmp_path):
    """What DVC cannot see while a stage runs: a table that was altered since it was hashed."""
    folder = tmp_path / "altered"
    shutil.copytree(finished, folder, symlinks=True)
    path = folder / "data/prepared/main_training_data.parquet"
    table = pd.read_parquet(path)
    table.loc[len(table) - 50, "momentum_5"] += 1e-9
    path.unlink()
    table.to_parquet(path)
    (folder / "metrics/export.json").unlink()
    done = run_stage(folder, "export")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "main_training_data.parquet: expected the features that the bundle computes from its bars" in line
    assert not (folder / "metrics/export.json").exists()


def test_no_test_bar_is_among_the_golden_ones(finished):
    table = pd.read_parquet(finished / "data/prepared/main_training_data.parquet", columns=["close_utc", "split"])
    bars = pd.read_parquet(finished / "models/bundle/golden.parquet")
    assert bars["close_utc"].iloc[-1] == table.loc[table["split"] == REPORT, "close_utc"].iloc[-1]
    assert (finished / "models/bundle/golden.jsonl").read_text()


@pytest.mark.parametrize(
    ("train_on", "examined"), [("signals", "signals"), ("synergies", "synergies"), ("bars", "signals")]
)
def test_the_agents_are_examined_on_what_they_learn_from(finished, monkeypatch, train_on, examined):
    """Also calibrated on it: a confidence learnt on synergies says something else of other candidates."""
    monkeypatch.chdir(finished)
    params = load_params("marl", MARLParams).model_copy(update={"train_on": train_on})
    inputs = marl.read(params, load_params("runtime", RuntimeParams))
    table = pd.read_parquet("data/prepared/main_training_data.parquet")
    for half, code in (("select", SELECT), ("report", REPORT)):
        expected = prepared.decision_rows(table, code, examined)
        assert len(expected)
        assert inputs.exam[half].candidates.row.tolist() == expected.tolist()


def test_force_gives_the_same_lock(finished):
    before = lock(finished)
    assert len(stages_run(dvc(finished, "repro", "--force"))) == 5
    assert lock(finished) == before


def kill_in(folder: Path, stage: str) -> None:
    """Start ``dvc repro`` and kill its whole process group once the stage has saved a training state."""
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=folder, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list((folder / ".ckpt" / stage).rglob("last.safetensors")):
        assert process.poll() is None, f"the pipeline ended before {stage} saved a state"
        assert time.monotonic() < deadline, f"{stage} saved no state"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)  # until the dead holders of DVC's lock are reaped


def test_killed_in_rde_and_in_marl_it_ends_with_the_same_bytes(finished, tmp_path):
    folder = repository(tmp_path / "killed")
    kill_in(folder, "rde")
    kill_in(folder, "marl")
    states = {path.relative_to(folder / ".ckpt").parts[0] for path in (folder / ".ckpt").rglob("last.safetensors")}
    assert states == {"marl"}
    dvc(folder, "repro")
    assert lock(folder) == lock(finished)


def test_a_risk_parameter_reruns_risk_and_what_follows(finished, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(finished, folder, symlinks=True)
    set_params(folder / "params.yaml", {"mrms.optimizer.learning_rate": 0.002})
    assert stages_run(dvc(folder, "repro")) == ["mrms", "marl", "export"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.symbol", "XX", "data.symbol"),
        ("rde.patch", "four", 'rde.patch: expected a valid integer, found "four"'),
        ("data.synthetic.sessions", 6, "data.min_sessions: expected at least 12 trading days, found 6"),
        ("gate1.min_train_events", 10**6, "gate1.min_train_events: expected at least 1000000 candidates"),
    ],
)
def test_bad_params_end_in_one_line_and_exit_code_2(tmp_path, key, value, message):
    folder = repository(tmp_path / "bad")
    set_params(folder / "params.yaml", {key: value})
    done = run_stage(folder, "rde" if key.startswith("rde") else "prepare")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not list((folder / "data").glob("prepared/*"))
