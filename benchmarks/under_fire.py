"""A small pipeline whose stages are killed, or whose calls fail, at every point: nothing is lost, nothing half-true.

Experiments: ``boundary`` kills a stage at each of its calls on a file (a write is torn), ``full`` makes each call and
all later ones that need space fail as on a full disk, ``error`` makes each call alone fail with an I/O error,
``moment`` kills at a random moment. After each, every file of an artefact is the undisturbed run's or absent, a failure
is one line on stderr, and the next run ends with the undisturbed run's bytes. ``dvc`` kills ``dvc repro`` with all its
children at random moments, again and again, until it comes to its end.
"""

import argparse
import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _fire
from _workspace import environment, workspace

from algospace.pipeline.status import STAGES

MOMENTS, QUICK_MOMENTS = 80, 5
FAULTS = {"boundary": 0, "full": errno.ENOSPC, "error": errno.EIO}
QUICK_SHARE = 20  # one call in so many
DVC_RUNS, LONGEST = 4, 30.0  # repeated whole pipelines, and seconds before a kill at most
NOT_WHOLE, NOT_ONE_LINE, NOT_SAME, LEFT = "not whole", "not one line", "other bytes", "left behind"


class Referee:
    """Judges a disturbed run by the undisturbed one's files.

    The next run is a function of what it finds: it is made once for each different state that a disturbance leaves.
    """

    def __init__(self, furnace: _fire.Furnace, reference: dict[str, str]) -> None:
        self._furnace, self._reference = furnace, reference
        self._after: dict[str, list[str]] = {}

    def judge(self, stage: str, ended: _fire.Ended) -> dict[str, Any]:
        """Say what state a disturbed run left and what is ``wrong``, then or after the run that follows."""
        folder = self._furnace.folder
        own = {name: digest for name, digest in self._reference.items() if belongs(folder, stage, name)}
        wrong = []
        if any(own.get(name) != digest for name, digest in _fire.digests(folder, [stage]).items() if "/." not in name):
            wrong.append(NOT_WHOLE)
        if ended.code > 0:
            lines = [line for line in ended.stderr.splitlines() if "going on from step" not in line]
            if ended.code != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
                wrong.append(NOT_ONE_LINE)
        found = _fire.state(folder, stage)
        if found not in self._after:
            self._after[found] = self._next_run(stage, own)
        return {"state": found[:12], "wrong": wrong + self._after[found]}

    def _next_run(self, stage: str, own: dict[str, str]) -> list[str]:
        again, folder = self._furnace.run(stage), self._furnace.folder
        if again.code != 0 or _fire.digests(folder, [stage]) != own:
            return [f"{NOT_SAME}: {again.code} {again.stderr[-300:]}"]
        return [f"{LEFT}: {name}" for name in _fire.leftovers(folder, stage)]


def belongs(folder: Path, stage: str, name: str) -> bool:
    """Whether a file is an out of a stage, or lies in one."""
    return any(Path(name).is_relative_to(out) for out in _fire.declared(folder, stage))


def cases(runs: dict[str, _fire.Ended], every: int, moments: int) -> list[tuple[str, str, float]]:
    """All disturbances: experiment, stage, and the call or (as a share of the run) the moment.

    Of the calls one in ``every``; of the kills all before and after a rename, by which an artefact comes into being.
    """
    found: list[tuple[str, str, float]] = []
    for experiment in FAULTS:
        for number, (stage, run) in enumerate(runs.items()):
            total = len(run.calls)
            chosen = set(range(1 + number % every, total + 1, every))
            if experiment == "boundary":
                renames = {at for at, kind in enumerate(run.calls, start=1) if kind == _fire.RENAME}
                chosen |= renames | {min(at + 1, total) for at in renames}
            found += [(experiment, stage, at) for at in sorted(chosen)]
    rng = random.Random(0)
    return found + [("moment", rng.choice(STAGES), round(rng.random(), 4)) for _ in range(moments)]


