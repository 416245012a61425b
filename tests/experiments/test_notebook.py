"""notebooks/colab.ipynb, executed: a tiny pipeline cloned, pulled, run and pushed to a local remote.

`pip` is a stand-in that writes down what it was asked for: the packages are those that run this test.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[2]
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.org")
STAGES = """
stages:
  first: {cmd: cp raw first, deps: [raw], outs: [first]}
  second: {cmd: cat first first > second, deps: [first], params: [times], outs: [second]}
"""


def git(folder, *arguments):
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def dvc(folder, *arguments):
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


@pytest.fixture
def origin(tmp_path):
    """A repository whose remote holds the raw data and the first stage; the second was never run."""
    folder = tmp_path / "origin"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    dvc(folder, "init", "--quiet")
    dvc(folder, "remote", "add", "--default", "store", str(tmp_path / "store"))
    (folder / "raw").write_text("bars\n")
    (folder / "params.yaml").write_text("times: 2\n")
    (folder / "dvc.yaml").write_text(STAGES)
    (folder / "requirements.lock").write_text("")
    dvc(folder, "add", "raw")
    dvc(folder, "repro", "first")
    dvc(folder, "push")
    git(folder, "add", ".")
    git(folder, *IDENTITY, "commit", "--quiet", "--message", "a")
    return folder


def executed(folder, monkeypatch, repository):
    (folder / "bin").mkdir()
    (folder / "bin/pip").write_text(f'#!/bin/sh\necho "$@" >> {folder}/pip_called\n')
    (folder / "bin/pip").chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("DVC", "ALGOSPACE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("ALGOSPACE_REPOSITORY", repository)
    notebook = nbformat.read(ROOT / "notebooks/colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return notebook


@pytest.mark.filterwarnings("default")
def test_the_notebook_clones_pulls_runs_and_pushes(origin, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    notebook = executed(work, monkeypatch, str(origin))
    assert (work / "project/second").read_text() == "bars\nbars\n"
    assert "dvc.lock" in "".join(output["text"] for output in notebook.cells[-1].outputs)
    assert "-r requirements.lock" in (work / "pip_called").read_text()
    dvc(work / "project", "status", "--cloud")
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(work / "project"), str(other))
    (other / "dvc.lock").write_bytes((work / "project/dvc.lock").read_bytes())
    dvc(other, "remote", "modify", "store", "url", str(tmp_path / "store"))
    dvc(other, "pull", "second")
    assert (other / "second").read_text() == "bars\nbars\n"


@pytest.mark.filterwarnings("default")
def test_without_a_remote_it_ends_before_the_work(origin, tmp_path, monkeypatch):
    dvc(origin, "remote", "remove", "store")
    git(origin, *IDENTITY, "commit", "--quiet", "--all", "--message", "no remote")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(CellExecutionError, match="expected a DVC remote that keeps the outs"):
        executed(work, monkeypatch, str(origin))
    assert not (work / "project/second").exists()


@pytest.mark.filterwarnings("default")
def test_what_is_finished_outlives_a_run_that_fails(origin, tmp_path, monkeypatch):
    with (origin / "dvc.yaml").open("a") as file:
        file.write("  third: {cmd: cat nothing > third, deps: [second], outs: [third]}\n")
    git(origin, *IDENTITY, "commit", "--quiet", "--all", "--message", "a stage that fails")
    work, next_day = tmp_path / "work", tmp_path / "next"
    work.mkdir()
    with pytest.raises(CellExecutionError, match="dvc repro"):
        executed(work, monkeypatch, str(origin))
    (origin / "nothing").write_text("")
    git(origin, "add", "nothing")
    git(origin, *IDENTITY, "commit", "--quiet", "--message", "mended")
    next_day.mkdir()
    cells = executed(next_day, monkeypatch, str(origin)).cells
    ran = "".join(output.get("text", "") for cell in cells if cell.cell_type == "code" for output in cell.outputs)
    assert "Running stage 'third'" in ran
    assert "Running stage 'second'" not in ran
    assert (next_day / "project/second").read_text() == "bars\nbars\n"


@pytest.mark.filterwarnings("default")
def test_a_cell_that_fails_stops_the_notebook(tmp_path, monkeypatch):
    with pytest.raises(CellExecutionError, match="git clone"):
        executed(tmp_path, monkeypatch, str(tmp_path / "nowhere"))


def test_the_committed_notebook_is_thin_and_has_no_output():
    notebook = nbformat.read(ROOT / "notebooks/colab.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) <= 6
    assert not any(cell.outputs for cell in cells)
