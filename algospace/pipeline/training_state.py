"""State of a training run: saved atomically, resumed after a kill with the same final bytes, gone at success.

It lives in ``$DVC_ROOT/.ckpt/STAGE/FINGERPRINT/`` (``ALGOSPACE_CKPT`` moves the root), never in an output: DVC
deletes outputs before a run, and what it keeps on request it neither caches nor guards against other params. The
fingerprint covers the params, the inputs, the code and the lock that ``dvc.yaml`` declares for the stage, so a state
is only ever resumed by the run that made it, on as many processes.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout

from algospace import artefacts, distributed
from algospace.errors import InputError
from algospace.pipeline.config import PARAMS
from algospace.pipeline.session import VARIABLE, Session, SessionEnded
from algospace.pipeline.stage import log, memory, states

SCHEMA = 3
SAVE_EVERY = 100  # optimiser steps between two saves (the contract; it cannot change a result)
KEEP_FINGERPRINTS = 3  # states of other params or inputs that are kept for a return to them

State = dict[str, Any]


class TrainingState:
    """The saver that every training loop calls after an optimiser step.

    ``resumed`` is the state to go on from (None for a fresh start). Call the object as ``on_step(step, snapshot)``;
    ``snapshot`` is asked for the state only when it is time to save, on all processes at the same step. Of several
    processes the leader saves, and all go on from what it found. Without a directory nothing is saved, without the name
    of a stage no memory is logged. When the ``session`` is over it saves and raises `SessionEnded`.
    """

    def __init__(self, directory: Path | None, stage: str = "", part: str = "", session: Session | None = None) -> None:
        self.directory = directory
        self._session = session
        self._stage, self._part = stage, part
        self.resumed = self._load() if distributed.leads() else None
        step = int(distributed.from_leader(self.resumed["step"] if self.resumed else -1))
        if step >= 0 and not distributed.leads():
            self.resumed = self._load()
            if self.resumed is None or self.resumed["step"] != step:
                raise InputError(f"{directory}: expected the leader's state of step {step} here too, found another")
        self._last_saved = max(step, 0)
        if self.resumed and stage and distributed.leads():
            print(f"{stage}: {part and f'{part} '}going on from step {step}", file=sys.stderr)
            self._log("resumed", step=step)

    def part(self, name: str) -> "TrainingState":
        """The state of one of several trainings of a stage: kept beside the others until the stage ends."""
        return TrainingState(self.directory / name if self.directory else None, self._stage, name, self._session)

    def epoch_ended(self, epoch: int) -> None:
        """Log the memory that the process holds."""
        if self._stage and distributed.leads():
            self._log("epoch", epoch=epoch, **memory())

    def _log(self, event: str, **figures: float) -> None:
        log(self._stage, {"event": event, **({"part": self._part} if self._part else {}), **figures})

    def ended(self, step: int, snapshot: Callable[[], State]) -> None:
        """Save the end, so that a stage that is killed later does not train this again."""
        self._save(step, snapshot)

    def __call__(self, step: int, snapshot: Callable[[], State]) -> None:
        """Save when `SAVE_EVERY` steps have passed since the last save, and when the session is over."""
        due = step - self._last_saved >= SAVE_EVERY
        over = False
        # Several processes ask the leader's clock together, and only when they meet to save anyway; the hours of the
        # others, which may be set on some machines alone, count for nothing.
        if due or distributed.processes() == 1:
            own = distributed.leads() and self._session is not None and self._session.is_over(self._stage)
            over = bool(distributed.from_leader(float(own)))
        if due or over:
            self._save(step, snapshot)
        if over:
            kept = "not saved: another run trains the same thing"
            if self.directory:
                kept = f"saved in {self.directory}; `dvc repro` goes on from there"
            hours = f"={self._session.hours:g}" if self._session else ""
            raise SessionEnded(
                f"{self._stage}: {VARIABLE}{hours} is over at step {step}{self._part and f' of {self._part}'}, {kept}"
            )

    def _save(self, step: int, snapshot: Callable[[], State]) -> None:
        self._last_saved = step
        if self.directory is None and distributed.processes() == 1:
            return
        state = {**snapshot(), "step": step}  # on every process: it may hold a part of each
        if self.directory is None or not distributed.leads():
            return
        tensors: dict[str, np.ndarray] = {}
        header = _pack(state, "", tensors)
        content = artefacts.tensor_bytes(tensors, {"schema": SCHEMA, "state": header, "sha256": _hash(tensors, header)})
        last = self.directory / "last.safetensors"
        with _written():
            if last.exists():
                os.replace(last, self.directory / "previous.safetensors")
            artefacts.write_bytes(last, content)

    def _load(self) -> State | None:
        if self.directory is None:
            return None
        for name in ("last.safetensors", "previous.safetensors"):
            try:
                tensors, header = artefacts.read_tensors(self.directory / name)
            except InputError:
                continue
            if header.get("schema") == SCHEMA and header.get("sha256") == _hash(tensors, header.get("state")):
                state: State = _unpack(header["state"], tensors)
                return state
        return None


def _hash(tensors: dict[str, np.ndarray], header: Any) -> str:
    """Digest of a state's content: a bit that flips on the disk must not be trained on."""
    return hashlib.sha256(artefacts.tensor_bytes(tensors, {"state": header})).hexdigest()


