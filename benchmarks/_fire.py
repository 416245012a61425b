"""A pipeline of seconds, and runs of its stages that are killed or whose calls fail at a chosen point.

A `Furnace` is a process that has imported everything and forks a child for each run of a stage, so that a run costs
the stage's own second. ``_fire.c``, preloaded, makes the N-th call of a run on a file of the workspace fail, or kills.
"""

import ctypes
import functools
import hashlib
import io
import itertools
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml
from _workspace import ROOT, environment

from algospace.pipeline.status import STAGES

TINY: dict[str, Any] = {
    "runtime.threads": 1,
    "data.synthetic.sessions": 12,
    "data.min_sessions": 12,
    "data.train_fraction": 0.5,
    "data.validation_fraction": 0.3,
    "data.embargo_m30_bars": 2,
    "data.embargo_m5_bars": 2,
    "indicators.nwrqk.slope_window": 50,
    "indicators.lvn.window_sessions": 2,
    "indicators.fvg.min_size_atr": 1.0,
    "indicators.mmd.window": 24,
    "gate1.mlmi_dead_band": 10.0,
    "gate1.min_train_events": 1,
    "features.window_30m": 12,
    "features.window_5m": 12,
    "features.window_arbitrage": 12,
    "features.window_regime": 24,
    "market.max_bars": 12,
    "rde.patch": 12,
    "rde.d_model": 8,
    "rde.d_ff": 8,
    "rde.folds": 2,
    "rde.optimizer.batch_size": 32,
    "rde.optimizer.samples_per_epoch": 128,
    "rde.optimizer.epochs": 2,
    "rde.communication.optimizer.epochs": 1,
    "rde.communication.optimizer.samples_per_epoch": 64,
    "mrms.hidden_dim": 8,
    "mrms.folds": 2,
    "mrms.optimizer.epochs": 2,
    "mrms.optimizer.samples_per_epoch": 512,
    "mrms.bootstrap_draws": 100,
    "mrms.random_draws": 5,
    "mrms.communication.hidden_dim": 4,
    "mrms.communication.optimizer.epochs": 1,
    "mrms.communication.optimizer.samples_per_epoch": 64,
    "marl.channels": [4, 4, 4],
    "marl.n_heads": 2,
    "marl.message_dim": 4,
    "marl.head_dim": 8,
    "marl.critic_dim": 8,
    "marl.seeds": [0],
    "marl.pretraining.optimizer.epochs": 1,
    "marl.pretraining.optimizer.samples_per_epoch": 256,
    "marl.bootstrap_draws": 100,
    "marl.random_draws": 100,
    "marl.ppo.num_envs": 8,
    "marl.ppo.num_steps": 8,
    "marl.ppo.total_timesteps": 128,
    "export.bootstrap_draws": 100,
    "export.random_draws": 20,
}
SAVE_EVERY = 4  # optimiser steps between two saves of the training state: in so short a run 100 would never come
READ, CREATE, WRITE, FSYNC, RENAME, UNLINK, MKDIR, SAVE = range(8)  # kinds of calls, as in _fire.c
NEVER = -1


@functools.cache
def declared(folder: Path, stage: str) -> list[Path]:
    """Outs, metrics and plots of a stage, relative to the folder, as ``dvc.yaml`` names them."""
    entry = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    items = [item for kind in ("outs", "metrics", "plots") for item in entry.get(kind, [])]
    return [Path(next(iter(item)) if isinstance(item, dict) else item) for item in items]


