"""What was tried here: the configurations of the workspace, of the last commit and of DVC's experiments on it."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from filelock import FileLock

from algospace import trials
from algospace.pipeline import status
from algospace.pipeline.config import PARAMS, lookup, with_exponents
from algospace.pipeline.stage import LOGS
from algospace.trials import Trial, changes, config_hash, market_hash

METRICS = "metrics/marl.json"
SHARPE = "report.traded.consensus.sharpe"  # where METRICS has the annual Sharpe ratio of the reporting half
DAILY = "metrics/curves/marl/validation_daily.tsv"  # its daily net R: a row a session, a column a seed
LOCK = "dvc.lock"
WORKSPACE = "workspace"  # DVC's name for what is not committed
JUDGED = status.STAGES[:-1]  # the stages that a validation figure comes from

Read = Callable[[str], str | None]  # a file of a revision, None where it has none


class Found(NamedTuple):
    """What was found."""

    trials: list[Trial]
    left_out: int  # runs that had not come to the end of `marl` with their own params, or hold no Sharpe ratio


def collect(root: Path, all_commits: bool = False) -> Found:
    """Gather the configurations that were run to the end of `marl`: one trial each, the last commit's first.

    Parameters
    ----------
    root
        The project: a folder with ``params.yaml``, ``dvc.yaml`` and ``dvc.lock``.
    all_commits
        Of every commit, with its experiments, instead of the last one.

    Raises
    ------
    InputError
        If DVC cannot list the experiments of ``root``.
    """
    more = ["--all-commits"] if all_commits else []
    listed = list(_revisions(status.answer(root, "exp", "show", *more)))
    base = next((params for _, revision, params in listed if revision != WORKSPACE), {})
    kept: dict[str, Trial] = {}
    left_out = 0
    for name, revision, params in [*listed[1:], *listed[:1]]:  # the workspace, which is listed first, has no name yet
        read = _of_workspace(root) if revision == WORKSPACE else _of_revision(root, revision)
        trial = _trial(name, params, base, read) if _finished(read(LOCK), params) else None
        if trial is None:
            left_out += 1
        else:
            kept.setdefault(trial.config, trial)
    return Found(list(kept.values()), left_out)


def record(found: list[Trial], root: Path = Path()) -> list[Trial]:
    """Append to the list of trials what it has not got yet, and return that; one process of this folder at a time."""
    logs = root / LOGS
    logs.mkdir(exist_ok=True)
    with FileLock(logs / "trials.lock"):
        return trials.add(found, root / trials.PATH)


def committed_params(root: Path) -> dict[str, Any] | None:
    """All sections of ``params.yaml`` as the last commit has them; None without one."""
    text = _of_revision(root, "HEAD")(PARAMS.name)
    return with_exponents(yaml.safe_load(text)) if text else None


def _revisions(shown: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, revision and params of each row of ``dvc exp show --json``; rows that DVC could not read are left out."""
    for row in shown:
        nested = [entry for experiment in row.get("experiments") or [] for entry in experiment.get("revs") or []]
        for entry in (row, *nested):
            params = ((entry.get("data") or {}).get("params") or {}).get(PARAMS.name, {}).get("data")
            if isinstance(params, dict):
                revision = str(entry["rev"])
                yield entry.get("name") or (revision if revision == WORKSPACE else revision[:7]), revision, params


def _of_revision(root: Path, revision: str) -> Read:
    def read(path: str) -> str | None:
        done = subprocess.run(
            ["git", "show", f"{revision}:./{path}"], cwd=root, capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else None

    return read


def _of_workspace(root: Path) -> Read:
    def read(path: str) -> str | None:
        return (root / path).read_text(encoding="utf-8") if (root / path).is_file() else None

    return read


def _finished(lock: str | None, params: Mapping[str, Any]) -> bool:
    """Whether the lock's last run of every stage up to `marl` was with these params.

    An experiment that stopped earlier carries the metrics of another configuration.
    """
    stages = (yaml.safe_load(lock or "") or {}).get("stages") or {}
    if not set(JUDGED) <= set(stages):
        return False
    ran = [with_exponents(stages[stage].get("params", {}).get(PARAMS.name, {})) for stage in JUDGED]
    return all(params.get(section) == value for sections in ran for section, value in sections.items())


def _trial(name: str, params: Mapping[str, Any], base: Mapping[str, Any], read: Read) -> Trial | None:
    value = lookup(json.loads(read(METRICS) or "{}"), SHARPE)
    if not isinstance(value, int | float):
        return None
    sessions, daily = daily_of(read(DAILY))
    return Trial(config_hash(params), name, value, changes(params, base), sessions, daily, market_hash(params))


def daily_of(table: str | None) -> tuple[list[int], dict[str, list[float]] | None]:
    """First and last session, and net R by seed, of the text that `DAILY` holds."""
    lines = [line.split("\t") for line in (table or "").splitlines()]
    if len(lines) < 2:
        return [], None
    names, *rows = lines
    columns = list(zip(*rows, strict=True))
    sessions = [int(columns[0][0]), int(columns[0][-1])]
    return sessions, {name: list(map(float, column)) for name, column in zip(names[1:], columns[1:], strict=True)}
