"""Search a stage's params with Optuna, in process: trained on train, judged on the selecting half of validation.

A study is kept in Optuna's storage under a name that covers the stage, its params, inputs and code, and the space:
with another of them, another study begins.
"""

import copy
import hashlib
import importlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from algospace import training, trials
from algospace.errors import InputError
from algospace.params import Params
from algospace.pipeline import experiments, stage, status, training_state
from algospace.pipeline.config import PARAMS, lookup, read_yaml, replace, with_exponents
from algospace.pipeline.space import Space, Values, section_of
from algospace.trials import Trial, changes, config_hash, market_hash

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
Attempts = Callable[[Values], Iterator[training.Attempt]]


def study_name(name: str, space: Space) -> str:
    """Name the study by its stage and all that its trials depend on."""
    content = {"fingerprint": training_state.fingerprint(name), "space": {k: v.model_dump() for k, v in space.items()}}
    return f"{name}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"


def attempts_of(name: str, model: type[Params]) -> Attempts:
    """What this folder's own stage script makes of changed params.

    Raises
    ------
    InputError
        Outside the project's folder, or while the stages before this one are out of date.
    """
    stage.own_code()
    before = status.STAGES[: status.STAGES.index(name)]
    changed = status.changed()
    stale = [other for other in before if other in changed]
    if stale:
        raise InputError(f"{stale[0]}: expected it up to date before a sweep; run `dvc repro {before[-1]}` first")
    sys.path.insert(0, str(Path.cwd()))
    script = importlib.import_module(f"stages.{name}")
    return lambda values: script.attempts(section_of(name, model, values))


