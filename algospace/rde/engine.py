"""The regime detection engine put together: network, space, out-of-fold vectors, communication layer, figures."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace import training
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features.prepared import RegimeRows
from algospace.params import RuntimeParams
from algospace.rde import communication, figures, space, walk_forward
from algospace.rde.communication import RegimeLSTM
from algospace.rde.examples import Examples, Windows
from algospace.rde.fit import evaluate, fit
from algospace.rde.measures import HalfHours, measures, next_window
from algospace.rde.model import Encoded, RegimeVAE, encode
from algospace.rde.params import RDEParams
from algospace.rde.space import Meaning, Quality, Space


class Engine(NamedTuple):
    """What the stage leaves; n windows, in the order of the regime rows' ``window_end``."""

    model: RegimeVAE
    space: Space
    meanings: list[Meaning]
    archetypes: list[str]
    layer: RegimeLSTM
    final: Encoded  # by the final model
    regimes: Encoded  # the same, but out of fold on train: what later stages learn from
    consecutive: np.ndarray  # bool (n,): which of `regimes` follow the one before by a bar and a model
    fit: training.Fit
    layer_fit: training.Fit
    alignment: list[float]  # R^2 of each fold model's placement in the final model's space


def train(
    table: RegimeRows,
    bars: HalfHours,
    windows: Windows,
    params: RDEParams,
    runtime: RuntimeParams,
    seed: int,
    part: training.Part,
) -> Engine:
    """Fit on train, stop on select, name on validation.

    Parameters
    ----------
    table, bars
        Regime rows, and the half hours before the test split; row k of the one is row k of the other.
    windows
        Over the table's rows.
    """
    ends, length = table.window_end, windows.length
    learning = table.split == TRAIN
    taught, selecting = ends[learning], ends[table.split == SELECT]
    model, run = network(taught, selecting, windows, params, runtime, seed, part("network"))
    model.cpu()
    volatility = measures(bars, taught, length)["volatility"].to_numpy()
    space.orient(model, encode(model, windows.cut, taught).vectors, volatility)
    final = encode(model, windows.cut, ends)

    regimes, consecutive, alignment = _out_of_fold(
        windows, ends, np.flatnonzero(learning), final, run.best_epoch + 1, params, runtime, seed, part
    )
    fitted = Space.fit(final.vectors[learning], taught, windows.horizon, params.archetypes, seed)
    validation = (table.split == SELECT) | (table.split == REPORT)
    measured = measures(bars, ends[validation], length)
    named = space.meanings(final.vectors[validation], measured, params.min_correlation, length, seed)
    archetypes = space.archetype_names(fitted.nearest(final.vectors[validation]), measured, params.archetypes)
    steps = params.communication.sequence + 1
    lessons, selecting_lessons = (
        communication.sequences(regimes.vectors, consecutive, table.split == code, steps) for code in (TRAIN, SELECT)
    )
    layer, layer_run = communication.fit(
        lessons, selecting_lessons, params.communication, runtime, seed, part("communication")
    )
    return Engine(
        model, fitted, named, archetypes, layer, final, regimes, consecutive, run, layer_run, alignment,
    )  # fmt: skip


