"""The core's packages are enough to load a bundle and decide, and the command line imports what it needs, late."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from algospace.policy import bundle
from algospace.policy.decide import decide

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Stands for an environment without the packages named in its argument.
BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from algospace.cli import main
sys.exit(main(sys.argv[2:]))
"""


def modules(requirements: list[str]) -> set[str]:
    """Top-level modules of the distributions that are required, as far as they are installed."""
    wanted = {canonicalize_name(Requirement(text).name) for text in requirements}
    return {
        module
        for module, owners in packages_distributions().items()
        if {canonicalize_name(owner) for owner in owners} & wanted
    }


OPTIONAL = modules([text for texts in PROJECT["optional-dependencies"].values() for text in texts]) - {"algospace"}


def run(blocked, *arguments):
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, ",".join(blocked), *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


def test_the_extras_are_what_is_thought():
    assert {"dvc", "dvclive", "matplotlib", "sklearn", "h5py", "onnx", "onnxruntime", "yaml", "talib"} <= OPTIONAL
    assert not OPTIONAL & {"numpy", "pandas", "torch", "numba", "pyarrow", "pydantic", "safetensors", "scipy"}


def test_a_bundle_decides_without_the_extras(trading, market_bars, tmp_path):
    directory, bars, given = tmp_path / "bundle", tmp_path / "bars.parquet", market_bars.iloc[:4000]
    bundle.write(directory, trading, {})
    given[["start_utc", "open", "high", "low", "close", "volume"]].rename(columns={"start_utc": "datetime"}).to_parquet(
        bars
    )
    found = run(OPTIONAL, "decide", directory, bars)
    assert found.stderr == ""
    assert [json.loads(line) for line in found.stdout.splitlines()] == decide(trading, given).records
    assert found.stdout


def test_a_command_that_needs_an_extra_says_so(tmp_path):
    found = run(OPTIONAL, "params")
    assert found.returncode == 2
    assert found.stderr == (
        "error: yaml: expected an installed package, found none; algospace's extra [pipeline] brings what "
        "training and reports need\n"
    )


@pytest.mark.parametrize("command", [[], ["decide"], ["features"], ["verify"], ["params"]])
def test_help_imports_nothing_heavy(command):
    """Half a second would not do for torch, pandas or numpy."""
    heavy = ("torch", "pandas", "numpy", "numba", "scipy", "pyarrow", "pydantic")
    found = run(heavy, *command, "--help")
    assert found.returncode == 0
    assert found.stdout.startswith("usage: algospace")
