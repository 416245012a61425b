"""Windows per second of RDE training, beside plain forward and backward passes of the same modules and batches.

The plain passes load nothing and optimise nothing: the ratio says what the training loop leaves of them. The further
rows say what clearing memory every 10 steps costs, and whether the garbage collector is worth switching off, and how
long the regime vector of one window takes.
"""

import functools
import gc
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import interleaved, main

from algospace import training
from algospace.params import RuntimeParams
from algospace.pipeline.config import load_params
from algospace.pipeline.profiles import load_profile
from algospace.rde.examples import Examples, Windows
from algospace.rde.fit import fit
from algospace.rde.model import RegimeVAE, elbo_loss, encode, forecast_loss, reparameterize
from algospace.rde.params import RDEParams

PARAMS = Path(__file__).parents[1] / "params.yaml"
WINDOW, FEATURES = 96, 12
TABLE = np.random.default_rng(0).normal(size=(20_000, FEATURES)).astype(np.float32)
ENDS = np.arange(WINDOW - 1, len(TABLE))
WINDOWS = Windows(TABLE, WINDOW, 2 * WINDOW)
(LATER,) = WINDOWS.later((ENDS,))


def examples(chosen: np.ndarray) -> Examples:
    """Cut some windows, as the stage does."""
    return Examples(WINDOWS.cut(ENDS[chosen]), LATER[chosen])


def network(params: RDEParams) -> RegimeVAE:
    """Build an untrained network."""
    names = ("patch", "d_model", "n_heads", "n_layers", "d_ff", "latent_dim", "dropout")
    return RegimeVAE(FEATURES, WINDOW, **{name: getattr(params, name) for name in names})


def train(params: RDEParams, runtime: RuntimeParams) -> None:
    """One epoch of the training loop, as the stage runs it, but for a validation of two windows."""
    fit(examples, len(ENDS), examples(np.arange(2)), params, runtime, 0, training.Unsaved())


def plain(params: RDEParams, runtime: RuntimeParams) -> None:
    """As many passes on one batch that lies ready."""
    model = network(params).to(runtime.device)
    size = params.optimizer.batch_size
    x, later = (torch.from_numpy(array).to(runtime.device) for array in examples(np.arange(size)))
    for _ in range(params.optimizer.samples_per_epoch // size):
        model.zero_grad()
        with torch.autocast(runtime.device, torch.bfloat16, runtime.precision == "bfloat16"):
            mu, logvar = (output.float() for output in model.encode(x))
            z = reparameterize(mu, logvar, torch.randn_like(mu))
            loss = elbo_loss(x, model.decode(z).float(), mu, logvar, params.beta, params.free_bits)
            loss = loss + params.forecast * forecast_loss(model.forecast(z).float(), later)
        loss.backward()
    if runtime.device == "cuda":
        torch.cuda.synchronize()


def without_collector(params: RDEParams, runtime: RuntimeParams) -> None:
    """Train with the garbage collector off."""
    gc.disable()
    try:
        train(params, runtime)
    finally:
        gc.enable()


def sized(params: RDEParams, batch: int, steps: int) -> RDEParams:
    update = {"batch_size": batch, "samples_per_epoch": batch * steps, "epochs": 1}
    return params.model_copy(update={"optimizer": params.optimizer.model_copy(update=update)})


def speed(name: str, params: RDEParams, runtime: RuntimeParams, repeats: int) -> Callable[[], dict[str, Any]]:
    def measure() -> dict[str, Any]:
        loop, passes = interleaved([functools.partial(each, params, runtime) for each in (train, plain)], repeats)
        windows = params.optimizer.samples_per_epoch
        return {
            "benchmark": name, "batch": params.optimizer.batch_size, "windows_per_second": round(windows / loop),
            "plain_windows_per_second": round(windows / passes), "ratio": round(passes / loop, 3),
            "goal": "25000 windows/s" if runtime.device == "cuda" else "ratio 0.70",
        }  # fmt: skip

    measure.__name__ = name
    return measure


def cost(
    name: str, params: RDEParams, runtime: RuntimeParams, other: Callable[[], None], repeats: int
) -> Callable[[], dict[str, Any]]:
    """Measure what another way to train takes beside the usual one."""

    def measure() -> dict[str, Any]:
        usual, changed = interleaved([functools.partial(train, params, runtime), other], repeats)
        steps = params.optimizer.samples_per_epoch // params.optimizer.batch_size
        return {
            "benchmark": name, "ms_per_step": round(1000 * usual / steps, 2),
            "ms_per_step_changed": round(1000 * changed / steps, 2), "percent": round(100 * (changed / usual - 1), 1),
        }  # fmt: skip

    measure.__name__ = name
    return measure


def vector(name: str, params: RDEParams, repeats: int) -> Callable[[], dict[str, Any]]:
    """Measure the regime vector of one window on a thread of the CPU."""

    def measure() -> dict[str, Any]:
        model = network(params).eval()
        times = []
        for end in range(repeats):
            began = time.perf_counter()
            encode(model, WINDOWS.cut, ENDS[end : end + 1])
            times.append(1000 * (time.perf_counter() - began))
        p50, p99 = np.percentile(times, [50, 99])
        return {"benchmark": name, "p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "goal": "p50 5 ms"}

    measure.__name__ = name
    return measure


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    runtime = RuntimeParams(threads=2, device="cpu", precision="float32", clear_memory_interval=0)
    torch.set_num_threads(runtime.threads)
    default = sized(load_params("rde", RDEParams, PARAMS), 256, 20 if quick else 60)
    full = load_profile("full", "rde", RDEParams, PARAMS)
    repeats = 7 if quick else 15
    yield speed("rde_training_default", default, runtime, repeats)
    yield speed("rde_training_256x6", sized(full, 32, 1 if quick else 4), runtime, 3 if quick else 7)
    tidy = runtime.model_copy(update={"clear_memory_interval": 10})
    yield cost("rde_training_clear_10", default, runtime, functools.partial(train, default, tidy), repeats)
    yield cost("rde_training_no_gc", default, runtime, functools.partial(without_collector, default, runtime), repeats)
    yield vector("rde_vector_default", default, 200 if quick else 2000)
    yield vector("rde_vector_256x6", full, 50 if quick else 500)
    if torch.cuda.is_available():
        cuda = runtime.model_copy(update={"device": "cuda", "precision": "bfloat16"})
        yield speed("rde_training_256x6_cuda", sized(full, 4096, 4), cuda, 3 if quick else 7)


if __name__ == "__main__":
    main(__doc__ or "", rows)