def digests(folder: Path, stages: Iterable[str] = STAGES) -> dict[str, str]:
    """Path -> sha256 of every file of every out, metric and plot that is there."""
    found = {}
    for stage in stages:
        for name in declared(folder, stage):
            path = folder / name
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    found[file.relative_to(folder).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def state(folder: Path, stage: str) -> str:
    """Digest of all that a next run of a stage finds: its outs, its training state, leftovers; no pids."""
    found = {"stage": stage}
    for place in {(folder / name).parent for name in declared(folder, stage)} | {folder / ".ckpt"}:
        for file in place.rglob("*"):
            if file.is_file() and file.suffix not in (".lock", ".pid"):
                name = re.sub(r"\.\d+\.tmp$", ".tmp", file.relative_to(folder).as_posix())
                found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def clear(folder: Path, stage: str) -> None:
    """Remove what a stage writes, its training state and its log, as if it had never run."""
    for name in [*declared(folder, stage), Path(".ckpt"), Path("logs")]:
        _remove(folder / name)


def keep(folder: Path, store: Path) -> None:
    """Copy what all stages wrote."""
    for name in itertools.chain(*(declared(folder, stage) for stage in STAGES)):
        _copy(folder / name, store / name)


def restore(folder: Path, store: Path) -> None:
    """Bring back what `keep` copied, and nothing but that."""
    for name in itertools.chain(*(declared(folder, stage) for stage in STAGES)):
        _remove(folder / name)
        _copy(store / name, folder / name)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def leftovers(folder: Path, stage: str) -> list[str]:
    """Temporary files of a stage's outs, and training states: what a run that ended well does not leave."""
    places = {(folder / name).parent for name in declared(folder, stage)}
    found = [file for place in places if place.is_dir() for file in place.rglob(".*.tmp*")]
    found += [path for path in (folder / ".ckpt").glob("*/*") if path.is_dir()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


class Ended(NamedTuple):
    """How a run ended."""

    code: int  # negative: the signal
    stderr: str
    calls: list[int]  # kinds of those that were counted, in their order
    seconds: float


class Furnace:
    """Runs single stages in a workspace, each in a fork of one warm process.

    ``preloaded`` is the library of `compiled`; without it runs can only be killed after a time.
    """

    def __init__(self, folder: Path, preloaded: Path | None = None) -> None:
        self.folder, self._preloaded = folder, preloaded

    def __enter__(self) -> Self:
        """Start the process and import everything."""
        extra = {"LD_PRELOAD": str(self._preloaded)} if self._preloaded else {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT / 'benchmarks')!r})\n"
             "import _fire; _fire.serve()", str(self._preloaded or "")],
            cwd=self.folder, env=environment(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", **extra), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(
        self, stage: str, at: int = NEVER, error: int = 0, lasting: bool = False,
        kill_after: float | None = None,
    ) -> Ended:  # fmt: skip
        """Run a stage once.

        Parameters
        ----------
        at
            Number of the call, from 1, that fails with errno ``error`` or, with 0, kills; `NEVER` for none.
        lasting
            Whether every later call that needs space fails too, as on a full disk.
        kill_after
            Seconds after which the run is killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wish = {"stage": stage, "arm": [at, error, int(lasting)], "kill_after": kill_after}
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


def compiled(folder: Path) -> Path | None:
    """Compile ``_fire.c`` into a folder; None where there is no C compiler or no Linux."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "fire.so"
    source = Path(__file__).with_name("_fire.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def serve() -> None:
    """Answer the wishes of `Furnace.run`, one a line on stdin, until it ends."""
    import importlib

    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    library = ctypes.CDLL(sys.argv[1]) if sys.argv[1] else None
    calls = (ctypes.c_long * 8192).from_buffer(mmap.mmap(-1, 8192 * 8))
    mains = {stage: importlib.import_module(f"stages.{stage}").main for stage in STAGES}
    for name in ("algospace.distributed", "algospace.pictures", "matplotlib.pyplot", "dvclive.live"):
        importlib.import_module(name)
    _draw_nothing()
    importlib.import_module("torch").use_deterministic_algorithms(True)  # imports much more
    importlib.import_module("algospace.pipeline.training_state").SAVE_EVERY = SAVE_EVERY
    for stage in STAGES:  # once here: what it compiles, imports and remembers, every fork has then
        mains[stage]()
    for line in sys.stdin:
        wish = json.loads(line)
        calls[0] = 0
        words = Path(tempfile.gettempdir(), f"furnace.{os.getpid()}.stderr")  # outside: its writes must not fail
        begin = time.perf_counter()
        child = os.fork()
        if child == 0:
            _work(mains[wish["stage"]], words, library, calls, wish["arm"])
        status = _wait(child, wish["kill_after"])
        reply = [
            os.waitstatus_to_exitcode(status),
            words.read_text(),
            calls[1 : 1 + calls[0]],
            time.perf_counter() - begin,
        ]
        words.unlink()
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _draw_nothing() -> None:
    """Pictures take most of a run's time and nothing of its calls: each is written, none drawn."""
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    draw = Figure.savefig  # still needed for the report, whose pictures are text
    Figure.savefig = lambda figure, file, **how: (
        draw(figure, file, **how) if isinstance(file, io.StringIO) else file.write(b"picture")
    )
    TSNE.fit_transform = lambda tsne, points: points[:, :2]


def _work(main: Any, words: Path, library: ctypes.CDLL | None, calls: Any, arm: list[int]) -> None:
    """Run a stage in the forked child; never returns."""
    from algospace.pipeline import stage

    file = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = 0
    if library is not None:
        library.fire_arm.argtypes = [ctypes.c_void_p, ctypes.c_long, *[ctypes.c_int] * 2, ctypes.c_char_p]
        library.fire_arm(ctypes.addressof(calls), *arm, os.getcwd().encode())
    try:
        stage.run(main, scales=main.__module__ in ("stages.rde", "stages.marl"))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _wait(child: int, kill_after: float | None) -> int:
    end = time.perf_counter() + kill_after if kill_after is not None else None
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if end is not None and time.perf_counter() >= end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.001)
