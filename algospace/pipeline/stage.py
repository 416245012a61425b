"""How a stage begins and ends: its own code, fixed threads, deterministic kernels, one-line errors."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import algospace
from algospace import artefacts
from algospace.errors import InputError
from algospace.params import RuntimeParams

LOGS = Path("logs")
QUALITY_LOG = LOGS / "quality.json"


def run(main: Callable[[], None], scales: bool = False) -> None:
    """Run a stage's ``main``; bad input becomes one line on stderr and exit code 2.

    What it took (seconds, peak memory) goes to ``logs/STAGE.jsonl``, a line a run: it is no result. ``scales`` says
    that ``torchrun`` may start the stage as several processes; of these the one that `leads` writes.
    """
    start = time.monotonic()
    name = Path(sys.modules[main.__module__].__file__ or "stage").stem
    try:
        _own_code()
        if _processes() > 1 and not scales:
            raise InputError(f"{name}: expected one process, found {_processes()}: this stage does not scale")
        main()
    except InputError as error:
        # No word to the other processes: torchrun ends them when it sees this one's exit code.
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if _processes() > 1:
        from algospace import distributed

        distributed.leave()
    if leads():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        log(name, {"seconds": round(time.monotonic() - start, 3), "peak_memory_mib": round(peak, 1)})


def leads() -> bool:
    """Whether this process writes: the first of those that ``torchrun`` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def log(stage: str, line: dict[str, Any]) -> None:
    """Append a line to ``logs/STAGE.jsonl``, which nothing reads back."""
    LOGS.mkdir(exist_ok=True)
    with (LOGS / f"{stage}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


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


def _own_code() -> None:
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
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise InputError("params.yaml: runtime.device: expected cpu on this machine, found cuda without a CUDA device")
    if _processes() > 1:
        from algospace import distributed

        distributed.join(runtime.device)
