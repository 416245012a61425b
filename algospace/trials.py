"""The configurations that were tried, ``metrics/trials.jsonl``: what a Sharpe ratio has to be deflated by.

A line is a JSON object of one configuration: ``config`` (a hash of the params that can move a validation figure),
``name``, ``sharpe`` (annual Sharpe ratio of its daily returns on the reporting half of validation), ``changes`` (dotted
key -> value, where it differs from the committed params), ``sessions`` ([first, last], YYYYMMDD), ``daily`` (seed ->
net R of each session there, or null) and ``market`` (a hash of the params that say which prices were met).
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from algospace import artefacts, evidence
from algospace.errors import InputError
from algospace.performance import Floats

PATH = Path("metrics/trials.jsonl")
WITHOUT = ("export", "runtime")  # sections that no validation figure depends on
DIGITS = 12  # of a configuration's hash


class Trial(NamedTuple):
    """One configuration and what it came to on validation."""

    config: str
    name: str
    sharpe: float  # annual
    changes: dict[str, Any]
    sessions: list[int]
    daily: dict[str, list[float]] | None
    market: str = ""  # lines of before have none


class Trials(NamedTuple):
    """What the trials say of the best of them; None, with the reason, where they are too few."""

    tried: int
    deviation: float | None  # standard deviation of their annual Sharpe ratios
    overfitting: float | None  # probability of backtest overfitting
    overfitting_why_not: str


def config_hash(params: Mapping[str, Any]) -> str:
    """Name a configuration by its params, all sections but those of `WITHOUT`."""
    return _hash({section: value for section, value in params.items() if section not in WITHOUT})


def market_hash(params: Mapping[str, Any]) -> str:
    """Name the prices that a configuration met: by ``data``, and by what a market may be drawn from."""
    data = params.get("data") or {}
    drawn = data.get("source") not in ("csv", "parquet")
    planted = drawn and data.get("synthetic", {}).get("market") == "planted"
    events = {name: params.get(name) for name in ("indicators", "gate1")} if planted else {}
    return _hash({"data": data, "seed": params.get("seed") if drawn else None} | events)


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGITS]


def changes(params: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of ``params`` wherever it differs from ``base``."""
    ours, theirs = (dict(_leaves(content, "")) for content in (params, base))
    return {key: value for key, value in sorted(ours.items()) if key not in theirs or theirs[key] != value}


def _leaves(content: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read(path: Path = PATH) -> list[Trial]:
    """Read the trials, oldest first; no file is no trial.

    Raises
    ------
    InputError
        Naming the line that is no trial, or whose configuration an earlier line has already.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8, found the byte {error.object[error.start]:#x}") from None
    found: dict[str, Trial] = {}
    for number, line in enumerate(lines, start=1):
        trial = _trial(line)
        if trial is None:
            raise InputError(
                f"{path}:{number}: expected a JSON object with {', '.join(Trial._fields)}, found {line[:60]!r}"
            )
        if trial.config in found:
            raise InputError(f"{path}:{number}: expected each configuration once, found {trial.config} again")
        found[trial.config] = trial
    return list(found.values())


def _trial(line: str) -> Trial | None:
    try:
        trial = Trial(**json.loads(line))
        return trial if _sound(trial) else None
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def _sound(trial: Trial) -> bool:
    sessions, daily = trial.sessions, trial.daily
    return (
        isinstance(trial.config, str) and isinstance(trial.name, str) and isinstance(trial.changes, dict)
        and isinstance(trial.market, str) and _finite(trial.sharpe)
        and isinstance(sessions, list) and all(isinstance(session, int) for session in sessions)
        and (daily is None or (isinstance(daily, dict) and _of_one_length(daily)))
    )  # fmt: skip


def _of_one_length(daily: dict[str, Any]) -> bool:
    return all(map(_series, daily.values())) and len({len(values) for values in daily.values()}) == 1


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _series(values: Any) -> bool:
    return isinstance(values, list) and all(map(_finite, values))


def add(found: Iterable[Trial], path: Path = PATH) -> list[Trial]:
    """Append the configurations that the file has not got yet, and return them."""
    known = {trial.config for trial in read(path)}
    new = [trial for trial in {trial.config: trial for trial in found}.values() if trial.config not in known]
    if new:
        before = path.read_bytes() if path.exists() else b""
        before += b"\n" if before and not before.endswith(b"\n") else b""  # an editor's hand
        lines = [json.dumps(trial._asdict(), sort_keys=True, allow_nan=False) + "\n" for trial in new]
        artefacts.write_bytes(path, before + "".join(lines).encode())
    return new


def judged(trials: list[Trial]) -> Trials:
    """Spread of the trials' Sharpe ratios, and how probable it is that the best of them was luck."""
    ratios = [trial.sharpe for trial in trials]
    deviation = float(np.std(ratios, ddof=1)) if len(ratios) >= evidence.MIN_TRIALS else None
    configurations, returns = daily_returns(trials)
    blocks = min(evidence.BLOCKS, len(returns) // 4 * 2)
    why = ""
    if configurations < evidence.MIN_CONFIGURATIONS:
        why = f"{configurations} configurations have daily returns on the same sessions, {evidence.MIN_CONFIGURATIONS}"
        why += " are needed"
    elif blocks < 2:
        why = f"{len(returns)} sessions are too few"
    overfitting = None if why else evidence.overfitting_probability(returns, blocks)
    return Trials(len(trials), deviation, overfitting, why)


def daily_returns(trials: list[Trial]) -> tuple[int, Floats]:
    """Daily returns (sessions, configurations and seeds) on the sessions that most configurations share.

    The first number is that of the configurations, each of which may have several seeds. Another synthetic market has
    the same days and other prices: only what met the same market is compared.
    """
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        if trial.daily:
            length = len(next(iter(trial.daily.values())))
            groups.setdefault((trial.market, *trial.sessions, length), []).append(trial)
    if not groups:
        return 0, np.empty((0, 0))
    largest = max(groups.values(), key=len)  # of equals the first
    columns = [values for trial in largest for values in (trial.daily or {}).values()]
    return len(largest), np.array(columns, dtype=np.float64).T