def network(
    taught: np.ndarray,
    selecting: np.ndarray,
    windows: Windows,
    params: RDEParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> tuple[RegimeVAE, training.Fit]:
    """Fit the network on the windows that end at rows ``taught``, stop on those that end at rows ``selecting``."""
    known, later = windows.later((taught, selecting))
    return fit(
        lambda chosen: Examples(windows.cut(taught[chosen]), known[chosen]), len(taught),
        Examples(windows.cut(selecting), later), params.taught_by(windows.evidence(taught)), runtime, seed, saver,
    )  # fmt: skip


def attempts(
    table: RegimeRows, windows: Windows, params: RDEParams, runtime: RuntimeParams, seed: int
) -> Iterator[training.Attempt]:
    """Fit the network as a sweep tries it; arguments as those of `train`.

    The score is minus the mean squared error of reconstruction on select at the best epoch: unlike the loss it does
    not depend on the weights of the loss's terms.
    """
    taught, selecting = (table.window_end[table.split == code] for code in (TRAIN, SELECT))
    _, run = network(taught, selecting, windows, params, runtime, seed, training.Unsaved())
    yield training.Attempt(-run.history[run.best_epoch]["validation/mse"], {})


def _out_of_fold(
    windows: Windows,
    ends: np.ndarray,
    learning: np.ndarray,
    final: Encoded,
    epochs: int,
    params: RDEParams,
    runtime: RuntimeParams,
    seed: int,
    part: training.Part,
) -> tuple[Encoded, np.ndarray, list[float]]:
    """Replace the final model's regimes of train, at positions ``learning``, by those of models that have not seen it.

    Returns the regimes, which of them follow the one before by a bar and a model, and the R^2 of each placement.
    """
    regimes = Encoded(*(array.copy() for array in final))
    consecutive = np.append(False, np.diff(ends) == 1)
    alignment = []
    for k, (seen, block) in enumerate(walk_forward.blocks(ends[learning], params.folds, windows.length)):
        # As many passes over its share of the windows as the final model needed over all: there is none to stop on.
        samples = max(1, round(params.optimizer.samples_per_epoch * len(seen) / len(learning)))
        budget = params.optimizer.model_copy(update={"epochs": epochs, "samples_per_epoch": samples})
        known = ends[learning[seen]]
        (later,) = windows.later((known,))

        def examples(chosen: np.ndarray, known: np.ndarray = known, later: np.ndarray = later) -> Examples:
            return Examples(windows.cut(known[chosen]), later[chosen])

        run = params.taught_by(windows.evidence(known)).model_copy(update={"optimizer": budget})
        model, _ = fit(examples, len(known), None, run, runtime, seed, part(f"fold_{k}"))
        own = encode(model.cpu(), windows.cut, known).vectors
        alignment.append(space.align(model, own, final.vectors[learning[seen]]))
        at = learning[block]
        for kept, found in zip(regimes, encode(model, windows.cut, ends[at]), strict=True):
            kept[at] = found
        consecutive[at[0]] = False
        consecutive[at[-1] + 1 : at[-1] + 2] = False
    return regimes, consecutive, alignment


def judge(engine: Engine, params: RDEParams) -> Quality:
    """Quality block of every window of `Engine.regimes`."""
    return space.quality(engine.space, *engine.regimes, engine.consecutive, params.alarms)


def frame(engine: Engine, close_utc: np.ndarray, judged: Quality) -> pd.DataFrame:
    """Regime vectors and quality of every window, a row per 30-minute close (ms since 1970)."""
    vectors = engine.regimes.vectors
    columns: dict[str, Any] = {"close_utc": pd.to_datetime(close_utc, unit="ms", utc=True).as_unit("ms")}
    columns |= {f"regime_{i}": vectors[:, i] for i in range(vectors.shape[1])}
    return pd.DataFrame(columns | judged._asdict())


def examine(
    engine: Engine,
    judged: Quality,
    table: RegimeRows,
    bars: HalfHours,
    windows: Windows,
    params: RDEParams,
    seed: int,
) -> dict[str, Any]:
    """Figures on the reporting half of validation; arguments as `train`'s."""
    rows, ends, vectors, length = windows.rows, table.window_end, engine.final.vectors, windows.length
    train_rows, report = table.split == TRAIN, table.split == REPORT
    _, later = windows.later((ends[train_rows], ends[report]))
    examples = Examples(windows.cut(ends[report]), later)
    found: dict[str, Any] = {
        "train_windows": int(train_rows.sum()),
        "report_windows": int(report.sum()),
        "best_epoch": engine.fit.best_epoch,
        "epochs": len(engine.fit.history),
    }
    found |= figures.reconstruction(engine.model, examples.windows, np.nanmean(rows[ends[train_rows]], axis=0))
    found |= evaluate(engine.model, examples, params.taught_by(windows.evidence(ends[train_rows])))
    found["forecast_r2"] = figures.forecast_r2(engine.model, examples)
    found["mean_step"] = figures.mean_step(vectors[report], np.append(False, np.diff(ends[report]) == 1))

    # A target may not leave its split: the last windows of each have none.
    taught, examined = (np.flatnonzero((table.split == code) & _followed(table, length)) for code in (TRAIN, REPORT))
    raw = np.column_stack([rows[ends], windows.means(ends)])
    for name, x in (("regime", vectors), ("raw", raw)):
        known, asked = ((x[at], next_window(bars, ends[at], length)) for at in (taught, examined))
        found |= {f"probe_{name}_{k}": v for k, v in figures.probe(known, asked, length, seed).items()}

    labels = engine.space.nearest(vectors[report])
    found |= figures.silhouettes(engine.space.places(vectors[report]), labels, params.archetypes, seed)
    steps = params.communication.sequence + 1
    exam, lessons = (
        communication.sequences(engine.regimes.vectors, engine.consecutive, chosen, steps)
        for chosen in (report, train_rows)
    )
    found |= {f"next_{k}": v for k, v in communication.figures(engine.layer, exam, lessons).items()}
    later = vectors[(table.split == SELECT) | report]
    found |= walk_forward.shift(engine.regimes.vectors[train_rows], vectors[train_rows], later)
    found["fold_alignment_r2"] = min(engine.alignment)
    found["alarm_rate"] = float(judged.alarm[report].mean())
    found["dimensions"] = {
        f"regime_{i}": {"name": m.name, "r": m.r, "r_low": m.low, "r_high": m.high}
        for i, m in enumerate(engine.meanings)
    }
    found["archetypes"] = {
        name: float((labels == k).mean()) for k, name in enumerate(engine.archetypes)
    }  # share of the report half
    return found


def _followed(table: RegimeRows, length: int) -> np.ndarray:
    """Whether the window right after each window lies in the same split: bool (m,)."""
    at = np.searchsorted(table.window_end, table.window_end + length)
    later = np.minimum(at, len(table.window_end) - 1)
    whole = table.window_end[later] == table.window_end + length
    same: np.ndarray = whole & (table.split[later] == table.split)
    return same
