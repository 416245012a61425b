"""Wheel and sdist hold the whole package, and an empty environment can install and call it."""

import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
CHECK = """
from importlib import metadata, resources
import algospace
package = resources.files("algospace")
assert "site-packages" in str(package), package
assert all(package.joinpath(name).is_file() for name in ("py.typed", "report.html.jinja", "pipeline/profiles.yaml"))
assert metadata.version("algospace") == algospace.__version__
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """What `make dist` makes, from a copy without compiled files."""
    folder = tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "algospace", folder / "algospace", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    run(sys.executable, "-c", BUILD, cwd=folder)
    return folder / "dist"


def package_files():
    files = (path for path in (ROOT / "algospace").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_wheel_and_sdist_hold_every_file_of_the_package_and_no_other_code(dist):
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == package_files()
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert package_files() <= inside


def test_the_sdist_builds_the_same_wheel(dist, tmp_path):
    (sdist,) = dist.glob("*.tar.gz")
    build = ("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(sdist))
    run(sys.executable, "-m", "pip", *build, cwd=tmp_path)
    contents = [
        {name: file.read(name) for name in file.namelist() if ".dist-info/" not in name}
        for (path,) in (dist.glob("*.whl"), tmp_path.glob("*.whl"))
        for file in [zipfile.ZipFile(path)]
    ]
    assert contents[0] == contents[1]


def test_an_empty_environment_installs_and_calls_it(dist, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    python = str(tmp_path / "venv/bin/python")
    (wheel,) = dist.glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", str(wheel), cwd=tmp_path)
    assert "sweep" in run(str(tmp_path / "venv/bin/algospace"), "--help", cwd=tmp_path)
    run(python, "-c", CHECK, cwd=tmp_path)


def test_the_makefile_and_this_test_build_alike():
    assert BUILD in (ROOT / "Makefile").read_text()


def test_pre_commit_calls_the_locked_tools():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert all(hook["language"] == "system" for hook in hooks)
    locked = (ROOT / "requirements-dev.lock").read_text()
    for hook in hooks:
        (tool,) = re.findall(r"\.venv/bin/(\S+)", hook["entry"])
        assert f"\n{tool}==" in locked


@pytest.mark.parametrize(
    ("target", "command"),
    [
        (("rde-distributed",), "torchrun --standalone --nproc-per-node=2 -m stages.rde && dvc commit --force rde"),
        (("marl-distributed", "PROCESSES=4"), "--nproc-per-node=4 -m stages.marl && dvc commit --force marl"),
        (
            ("marl-machines", "MACHINES=2", "PROCESSES=1", "MEET=a:29500"),
            "torchrun --nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint=a:29500 -m stages.marl",
        ),
        (("rde-machines", "MACHINES=3", "MEET=a:1"), "--nnodes=3 --nproc-per-node=2 --rdzv-backend=c10d"),
        (("sweep", "TRIALS=7", "STORAGE=a.log"), "algospace sweep --trials 7 --storage 'a.log'"),
        (("docs",), "python .ci/docs.py site"),
    ],
)
def test_make_calls_what_the_docs_say(target, command):
    lines = run("make", "--dry-run", *target, cwd=ROOT).splitlines()
    assert command in lines[-1]
