"""How a stage begins and ends: its own code, fixed threads, deterministic kernels, one-line errors."""

import io
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

import algospace
from algospace import artefacts
from algospace.errors import InputError, out_of_memory
from algospace.params import RuntimeParams
from algospace.pipeline.session import EXIT, SessionEnded

LOGS = Path("logs")
QUALITY_LOG = LOGS / "quality.json"


def run(main: Callable[[], None], scales: bool = False) -> None:
    """Run a stage's ``main``; bad input, what the disk refuses and too little memory are one line on stderr and code 2.

    When the hours of ``ALGOSPACE_MAX_HOURS`` are over the exit code is 75.

    ``scales`` says that ``torchrun`` may start the stage as several processes; of these the one that `leads` writes.

    Raises
    ------
    SystemExit
        With code 2: bad input, a file that cannot be read or written, no memory left, code from elsewhere, or another
        process at work on the same stage in this folder. With code 75: the session is over.
    """
    name = Path(sys.modules[main.__module__].__file__ or "stage").stem
    for stream in (sys.stdout, sys.stderr):  # a locale that lacks a letter must not end a stage
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _require_told_folder(name)
        own_code()
        if _processes() > 1 and not scales:
            raise InputError(f"{name}: expected one process, found {_processes()}: this stage does not scale")
        with _alone(name), _logged(name):
            main()
            if _processes() > 1:
                from algospace import distributed

                distributed.leave()
    except SessionEnded as ended:
        if leads():
            print(ended, file=sys.stderr)
        raise SystemExit(EXIT) from None
    except (InputError, OSError) as error:
        # No word to the other processes: torchrun ends them when it sees this one's exit code.
        print(f"error: {_one_line(error, name)}", file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"error: {name}: expected memory enough for it, found none left (docs/scaling.md)", file=sys.stderr)
        raise SystemExit(2) from None


def _require_told_folder(name: str) -> None:
    folder = str(Path.cwd())
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{name}: expected a folder whose name the locale can tell, found {folder!a}; leave PYTHONUTF8 unset"
        ) from None


def _one_line(error: Exception, stage: str) -> str:
    if isinstance(error, OSError):
        place, found = error.filename or stage, error.strerror or error
        return " ".join(f"{place}: expected to read or write there, found: {found}".split())
    return str(error)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold the stage's lock of this folder: a trainer that outlived its ``dvc`` would write over the next one's files.

    The system frees the lock when its holder dies, however it dies.
    """
    if not leads():
        yield
        return
    LOGS.mkdir(exist_ok=True)
    lock, holder = FileLock(LOGS / f"{name}.lock"), LOGS / f"{name}.pid"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = holder.read_text(encoding="utf-8").strip() if holder.exists() else "unknown"
        raise InputError(
            f"{name}: expected no other run of this stage in {Path.cwd()}, found process {pid} at work "
            "(wait for it, or stop it and run `dvc repro` again)"
        ) from None
    try:
        holder.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
        holder.unlink()
    finally:
        lock.release()


@contextmanager
def _logged(name: str) -> Iterator[None]:
    """Write a line at the beginning and one at the end to ``logs/STAGE.jsonl``; a killed run has no end.

    ``logs/STAGE.status.json`` says where the stage stands: running, done, refused, stopped (by the hours) or failed.
    """
    if not leads():
        yield
        return
    wall, result, message = time.monotonic(), "failed", ""
    _tell(name, "running", "")
    log(
        name,
        {
            "event": "start", "pid": os.getpid(), "host": platform.node(), "platform": platform.platform(),
            "python": platform.python_version(), "cpus": os.cpu_count(), "processes": _processes(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1), "commit": _commit(),
        },
    )  # fmt: skip
    try:
        yield
        result = "done"
    except InputError as error:
        result, message = "refused", str(error)
        raise
    except SessionEnded as ended:
        result, message = "stopped", str(ended)
        raise
    except BaseException as error:
        message = _one_line(error, name) if isinstance(error, OSError) else repr(error)[:300]
        raise
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        end = {
            "event": "end", "result": result, "seconds": round(time.monotonic() - wall, 3),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 3), "peak_memory_mib": round(peak, 1),
        }  # fmt: skip
        with suppress(OSError):
            _tell(name, result, message)
        if result == "done":
            log(name, end)
        else:  # what stopped the stage may stop its log: the first is what counts
            with suppress(OSError):
                log(name, end | {"message": message})


def _tell(stage: str, state: str, message: str) -> None:
    found = {"state": state, "message": message, "pid": os.getpid(), "time": datetime.now(UTC).isoformat()}
    artefacts.write_json(LOGS / f"{stage}.status.json", found)


def _commit() -> str | None:
    """The git commit that is checked out, where there is one: for the log alone."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def states() -> Path:
    """Where training states live: ``ALGOSPACE_CKPT``, else ``.ckpt``, below the repository whose copy DVC may run."""
    return Path(os.environ.get("DVC_ROOT", ".")) / (os.environ.get("ALGOSPACE_CKPT") or ".ckpt")


def leads() -> bool:
    """Whether this process writes: the first of those that ``torchrun`` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def log(stage: str, line: dict[str, Any]) -> None:
    """Append a line to ``logs/STAGE.jsonl``, with the time (docs/reliability.md); readiness reads how long it took."""
    LOGS.mkdir(exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with artefacts.named(LOGS / f"{stage}.jsonl") as path, path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": now, **line}) + "\n")


def memory() -> dict[str, float]:
    """Memory that this process holds, and the most that CUDA held, in MiB."""
    import torch

    found = {"memory_mib": round(psutil.Process().memory_info().rss / 2**20, 1)}
    if torch.cuda.is_available():
        found["cuda_peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return found


@contextmanager
def quality_log() -> Iterator[None]:
    """Keep the quality report of bars that were refused in ``logs/quality.json``, since no metrics will be written."""
    try:
        yield
    except InputError as error:
        report = getattr(error, "report", None)
        if report is not None:
            artefacts.write_json(QUALITY_LOG, report)
            print(f"quality report: {QUALITY_LOG}", file=sys.stderr)
        raise


def own_code() -> None:
    """Refuse an installed `algospace` from elsewhere: DVC hashes the code of this working tree only."""
    package = Path(algospace.__file__).resolve().parent
    if package.parent != Path.cwd().resolve():
        raise InputError(f"{package}: expected the package of {Path.cwd()}, found another; run `dvc repro` there")


def make_deterministic(runtime: RuntimeParams, seed: int) -> None:
    """Fix the seeds, the thread count and the kernels of this process; meet the others where there are any."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(True)
    # Nothing reads memory that it has not written, and to fill it took an eighth of a training's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.enable_cudnn_sdp(False)  # its attention fails on more than 65,535 rows times heads
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise InputError("params.yaml: runtime.device: expected cpu on this machine, found cuda without a CUDA device")
    if _processes() > 1:
        from algospace import distributed

        distributed.join(runtime.device)