def stages_under_fire(
    folder: Path, library: Path, every: int, moments: int, only: set[str], done: set[str]
) -> Iterator[dict[str, Any]]:
    """Run experiments on single stages, a row each; what ``done`` names is left out."""
    workspace(folder, _fire.TINY)
    with _fire.Furnace(folder, library) as furnace:
        for stage in STAGES:
            ended = furnace.run(stage)
            if ended.code:
                raise SystemExit(f"{stage}: {ended.stderr}")
        reference = _fire.digests(folder)
        runs = {}
        for stage in STAGES:
            _fire.clear(folder, stage)
            runs[stage] = furnace.run(stage)
        if _fire.digests(folder) != reference:
            raise SystemExit("two undisturbed runs differ")
        referee, store = Referee(furnace, reference), folder.with_name("store")
        _fire.keep(folder, store)
        for experiment, stage, at in cases(runs, every, moments):
            case = f"{experiment} {stage} {at}"
            if experiment not in only or case in done:
                continue
            _fire.restore(folder, store)
            _fire.clear(folder, stage)
            if experiment == "moment":
                ended = furnace.run(stage, kill_after=at * runs[stage].seconds)
            else:
                ended = furnace.run(stage, int(at), error=FAULTS[experiment], lasting=experiment == "full")
            yield {
                "case": case, "code": ended.code, "error": ended.stderr.strip()[-200:],
                **referee.judge(stage, ended),
            }  # fmt: skip


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dvc", *arguments], cwd=folder, env=one_thread(), capture_output=True, text=True, check=False
    )


def one_thread() -> dict[str, str]:
    return environment(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")


def pipelines_under_fire(folder: Path, quick: bool, done: set[str]) -> Iterator[dict[str, Any]]:
    """Kill ``dvc repro`` at random moments until it ends, and compare its lock and files with an undisturbed one's."""
    runs = [f"dvc {number}" for number in range(1 if quick else DVC_RUNS)]
    if set(runs) <= done:
        return
    straight = repository(folder / "straight")
    outcome = dvc(straight, "repro")
    if outcome.returncode:
        raise SystemExit(outcome.stdout + outcome.stderr)
    reference = _fire.digests(straight) | {"lock": (straight / "dvc.lock").read_text()}
    for number, case in enumerate(runs):
        if case in done:
            continue
        place = repository(folder / str(number))
        kills = kill_until_done(place, random.Random(number))
        same = _fire.digests(place) | {"lock": (place / "dvc.lock").read_text()} == reference
        wrong = [] if same else [NOT_SAME]
        yield {"case": case, "kills": len(kills), "after_s": kills, "wrong": wrong}
        shutil.rmtree(place)


def repository(folder: Path) -> Path:
    """Make a workspace with a DVC repository of its own."""
    workspace(folder, _fire.TINY)
    for arguments in (["init", "--no-scm", "--quiet"], ["config", "core.analytics", "false"]):
        dvc(folder, *arguments)
    return folder


def kill_until_done(folder: Path, rng: random.Random) -> list[float]:
    """Start ``dvc repro`` and kill its process group after a random time, until one run ends; return the times."""
    kills: list[float] = []
    while True:
        process = subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=one_thread(), start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        after = rng.uniform(0.5, LONGEST)
        try:
            output, _ = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills.append(round(after, 2))
            time.sleep(2)  # until the dead holders of DVC's lock are reaped
            continue
        if process.returncode:
            raise SystemExit(f"{folder}: {output}")
        return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help=f"one call in {QUICK_SHARE}, one pipeline of dvc's")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one call in N; of the kills all at renames")
    parser.add_argument("--out", type=Path, help="JSON lines of single runs; those that are there are not run again")
    parser.add_argument("--only", choices=[*FAULTS, "moment", "dvc"], action="append", help="some experiments only")
    arguments = parser.parse_args()
    only = set(arguments.only or (*FAULTS, "moment", "dvc"))
    out: Path | None = arguments.out
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []
    done = {row["case"] for row in rows}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = _fire.compiled(folder)
        if library is None:
            sys.exit("under_fire: expected Linux and a C compiler, found none")
        share, moments = (QUICK_SHARE, QUICK_MOMENTS) if arguments.quick else (arguments.every, MOMENTS)
        runs = [stages_under_fire(folder / "stages", library, share, moments, only, done)] if only != {"dvc"} else []
        runs += [pipelines_under_fire(folder / "dvc", arguments.quick, done)] if "dvc" in only else []
        for row in itertools.chain(*runs):
            rows.append(row)
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    for line in summary(rows):
        print(json.dumps(line) if arguments.json else ", ".join(f"{k}: {v}" for k, v in line.items()), flush=True)
    sys.exit(int(any(row["wrong"] for row in rows)))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count the runs of each experiment and stage, and what went wrong."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(" ".join(row["case"].split()[:-1]), []).append(row)
    return [
        {
            "benchmark": "under_fire", "experiment": name, "runs": len(group),
            "states": len({row["state"] for row in group if "state" in row}),
            "disturbed": sum(row.get("kills", int(row.get("code", 0) != 0)) for row in group),
            "wrong": {row["case"]: row["wrong"] for row in group if row["wrong"]},
        }
        for name, group in groups.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