@contextmanager
def _written() -> Iterator[None]:
    """Say what to do when there is no room for a state."""
    try:
        yield
    except Timeout:  # an OSError too, of a lock that another holds
        raise
    except OSError as error:
        raise InputError(
            f"{error.filename}: expected to save the training state there (ALGOSPACE_CKPT names another place), "
            f"found: {error.strerror or error}"
        ) from None


@contextmanager
def training_state(stage: str) -> Iterator[TrainingState]:
    """Open the state of a stage's training; remove it when the block ends without an error.

    Raises
    ------
    InputError
        When another process of this workspace trains the same thing: it is named by its pid.
    """
    session = Session.of_environment()
    own = states() / stage
    directory = own / fingerprint(stage)
    if not distributed.leads():
        yield TrainingState(directory, stage, session=session)
        return
    lock = FileLock(own / f"{directory.name}.lock")
    holder = own / f"{directory.name}.pid"
    try:
        with _written():
            directory.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            holder.write_text(f"{os.getpid()}\n")
    except Timeout:
        if Path(os.environ.get("DVC_ROOT", ".")).resolve() == Path.cwd().resolve():
            pid = holder.read_text().strip() if holder.exists() else "unknown"
            raise InputError(
                f"{directory}: expected no other trainer, found process {pid} at work on the same {stage} "
                "(wait for it, or stop it and run `dvc repro` again)"
            ) from None
        # A queued experiment of equal params trains beside its twin: privately, to the same bytes.
        yield TrainingState(None, stage, session=session)
        return
    try:
        _forget_old(own, directory)
        fresh = not any(directory.iterdir())
        state = TrainingState(directory, stage, session=session)
        if fresh and len([other for other in own.iterdir() if other.is_dir()]) > 1:
            print(f"{stage}: starting afresh, the saved state is of other params or inputs", file=sys.stderr)
        yield state
        shutil.rmtree(directory)
        holder.unlink()
    finally:
        lock.release()


def _forget_old(root: Path, current: Path) -> None:
    others = sorted((d for d in root.iterdir() if d.is_dir() and d != current), key=lambda d: d.stat().st_mtime)
    for directory in others[: max(0, len(others) - KEEP_FINGERPRINTS)]:
        lock = FileLock(root / f"{directory.name}.lock")
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(directory)
        except Timeout:
            continue


def fingerprint(stage: str) -> str:
    """Hash of everything that ``dvc.yaml`` says the stage depends on: params, inputs, code, lock."""
    declared = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    content = {
        "schema": SCHEMA,
        "torch": torch.__version__,
        "processes": distributed.processes(),
        "params": {name: params.get(name) for name in declared["params"]},
        "deps": {name: artefacts.sha256(Path(name)) for name in declared["deps"]},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _pack(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """JSON of a nested state; its arrays go into `tensors` under their path."""
    match value:
        case torch.Tensor() | np.ndarray():
            tensors[name] = value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else value.copy()
            return {"tensor" if isinstance(value, torch.Tensor) else "array": name}
        case dict():
            return {"dict": [[k, _pack(v, f"{name}/{k}", tensors)] for k, v in value.items()]}
        case list() | tuple():
            return [_pack(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a training state cannot hold {type(value).__name__} at {name}")


def _unpack(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    match value:
        case {"tensor": name}:
            return torch.from_numpy(tensors[name].copy())
        case {"array": name}:
            return tensors[name]
        case {"dict": pairs}:
            return {key: _unpack(item, tensors) for key, item in pairs}
        case list():
            return [_unpack(item, tensors) for item in value]
    return value
