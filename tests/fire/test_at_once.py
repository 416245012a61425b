"""Two runs at once, a trainer that outlives its dvc, what a kill leaves behind: a clear message, nothing spoilt."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from algospace import artefacts
from algospace.errors import InputError
from algospace.pipeline import stage, training_state

ROOT = Path(__file__).parents[2]
NAME = Path(__file__).stem  # of a "stage" whose main is defined here
DEAD = 2**22  # above Linux' default limit of pids


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "own_code", lambda: None)
    return tmp_path


def log(folder, name=NAME):
    return [json.loads(line) for line in (folder / f"logs/{name}.jsonl").read_text().splitlines()]


def test_a_stage_runs_once_at_a_time(folder, capsys):
    def main():
        with pytest.raises(SystemExit) as ended:
            stage.run(lambda: pytest.fail("it ran"))
        assert ended.value.code == 2

    stage.run(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{NAME}: expected no other run of this stage in {folder}, found process {os.getpid()} at work" in line
    assert [entry["event"] for entry in log(folder)] == ["start", "end"]
    stage.run(lambda: None)  # the lock is free again


def test_the_lock_of_a_dead_process_is_none(folder):
    (folder / "logs").mkdir()
    (folder / f"logs/{NAME}.lock").touch()
    (folder / f"logs/{NAME}.pid").write_text(f"{DEAD}\n")
    done = []
    stage.run(lambda: done.append(1))
    assert done
    assert not (folder / f"logs/{NAME}.pid").exists()


def test_the_log_tells_how_a_run_ended(folder, capsys):
    def refuse():
        raise InputError("bars.csv:7: expected a number, found x")

    def fail():
        raise OSError(28, "No space left on device", "data/x")

    def break_down():
        raise KeyError("bug")

    def grow():
        raise torch.OutOfMemoryError("CUDA out of memory")

    def grow_on_the_cpu():
        torch.empty(2**60)

    stage.run(lambda: None)
    for main in (refuse, fail, grow, grow_on_the_cpu):
        with pytest.raises(SystemExit) as ended:
            stage.run(main)
        assert ended.value.code == 2
    with pytest.raises(KeyError):
        stage.run(break_down)
    assert capsys.readouterr().err.splitlines() == [
        "error: bars.csv:7: expected a number, found x",
        "error: data/x: expected to read or write there, found: No space left on device",
        *[f"error: {NAME}: expected memory enough for it, found none left (docs/scaling.md)"] * 2,
    ]
    begins, ends = log(folder)[::2], log(folder)[1::2]
    assert [entry["result"] for entry in ends] == ["done", "refused", "failed", "failed", "failed", "failed"]
    assert "message" not in ends[0]
    assert ends[1]["message"] == "bars.csv:7: expected a number, found x"
    for entry in begins:
        assert entry["pid"] == os.getpid()
        assert {"time", "host", "platform", "python", "cpus", "memory_gib", "processes", "commit"} <= entry.keys()
    for entry in ends:
        assert entry["seconds"] >= 0
        assert entry["peak_memory_mib"] > 10


def test_no_room_for_the_training_state_is_said(folder, monkeypatch):
    monkeypatch.setattr(training_state, "fingerprint", lambda name: "0" * 16)
    (folder / ".ckpt").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"\.ckpt.*ALGOSPACE_CKPT names another place.*found: Not a directory"):
        training_state.training_state("rde").__enter__()


@pytest.fixture
def rde_at_work(folder, monkeypatch):
    """Another trainer holds the state of `rde`."""
    monkeypatch.setattr(training_state, "fingerprint", lambda name: "0" * 16)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    with training_state.training_state("rde") as state:
        state.ended(1, lambda: {"weight": 1.0})
        yield folder


def test_a_second_trainer_of_the_same_thing_is_refused(rde_at_work):
    with pytest.raises(InputError, match=f"expected no other trainer, found process {os.getpid()} at work on the same"):
        training_state.training_state("rde").__enter__()


def test_a_queued_twin_trains_privately(rde_at_work, tmp_path, monkeypatch):
    """In a workspace that DVC made for it: it neither reads nor touches the other's state."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "temporary")
    with training_state.training_state("rde") as state:
        assert state.resumed is None
        state.ended(2, lambda: {"weight": 2.0})
    (kept,) = (rde_at_work / ".ckpt/rde").glob("*/last.safetensors")
    assert training_state.TrainingState(kept.parent).resumed == {"weight": 1.0, "step": 1}
    assert not (tmp_path / "temporary/.ckpt").exists()


def test_a_relative_place_of_states_is_below_the_repository(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.setenv("ALGOSPACE_CKPT", "states")
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "temporary")
    assert stage.states() == folder / "states"


def test_a_full_disk_keeps_the_state_before(tmp_path, monkeypatch):
    saver = training_state.TrainingState(tmp_path / "state")
    saver.ended(1, lambda: {"weight": 1.0})

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(artefacts, "write_bytes", full)
    with pytest.raises(InputError, match=r"expected to save the training state there .* No space left on device"):
        saver.ended(2, lambda: {"weight": 2.0})
    assert training_state.TrainingState(tmp_path / "state").resumed == {"weight": 1.0, "step": 1}


