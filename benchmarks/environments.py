"""The small pipeline in other surroundings (hash seed, locale, zone, umask, folder, threads): which files differ.

Each run is of fresh processes in a fresh copy. Only the thread count (a parameter, unlike the others) may change bytes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _fire
from _workspace import environment, workspace

from algospace.pipeline.status import STAGES

FREE = {"OMP_NUM_THREADS": "", "NUMBA_NUM_THREADS": ""}  # unset
PLAIN: dict[str, str] = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
# name -> environment, umask, name of the folder, params
SURROUNDINGS: dict[str, tuple[dict[str, str], int, str, dict[str, Any]]] = {
    "undisturbed": (PLAIN, 0o022, "plain", {}),
    "all others, west": (
        {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "America/New_York", "PYTHONUTF8": "0"}, 0o077, "a b", {},
    ),
    "all others, east": (
        {"PYTHONHASHSEED": "4294967295", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"}, 0o002, "x/ü z", {},
    ),
    "the machine's threads": (PLAIN | FREE, 0o022, "free", {}),
    "runtime.threads: 2": (PLAIN | FREE, 0o022, "two", {"runtime.threads": 2}),
}  # fmt: skip
QUICK = ("undisturbed", "all others, west")


def run(folder: Path, name: str) -> dict[str, str]:
    """Run the five stages in one of the surroundings; return the digests of what they write."""
    changes, umask, place, params = SURROUNDINGS[name]
    work = workspace(folder / place, _fire.TINY | params)
    variables = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} | changes
    given = {key: value for key, value in environment(**variables).items() if value}
    before = os.umask(umask)
    try:
        for stage in STAGES:
            done = subprocess.run(
                [sys.executable, "-m", f"stages.{stage}"], cwd=work, env=given, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{name}: {stage}: {done.stderr}")
    finally:
        os.umask(before)
    return _fire.digests(work)


def rows(names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Compare each of the surroundings with the first."""
    with tempfile.TemporaryDirectory() as place:
        expected = run(Path(place), names[0])
        for name in names[1:]:
            found = run(Path(place), name)
            other = sorted(file for file in expected.keys() | found.keys() if expected.get(file) != found.get(file))
            yield {"benchmark": "environments", "surroundings": name, "files": len(expected), "other_bytes": other}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help="one of the other surroundings instead of all")
    arguments = parser.parse_args()
    wrong = False
    for row in rows(QUICK if arguments.quick else tuple(SURROUNDINGS)):
        wrong |= bool(row["other_bytes"]) and "runtime.threads" not in row["surroundings"]
        print(json.dumps(row) if arguments.json else ", ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