def search(name: str, space: Space, attempts: Attempts, count: int, storage: str | None, seed: int) -> optuna.Study:
    """Try configurations until the study holds so many; each that has a Sharpe ratio goes into the list of trials.

    The first is the configuration of params.yaml. What trial k proposes is a function of seed, k and the trials before
    it, so a sweep that was stopped between trials goes on as if it had not been. Processes that share the storage
    share the work; each may run one trial more than was asked for, and lists the trials of all. A killed trial is not
    counted.

    Raises
    ------
    InputError
        For a storage that cannot be opened, a value of params.yaml outside the space, and a list of trials that cannot
        be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials.read()  # before hours are spent on what could not be written down
    study = _open(name, storage)
    params = with_exponents(read_yaml(PARAMS))
    base = experiments.committed_params(Path()) or params
    own = {key: option.drawn(lookup(params, key)) for key, option in space.items()}
    for key, value in own.items():
        if value is None:
            raise InputError(
                f"{key}: expected params.yaml's value in the space of the sweep, found {lookup(params, key)}"
            )
    if not any(_stands_for(trial, own) for trial in study.get_trials(deepcopy=False)):
        study.enqueue_trial(own, {"values": {key: lookup(params, key) for key in space}})
    with tqdm(total=count, desc=f"sweep {name.partition('-')[0]}", unit="trial", disable=None) as progress:
        while (done := len(study.get_trials(deepcopy=False, states=FINISHED))) < count:
            progress.update(done - progress.n)
            trial = study.ask()
            trial.set_user_attr("process", _process())
            study.sampler = _sampler(seed, trial.number)
            values = {key: option.suggest(trial, key) for key, option in space.items()}
            trial.set_user_attr("values", values)
            last, state = _run(trial, attempts, values)
            if last is not None and last.sharpe is not None:
                trial.set_user_attr("record", _trial(trial.number, last, values, params, base)._asdict())
            study.tell(trial, last.score if last and state == TrialState.COMPLETE else None, state)
            _list(study)
            if (best := _best(study)) is not None:
                progress.set_postfix(best=f"{best.value:.4f}")
        progress.update(done - progress.n)
    _list(study)  # of processes elsewhere too
    return study


def _process() -> list[Any]:
    """Machine, number and beginning of this process."""
    return [platform.node(), os.getpid(), psutil.Process().create_time()]


def _lives(machine: str, pid: int, began: float) -> bool:
    """Whether a `_process` is still at work, as far as this machine can tell."""
    if machine != platform.node():
        return True
    try:
        return bool(psutil.Process(pid).create_time() == began)
    except psutil.Error:
        return False


def _stands_for(trial: FrozenTrial, drawn: dict[str, Any]) -> bool:
    """Whether a trial of these draws has ended, waits, or runs; one whose process of this machine is gone does not."""
    if trial.state == TrialState.RUNNING and "process" in trial.user_attrs and not _lives(*trial.user_attrs["process"]):
        return False
    return bool(trial.system_attrs.get("fixed_params", trial.params) == drawn)


def _list(study: optuna.Study) -> None:
    """Write what the study's trials came to into this folder's list of trials."""
    found = [trial.user_attrs.get("record") for trial in study.get_trials(deepcopy=False)]
    experiments.record([Trial(**record) for record in found if record])


def _run(trial: optuna.Trial, attempts: Attempts, values: Values) -> tuple[training.Attempt | None, TrialState]:
    """Train a configuration until it is done, or worse at this point than the median of those before it."""
    last = None
    try:
        for step, last in enumerate(attempts(values)):
            trial.report(last.score, step)
            if last.cut and trial.should_prune():
                return last, TrialState.PRUNED
    except InputError as error:  # of this configuration: keys that do not go together, a loss that is not finite
        print(f"trial {trial.number}: {error}", file=sys.stderr)
        return last, TrialState.FAIL
    return last, TrialState.COMPLETE


def _trial(number: int, last: training.Attempt, values: Values, params: dict[str, Any], base: dict[str, Any]) -> Trial:
    """What ran, as the list of trials keeps it: of a configuration that was given up, the part that was trained."""
    ran = copy.deepcopy(params)
    section = next(iter(values)).partition(".")[0]
    for key, value in (values | {f"{section}.{key}": value for key, value in last.cut.items()}).items():
        replace(ran, key, value)
    sessions, daily = experiments.daily_of(last.daily)
    assert last.sharpe is not None
    return Trial(
        config_hash(ran), f"sweep-{number}", last.sharpe, changes(ran, base), sessions, daily, market_hash(ran)
    )


def command(study: optuna.Study) -> str:
    """Write the best configuration as the command that runs it through the pipeline, stopping before test bars.

    Raises
    ------
    InputError
        When no trial came to its end.
    """
    best = _best(study)
    if best is None:
        raise InputError(f"{study.study_name}: expected a trial that came to its end, found none")
    settings = " ".join(f"-S {_argument(key, value)}" for key, value in best.user_attrs["values"].items())
    return f"dvc exp run marl {settings}"


def summary(study: optuna.Study) -> str:
    """Say how many trials there were, and what the best one's score stands beside."""
    found = study.get_trials(deepcopy=False)
    count = {state: sum(trial.state == state for trial in found) for state in FINISHED}
    best = _best(study)
    score = "no trial came to its end" if best is None else f"trial {best.number} scored {best.value:.6g} on select"
    values = found[0].user_attrs.get("values") if found else None  # those of params.yaml, whoever came to their end
    own = (trial for trial in found if trial.state == TrialState.COMPLETE and trial.user_attrs["values"] == values)
    if (first := next(own, None)) is not None:
        score += f", params.yaml (trial {first.number}) {first.value:.6g}"
    return (
        f"{study.study_name}: {count[TrialState.COMPLETE]} complete, {count[TrialState.PRUNED]} given up early, "
        f"{count[TrialState.FAIL]} failed; {score}"
    )


def _argument(key: str, value: Any) -> str:
    text = f"{key}={json.dumps(value, separators=(',', ':'))}"
    return f"'{text}'" if isinstance(value, list | dict | str) else text


def _best(study: optuna.Study) -> FrozenTrial | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def _open(name: str, storage: str | None) -> optuna.Study:
    """Open a study in a database (a URL), or in a journal file."""
    try:
        if storage is not None and "://" in storage:
            kept: Any = storage
        else:
            path = Path(storage) if storage else stage.states() / "sweep" / "journal.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        known = optuna.get_all_study_names(kept)
        others = [other for other in known if other != name and other.partition("-")[0] == name.partition("-")[0]]
        if others and name not in known:
            print(
                f"{name}: a new study, since params, inputs, code or space differ from {len(others)} before",
                file=sys.stderr,
            )
        return optuna.create_study(
            study_name=name, storage=kept, direction="maximize", load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(),
        )  # fmt: skip
    except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.OptunaError) as error:
        shown = re.sub(r"://.*", "://...", str(storage))  # a URL may hold a password
        found = " ".join(str(error).replace(str(storage), shown).split())[:200]
        raise InputError(f"--storage: expected a journal file or a database's URL, found {shown}: {found}") from None


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    drawn = int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")
    return optuna.samplers.TPESampler(seed=drawn, multivariate=False)
