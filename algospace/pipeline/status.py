"""What DVC says of the pipeline."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from algospace.errors import InputError

STAGES = ("prepare", "rde", "mrms", "marl", "export")
TRAINING = STAGES[1:-1]  # those that train: they save states, and a sweep may search their params


def changed() -> dict[str, list[str]]:
    """Stage of the project in this folder -> what makes it out of date (``params.yaml marl``, ``data/raw modified``).

    Raises
    ------
    InputError
        As `answer`.
    """
    return {stage: _reasons(found) for stage, found in answer(Path(), "status").items() if stage in STAGES}


def answer(root: Path, *command: str) -> Any:
    """What a command of DVC's says about ``root``, as JSON.

    Raises
    ------
    InputError
        If ``root`` is no DVC repository, or DVC cannot read it.
    """
    if importlib.util.find_spec("dvc") is None:
        raise InputError(f"{root}: expected DVC beside this Python, found none; install algospace with it")
    done = subprocess.run(  # the one of this environment, whatever PATH holds
        [sys.executable, "-m", "dvc", *command, "--json"], cwd=root, capture_output=True, text=True, check=False
    )
    if "is busy" in done.stderr or "Unable to acquire lock" in done.stderr:
        raise InputError(f"{root}: expected no other dvc command at work, found one; wait for it (docs/reliability.md)")
    if done.returncode != 0:
        found = " ".join(done.stderr.split())[-200:] or f"exit code {done.returncode}"
        raise InputError(f"{root}: expected a DVC repository, found: {found}")
    return json.loads(done.stdout)


def _reasons(found: list[object]) -> list[str]:
    """One line for each changed file or section of DVC's answer for a stage."""
    reasons = []
    for entry in found:
        if isinstance(entry, str):
            reasons.append(entry)  # "changed command", "always changed"
        elif isinstance(entry, dict):
            for paths in entry.values():
                for path, state in paths.items():
                    keys = state if isinstance(state, dict) else {"": state}
                    reasons += [" ".join(filter(None, (str(path), str(key), str(how)))) for key, how in keys.items()]
    return reasons
