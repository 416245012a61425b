"""What DVC takes when there is nothing to do, in a finished pipeline and in an empty one of five stages; help too.

The empty one's stages copy a small file each, in a Git repository of its own: what is left is DVC.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from _measure import interleaved, main
from _workspace import ROOT, environment

from algospace.pipeline.status import STAGES

RUNS, QUICK_RUNS = 11, 3


def run(folder: Path, *command: str) -> None:
    """Run a command to its end."""
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)


def empty(folder: Path) -> Path:
    """Make a pipeline of five stages that do nothing, and run it."""
    stages = {b: {"cmd": f"cp {a} {b}", "deps": [a], "outs": [b]} for a, b in pairwise(("start", *STAGES))}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "start").touch()
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    run(folder, "dvc", "repro")
    run(folder, "git", "add", ".")
    run(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "empty")
    return folder


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    """One row: medians in seconds and their ratios."""

    def noop() -> dict[str, Any]:
        ways: dict[str, Callable[[], None]] = {}
        with tempfile.TemporaryDirectory() as name:
            peer = empty(Path(name))
            for command in ("repro", "status"):
                ways[command] = partial(run, ROOT, "dvc", command)
                ways[f"{command}, empty"] = partial(run, peer, "dvc", command)
            ways["help"] = partial(run, ROOT, "algospace", "--help")
            medians = dict(zip(ways, interleaved(list(ways.values()), QUICK_RUNS if quick else RUNS), strict=True))
        ratios = {f"ratio, {way}": round(medians[way] / medians[f"{way}, empty"], 2) for way in ("repro", "status")}
        return {"benchmark": "noop"} | {f"seconds, {way}": round(s, 3) for way, s in medians.items()} | ratios

    return [noop]


if __name__ == "__main__":
    main(__doc__ or "", rows)