def test_a_flipped_bit_of_the_training_state_falls_back_to_the_one_before(tmp_path):
    saver = training_state.TrainingState(tmp_path)
    saver.ended(1, lambda: {"weight": [1.0]})
    saver.ended(2, lambda: {"weight": [2.0], "name": "a"})
    path = tmp_path / "last.safetensors"
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert training_state.TrainingState(tmp_path).resumed == {"weight": [1.0], "step": 1}, at
    path.write_bytes(content)
    assert training_state.TrainingState(tmp_path).resumed == {"weight": [2.0], "name": "a", "step": 2}


def test_temporary_files_of_dead_writers_are_removed(tmp_path):
    stale, living = (tmp_path / f".x.json.{pid}.tmp" for pid in (DEAD, os.getppid()))
    other = tmp_path / f".xx.json.{DEAD}.tmp"
    for path in (stale, living, other):
        path.touch()
    artefacts.write_json(tmp_path / "x.json", {})
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "x.json", living, other])


TOY = """
import time
from pathlib import Path

from algospace import artefacts
from algospace.pipeline import stage
from algospace.pipeline.config import load_params

OUT = Path("models/out.json")


def main():
    seed = load_params("seed", int)
    for _ in range(600 if Path("slow").exists() else 0):
        time.sleep(0.1)
    artefacts.write_json(OUT, seed)


if __name__ == "__main__":
    stage.run(main)
"""
TOY_PIPELINE = """
stages:
  toy:
    cmd: python -m stages.toy
    deps: [stages/toy.py]
    params: [seed]
    outs: [models/out.json]
"""


@pytest.fixture
def toy(tmp_path):
    """A DVC repository of one stage, which waits for a minute when there is a file `slow`."""
    for name in ("errors.py", "params.py", "artefacts.py", "__init__.py", "pipeline"):
        source, target = ROOT / "algospace" / name, tmp_path / "algospace" / name
        shutil.copytree(source, target) if source.is_dir() else (
            target.parent.mkdir(exist_ok=True), shutil.copy(source, target)
        )  # fmt: skip
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/__init__.py").touch()
    (tmp_path / "stages/toy.py").write_text(TOY)
    (tmp_path / "dvc.yaml").write_text(TOY_PIPELINE)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / ".gitignore").write_text("/logs/\n/slow\n__pycache__/\n")
    run(tmp_path, "git", "init", "-q", "-b", "main")
    run(tmp_path, "git", "config", "user.name", "a")
    run(tmp_path, "git", "config", "user.email", "a@b")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (tmp_path / ".dvc/.gitignore").write_text("/tmp\n/cache\n")
    return tmp_path


def environment():
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "ALGOSPACE", "PYTEST", "PYTHON"))}
    return clean | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(folder, *command, code=0):
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode == 0) == (code == 0), done.stdout + done.stderr
    return done.stdout + done.stderr


def begin(folder, *command):
    """Start a command in a process group of its own; return once its stage is at work, with the stage's pid."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    holder, deadline = folder / "logs/toy.pid", time.monotonic() + 60
    while not (holder.exists() and holder.read_text().endswith("\n")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, int(holder.read_text())


def patiently(folder, *command):
    """Run a command; DVC holds a file for busy until its dead holder is reaped, a second or two."""
    for _ in range(10):
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )
        if "is busy" not in done.stderr:
            return done
        time.sleep(0.5)
    raise AssertionError(done.stderr)


def test_two_repros_at_once_and_a_trainer_that_outlives_its_dvc(toy):
    (toy / "slow").touch()
    first, pid = begin(toy, "dvc", "repro")
    try:
        assert "is busy" in run(toy, "dvc", "repro", code=255)
        os.kill(first.pid, signal.SIGKILL)  # dvc alone: its stage lives on
        first.wait()
        (toy / "params.yaml").write_text("seed: 2\n")
        refused = patiently(toy, "dvc", "repro")
        assert refused.returncode != 0
        assert f"toy: expected no other run of this stage in {toy}, found process {pid} at work" in refused.stderr
        assert not (toy / "models/out.json").exists()
    finally:
        os.killpg(first.pid, signal.SIGKILL)
    (toy / "slow").unlink()
    assert patiently(toy, "dvc", "repro").returncode == 0
    assert artefacts.read_json(toy / "models/out.json") == 2


def test_a_killed_experiment_leaves_a_detached_head_and_the_readme_s_remedy_works(toy):
    run(toy, "dvc", "repro")
    run(toy, "git", "add", "-A")
    run(toy, "git", "commit", "-qm", "one")
    (toy / "slow").touch()
    process, _ = begin(toy, "dvc", "exp", "run", "-S", "seed=3")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (toy / "slow").unlink()
    assert "HEAD" in run(toy, "git", "rev-parse", "--abbrev-ref", "HEAD")
    assert patiently(toy, "dvc", "repro").returncode == 0  # it finishes the run
    assert artefacts.read_json(toy / "models/out.json") == 3
    (toy / "params.yaml").touch()  # git, which compares seconds, may hold what DVC rewrote within one for unchanged
    run(toy, "git", "checkout", "-qf", "main")  # it goes back
    assert run(toy, "git", "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"
    assert patiently(toy, "dvc", "repro").returncode == 0
    assert artefacts.read_json(toy / "models/out.json") == 1
