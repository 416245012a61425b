"""Curves for dvc plots: one file a name, a row a step, whole or not at all."""

import gc
import subprocess
import warnings
from pathlib import Path

import pytest

from algospace.errors import InputError
from algospace.pipeline.curves import write_curves

HISTORY = [{"loss": 0.5, "train/step": 1.0}, {"loss": 0.25, "train/step": 2.0}]


@pytest.fixture(autouse=True)
def unclosed():
    """DVCLive leaves git's open files to the garbage collector, which says so."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def files(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in sorted(directory.rglob("*.tsv"))}


def test_a_row_a_step_and_the_same_bytes_again(tmp_path):
    write_curves(tmp_path / "curves", HISTORY)
    found = files(tmp_path / "curves")
    assert found["plots/metrics/loss.tsv"].splitlines() == ["step\tloss", "0\t0.5", "1\t0.25"]
    write_curves(tmp_path / "curves", HISTORY)
    assert files(tmp_path / "curves") == found


def test_a_repository_without_a_commit_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    with pytest.raises(InputError, match="git: expected a repository with a commit"):
        write_curves(Path("curves"), HISTORY)
    assert not Path("curves").exists()
