"""Is everything there that a run needs? Looks, measures and says what to do; makes nothing."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from algospace import artefacts
from algospace.data import contracts, sources, splits
from algospace.data.params import DataParams
from algospace.errors import InputError
from algospace.params import RuntimeParams
from algospace.pipeline import status
from algospace.pipeline.config import load_params
from algospace.pipeline.owners import OWNERS, require_valid
from algospace.pipeline.session import Session
from algospace.pipeline.stage import LOGS, states

LOCK = Path("requirements.lock")
RAW = Path("data/raw")
MANIFEST = Path("data/prepared/manifest.json")
PREPARED_METRICS = Path("metrics/prepare.json")
PYTHON = (3, 11)
MEMORY_GIB = 2.0  # twice what the largest process of a run with the default params holds
DISK_GIB = 2.0  # outs, DVC's cache of them and training states, several times over
READ_BYTES = 64 * 2**20  # of bar files that are read here and now; of larger ones the last `prepare` tells
COMMIT = "git init && git add . && git commit -m start"
BROKEN = f"mend what it names; where there is no git repository, `{COMMIT}`; where there is no .dvc, `dvc init`"
NOT_MEASURED = "not measured here yet"


class Check(NamedTuple):
    """What was looked at and found; ``remedy`` is empty where all is well."""

    name: str
    found: str
    remedy: str = ""
    details: dict[str, Any] = {}  # noqa: RUF012 -- for --json; never written to

    @property
    def ready(self) -> bool:
        """Whether nothing has to be done."""
        return not self.remedy


class Phase(NamedTuple):
    """A stage of the plan."""

    stage: str
    state: str  # up to date, or why it will run
    seconds: float | None  # what its last whole run here took; None where there was none
    note: str = ""


class Readiness(NamedTuple):
    """All checks and the plan."""

    checks: list[Check]
    plan: list[Phase]

    @property
    def ready(self) -> bool:
        """Whether a run can begin."""
        return all(check.ready for check in self.checks)


def inspect() -> Readiness:
    """Look at the project in this folder."""
    params = _params()
    changed, pipeline = _dvc()
    checks = [_python(), _packages(), params]
    if params.ready:
        checks += [_device(), *_bars(), _gate1(counted=pipeline.ready and "prepare" not in changed)]
    checks += [_memory(), _disk(), _states()]
    return Readiness([*checks, pipeline], plan(changed) if pipeline.ready else [])


def _dvc() -> tuple[dict[str, list[str]], Check]:
    """What is out of date, and whether DVC can say so and the stages can write their curves."""
    try:
        changed = status.changed()
    except InputError as error:
        return {}, Check("dvc", str(error), BROKEN)
    if Path(".git").exists() and shutil.which("git"):
        head = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True, check=False)
        if head.returncode != 0:
            return changed, Check("dvc", "a git repository without a commit", COMMIT)
    return changed, Check("dvc", "a repository")


def _bars() -> list[Check]:
    """Each input file: hash, rows, range, quality."""
    try:
        data, _ = sources.resolve(load_params("data", DataParams), RAW)
        if data.source == "synthetic":
            return [Check("bars", f"the embedded market {data.synthetic.market}: no input file")]
        paths = sources.find(data, RAW)
        if sum(path.stat().st_size for path in paths) > READ_BYTES:
            return _bars_as_prepared(paths)
        loaded = sources.load(data, contracts.resolve(data.symbol, data.contract, data.calendar), RAW)
        splits.split(loaded.bars, data)
    except (InputError, OSError) as error:
        return [Check("bars", str(error), "mend the file, or the data.* keys of params.yaml (docs/data.md)")]
    return [_bars_check(loaded.source, loaded.quality)]


def _bars_as_prepared(paths: list[Path]) -> list[Check]:
    """What the last `prepare` said of files that are too large to be read in passing."""
    prepared = artefacts.read_json(MANIFEST) if MANIFEST.is_file() else {}
    known = {entry["sha256"] for entry in prepared.get("source", {}).get("files", [])}
    if {artefacts.sha256(path) for path in paths} <= known:
        return [_bars_check(prepared["source"], prepared["quality"])]
    return [Check("bars", f"{', '.join(path.name for path in paths)}: rows, range and quality {NOT_MEASURED}")]


def _bars_check(source: Mapping[str, Any], quality: Mapping[str, Any]) -> Check:
    files = ", ".join(f"{entry['path']} ({entry['sha256'][:12]})" for entry in source["files"])
    found = f"{files}: {source['rows']} rows, {source['first_utc']} to {source['last_utc']}"
    return Check("bars", f"{found}, quality {quality['score']:.1f}", "", dict(source) | {"quality": quality["score"]})


def _python() -> Check:
    found = platform.python_version()
    wanted = ".".join(map(str, PYTHON))
    remedy = "" if sys.version_info >= PYTHON else f"make setup PYTHON=python{wanted}"
    return Check("python", found, remedy, {"version": found})


def _packages() -> Check:
    """Versions against the lock; a build of torch (``2.13.0+cpu``) counts as its version."""
    if not LOCK.is_file():
        return Check("packages", f"{LOCK}: expected it here, found nothing", "run it in the project's folder")
    wanted = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    differing = {}
    for name, version in wanted.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = ""
        if found.partition("+")[0] != version:
            differing[name] = {"lock": version, "found": found or None}
    words = ", ".join(f"{name} {pair['found'] or 'missing'} for {pair['lock']}" for name, pair in differing.items())
    return Check(
        "packages", f"{len(wanted) - len(differing)} of {len(wanted)} as locked{': ' if words else ''}{words}",
        "pip install -r requirements.lock" if differing else "", differing,
    )  # fmt: skip


def _params() -> Check:
    try:
        require_valid()
    except InputError as error:
        return Check("params", str(error), "mend this key")
    return Check("params", f"{len(OWNERS)} sections, all valid")


def _device() -> Check:
    runtime = load_params("runtime", RuntimeParams)
    cores = psutil.cpu_count() or 1
    details: dict[str, Any] = {"device": runtime.device, "threads": runtime.threads, "cores": cores}
    if runtime.device == "cpu":
        wait = " (they wait for each other; another number gives other bits)" if runtime.threads > cores else ""
        return Check("device", f"cpu, {runtime.threads} threads on {cores} cores{wait}", "", details)
    import torch

    if not torch.cuda.is_available():
        return Check("device", "cuda wanted, no CUDA device found", "set runtime.device to cpu", details)
    properties = torch.cuda.get_device_properties(0)
    details |= {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
    return Check("device", f"cuda, {properties.name}, {details['memory_gib']} GiB", "", details)


def _memory() -> Check:
    free = psutil.virtual_memory().available / 2**30
    remedy = "" if free >= MEMORY_GIB else f"free memory: {MEMORY_GIB:g} GiB are wanted"
    return Check("memory", f"{free:.1f} GiB free", remedy, {"free_gib": round(free, 2)})


def _disk() -> Check:
    free = shutil.disk_usage(Path()).free / 2**30
    remedy = "" if free >= DISK_GIB else f"free space ({DISK_GIB:g} GiB are wanted); `dvc gc -w` removes old outs"
    return Check("disk", f"{free:.1f} GiB free", remedy, {"free_gib": round(free, 2)})


def _states() -> Check:
    """Whether the training states can be saved, and for how long a session may train."""
    place = states()
    try:
        session = Session.of_environment()
    except InputError as error:
        return Check("states", str(error), "set it to hours, or leave it unset")
    try:
        there = next(folder for folder in (place, *place.resolve().parents) if folder.exists())
        usable = there.is_dir() and os.access(there, os.W_OK)
    except OSError:  # a folder on the way may not even be looked into
        usable = False
    if not usable:
        return Check("states", f"{place} cannot be written", "free it, or set ALGOSPACE_CKPT to another folder")
    return Check("states", f"{place}{f', sessions of {session.hours:g} hours' if session else ''}")


def _gate1(counted: bool) -> Check:
    """Completed synergies before the test split, in each window, as `prepare` counted them on these bars."""
    if not counted or not PREPARED_METRICS.is_file():
        return Check("gate 1", f"{NOT_MEASURED} (prepare counts)")
    words = []
    try:
        census = artefacts.read_json(PREPARED_METRICS)["gate1"]
        for name, profile in census.items():
            counts = {
                key.removeprefix("window_"): of["synergies"] for key, of in profile.items() if key[:6] == "window"
            }
            words.append(f"{name} {', '.join(f'{count} in {bars} bars' for bars, count in counts.items())}")
    except (InputError, KeyError, TypeError, AttributeError):
        return Check(
            "gate 1", f"{PREPARED_METRICS}: expected prepare's census, found another file", "dvc repro prepare"
        )
    return Check("gate 1", f"synergies before the test split: {'; '.join(words)}", "", census)


def plan(changed: Mapping[str, list[str]]) -> list[Phase]:
    """Which stages run next, and what they took when they last ran here from beginning to end."""
    phases, waits = [], ""
    for stage in status.STAGES:
        if stage in changed:
            state = f"runs: {', '.join(changed[stage][:3])}{' ...' if len(changed[stage]) > 3 else ''}"
        else:
            state = f"runs if {waits} gives other bytes" if waits else "up to date"
        waits = waits or (stage if stage in changed else "")
        phases.append(Phase(stage, state, _seconds(stage), _interrupted(stage) if state != "up to date" else ""))
    return phases


def _seconds(stage: str) -> float | None:
    """Time of the last run that did everything itself: one that went on from a saved state did a part."""
    path, seconds, whole = LOGS / f"{stage}.jsonl", None, False
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a line that a kill cut short
        event = entry.get("event")
        whole = event == "start" or (whole and event != "resumed")
        if whole and event == "end" and entry.get("result") == "done":
            seconds = float(entry["seconds"])
    return seconds


def _interrupted(stage: str) -> str:
    """What ``logs/STAGE.status.json`` says of a run that did not come to its end."""
    path = LOGS / f"{stage}.status.json"
    if not path.is_file():
        return ""
    found = artefacts.read_json(path)
    state = found.get("state")
    if state == "running" and not psutil.pid_exists(found.get("pid", -1)):
        return f"was killed; {'goes on from its last saved state' if stage in status.TRAINING else 'begins anew'}"
    return "" if state == "done" else f"{state} {found.get('message', '')}".strip()


def as_json(found: Readiness) -> dict[str, Any]:
    """For machines."""
    return {
        "ready": found.ready,
        "checks": {check.name: check._asdict() | {"ready": check.ready} for check in found.checks},
        "plan": [phase._asdict() for phase in found.plan],
    }


def lines(found: Readiness, colour: bool) -> list[str]:
    """For people."""

    def painted(code: int, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if colour else text

    shown = []
    for check in found.checks:
        mark = painted(32, "ok  ") if check.ready else painted(31, "FAIL")
        shown.append(f"{mark}  {check.name:<10} {check.found}")
        if not check.ready:
            shown.append(f"      {'':<10} {painted(33, '-> ' + check.remedy)}")
    if found.plan:
        shown.append("plan")
    for phase in found.plan:
        time = NOT_MEASURED if phase.seconds is None else f"{phase.seconds:.0f} s last time"
        note = f"; {painted(33, phase.note)}" if phase.note else ""
        shown.append(f"      {phase.stage:<10} {phase.state}; {time}{note}")
    known = [phase.seconds for phase in found.plan if phase.state != "up to date"]
    if known and None not in known:
        shown.append(f"      {'in all':<10} {sum(filter(None, known)):.0f} s")
    shown.append(painted(32, "ready: dvc repro") if found.ready else painted(31, "not ready"))
    return shown
