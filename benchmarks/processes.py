"""How much faster RDE and the agents train on two processes than on one: the stages under torchrun, a thread each.

It needs a project whose pipeline has run (`make repro`); the stages run in a copy of it, with one seed of the agents
and, with --quick, fewer steps. Beside it one process of two threads, which is what `dvc repro` does. The time is that
of the whole stage: what is not shared among processes (exams, pictures, start of Python) counts.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from _measure import interleaved, main
from _workspace import ROOT, set_params, workspace

WAYS = {"one process": (1, 1), "two threads": (1, 2), "two processes": (2, 1)}  # processes, threads of each
STAGES = ("rde", "marl")
READ = ("data/prepared", "data/regimes", "data/proposals", "models/mrms")  # by the stages
VALUES = {"marl.seeds": [0], "rde.optimizer.patience": 60}  # as many epochs in each
QUICK_VALUES = {"rde.optimizer.epochs": 8, "marl.ppo.total_timesteps": 16384, "marl.pretraining.optimizer.epochs": 4}


def prepared(folder: Path, quick: bool) -> Path:
    """Make a workspace that holds what the stages read."""
    workspace(folder, VALUES | (QUICK_VALUES if quick else {}))
    for name in READ:
        if not (ROOT / name).exists():
            raise SystemExit(f"{name}: expected a pipeline that has run, found nothing; make repro")
        shutil.copytree(ROOT / name, folder / name)
    return folder


def run(folder: Path, stage: str, processes: int, threads: int) -> None:
    """One run of a stage, from its start."""
    set_params(folder / "params.yaml", {"runtime.threads": threads})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, "-m", f"stages.{stage}"], cwd=folder, check=False, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{stage} failed: {done.stderr[-2000:]}")


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    """A row a stage."""

    def row(stage: str) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            with tempfile.TemporaryDirectory(prefix="processes-") as name:
                folder = prepared(Path(name) / "run", quick)
                ways = [lambda way=way: run(folder, stage, *way) for way in WAYS.values()]
                medians = dict(zip(WAYS, interleaved(ways, 1 if quick else 3), strict=True))
            seconds = {f"seconds, {name}": round(median, 1) for name, median in medians.items()}
            gains = {f"gain, {name}": round(medians["one process"] / medians[name], 2) for name in list(WAYS)[1:]}
            return {"benchmark": f"processes, {stage}"} | seconds | gains

        measure.__name__ = f"processes, {stage}"
        return measure

    return [row(stage) for stage in STAGES]


if __name__ == "__main__":
    main(__doc__ or "", rows)
