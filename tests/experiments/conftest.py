"""A finished pipeline of seconds, in a repository of its own: what works on top of one is tried on copies of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import _fire
import _workspace
import pytest

from algospace.pipeline.status import STAGES

ROOT = Path(__file__).parents[2]
# The five stages, each in a fork of one process: what they import is imported once.
ALL_STAGES = """
import importlib, os, sys
from algospace.pipeline import stage
import matplotlib.pyplot, onnxscript, sklearn.manifold, torch._dynamo, torch.onnx
for name in sys.argv[1:]:
    script = importlib.import_module(f"stages.{name}")
    child = os.fork()
    if child == 0:
        stage.run(script.main)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


class Project:
    """A folder with a pipeline; commands that run in it."""

    def __init__(self, folder, **environment):
        self.folder, self.environment = folder, _workspace.environment(**environment)

    def run(self, *command):
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=900, check=False
        )

    def ok(self, *command):
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def algospace(self, *arguments):
        return self.run(sys.executable, "-m", "algospace.cli", *arguments)

    def stage(self, name):
        return self.run(sys.executable, "-m", f"stages.{name}")

    def run_stages(self):
        """All five, one after the other, without DVC."""
        self.ok(sys.executable, "-c", ALL_STAGES, *STAGES)

    def copy(self, folder, command=None, **environment):
        """Another project: this folder copied, or what a command makes of it."""
        if command is None:
            shutil.copytree(self.folder, folder, symlinks=True)
        else:
            self.ok(*command, str(self.folder), str(folder))
        return Project(folder, **environment)

    def commit(self, message):
        self.ok("git", "add", ".")
        self.ok("git", "commit", "--quiet", "--message", message)

    def digests(self):
        return _fire.digests(self.folder)

    def params(self, **values):
        dotted = {key.replace("__", "."): value for key, value in values.items()}
        _workspace.set_params(self.folder / "params.yaml", dotted)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = _workspace.workspace(tmp_path_factory.mktemp("tiny") / "finished", _fire.TINY | {"marl.seeds": [0, 1]})
    for name in (".gitignore", "Makefile", "sweep.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    project = Project(folder)
    project.ok("git", "init", "--quiet", "--initial-branch", "main")
    project.ok("git", "config", "user.name", "a")
    project.ok("git", "config", "user.email", "a@example.org")
    project.ok("dvc", "init", "--quiet")
    project.ok("dvc", "config", "core.analytics", "false")
    project.commit("the code")
    project.run_stages()
    project.ok("dvc", "commit", "--force")
    project.commit("a run")
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A copy that a test may change."""
    return finished.copy(tmp_path / "project")


@pytest.fixture
def elsewhere(finished, tmp_path):
    """Another copy, whose training states lie where the test says."""
    return lambda **environment: finished.copy(tmp_path / "elsewhere", **environment)
