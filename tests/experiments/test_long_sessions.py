"""A session that ends, a machine that dies: another folder goes on from the saved state, to the same bytes."""

import json
import signal
import subprocess
import sys
import time

import _fire
import pytest

from algospace.errors import InputError
from algospace.pipeline import session
from algospace.pipeline.session import Session, SessionEnded, is_dvc
from algospace.pipeline.training_state import TrainingState

MOMENT = "1e-9"  # hours


def test_the_hours_end_and_another_folder_goes_on_to_the_same_bytes(finished, project, elsewhere, tmp_path):
    stage = "marl"
    project.environment |= {"ALGOSPACE_MAX_HOURS": MOMENT, "ALGOSPACE_CKPT": str(tmp_path / "drive")}
    done = project.stage(stage)
    assert done.returncode == 75
    last = done.stderr.splitlines()[-1]
    assert f"{stage}: ALGOSPACE_MAX_HOURS=1e-09 is over at step " in last
    assert f"saved in {tmp_path / 'drive' / stage}" in last
    assert "Traceback" not in done.stderr
    status = json.loads((project.folder / f"logs/{stage}.status.json").read_text())
    assert status["state"] == "stopped"
    assert status["message"] == last
    assert json.loads((project.folder / f"logs/{stage}.jsonl").read_text().splitlines()[-1])["result"] == "stopped"
    other = elsewhere(ALGOSPACE_CKPT=str(tmp_path / "drive"))
    _fire.clear(other.folder, stage)
    done = other.stage(stage)
    assert done.returncode == 0, done.stderr
    assert f"{stage}: " in done.stderr
    assert "going on from step " in done.stderr
    assert other.digests() == finished.digests()
    assert json.loads((other.folder / f"logs/{stage}.status.json").read_text())["state"] == "done"
    assert not list((tmp_path / "drive" / stage).rglob("*.safetensors"))


def test_killed_on_one_machine_it_goes_on_on_another(finished, project, elsewhere, tmp_path):
    drive = tmp_path / "drive"
    code = "from algospace.pipeline import training_state as t; t.SAVE_EVERY = 1; import runpy; "
    code += "runpy.run_module('stages.rde', run_name='__main__', alter_sys=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=project.folder, env=project.environment | {"ALGOSPACE_CKPT": str(drive)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not list(drive.rglob("last.safetensors")):
            assert process.poll() is None, "it ended before it saved a state"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    other = elsewhere(ALGOSPACE_CKPT=str(drive))
    _fire.clear(other.folder, "rde")
    done = other.stage("rde")
    assert done.returncode == 0, done.stderr
    assert "going on from step " in done.stderr
    assert other.digests() == finished.digests()


def test_it_warns_once_ahead_of_the_limit(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(session.time, "time", lambda: now)
    clock = Session(24.0, 0.0)
    said = []
    for hour in (1, 23.4, 23.6, 23.9, 24.0):
        now = hour * 3600
        said.append((clock.is_over("marl"), capsys.readouterr().err))
    assert [over for over, _ in said] == [False, False, False, False, True]
    assert [bool(text) for _, text in said] == [False, False, True, False, False]
    assert said[2][1] == "marl: 24 minutes until ALGOSPACE_MAX_HOURS=24: then it saves and stops\n"


def test_the_last_step_is_saved_whatever_the_rhythm(tmp_path):
    state = TrainingState(tmp_path, "rde", session=Session(1.0, time.time() - 3601))
    with pytest.raises(SessionEnded, match="is over at step 3"):
        state(3, lambda: {"weight": 0.5})
    assert TrainingState(tmp_path).resumed == {"weight": 0.5, "step": 3}


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_bad_hours_are_one_line(monkeypatch, text):
    monkeypatch.setenv("ALGOSPACE_MAX_HOURS", text)
    with pytest.raises(InputError, match=f"ALGOSPACE_MAX_HOURS: expected hours above 0, found {text}"):
        Session.of_environment()


def test_without_the_variable_there_is_no_limit(monkeypatch):
    monkeypatch.delenv("ALGOSPACE_MAX_HOURS", raising=False)
    assert Session.of_environment() is None


def test_the_hours_count_from_the_dvc_command(project):
    # The system tells its start in whole seconds, now of one, now of the next: two readings may lie a second apart.
    (project.folder / "dvc.yaml").write_text("stages:\n  a:\n    cmd: sleep 3; python a.py\n")
    (project.folder / "a.py").write_text(
        "import psutil\nfrom algospace.pipeline.session import began\n"
        "assert psutil.Process().create_time() - began() > 1.5\n"
    )
    project.ok("dvc", "repro")


@pytest.mark.parametrize(
    ("command", "counts"),
    [
        ("/venv/bin/python /venv/bin/dvc repro marl", True),
        ("python3.11 -m dvc exp run", True),
        ("python /venv/lib/dvc/__main__.py daemon", True),
        ("dvc repro", True),
        ("nvim dvc.yaml", False),
        ("code projects/dvc-course", False),
        ("bash -c dvc", False),
        ("python -m stages.rde", False),
        ("", False),
    ],
)
def test_only_dvc_itself_counts(command, counts):
    assert is_dvc(command.split()) is counts
