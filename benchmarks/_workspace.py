"""A folder of its own for a pipeline: the code that stands here, and params with some keys changed."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def workspace(folder: Path, values: dict[str, Any]) -> Path:
    """Copy what the pipeline needs (with its compiled kernels) into a new folder, with these params."""
    folder.mkdir(parents=True)
    for name in ("algospace", "stages"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "data/raw").mkdir(parents=True)
    shutil.copy(ROOT / "data/raw/README.md", folder / "data/raw")
    (folder / "metrics").mkdir()
    (folder / "metrics/trials.jsonl").touch()  # export depends on it
    set_params(folder / "params.yaml", values)
    return folder


def set_params(path: Path, values: dict[str, Any]) -> None:
    """Set dotted keys of a ``params.yaml``; each must be there already."""
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        *parents, leaf = key.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        if leaf not in section:
            raise KeyError(key)
        section[leaf] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def environment(**changes: str) -> dict[str, str]:
    """The environment without what would steer DVC, the package or Python from outside."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "ALGOSPACE", "PYTEST", "PYTHON"))}
    return clean | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | changes
