"""The regime detection engine put together: network, space, out-of-fold vectors, communication layer, figures."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace import training
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features.prepared import RegimeRows, gather
from algospace.params import RuntimeParams
from algospace.rde import communication, figures, space, walk_forward
from algospace.rde.communication import RegimeLSTM
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
    length: int,
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
    length
        Rows of a window.
    """

    def cut(ends: np.ndarray) -> np.ndarray:
        return gather(table.rows, ends, length)

    ends = table.window_end
    learning = table.split == TRAIN
    taught = ends[learning]
    selecting = cut(ends[table.split == SELECT])
    model, run = fit(lambda chosen: cut(taught[chosen]), len(taught), selecting, params, runtime, seed, part("network"))
    model.cpu()
    space.orient(model, encode(model, cut, taught).vectors, measures(bars, taught, length)["volatility"].to_numpy())
    final = encode(model, cut, ends)

    regimes, consecutive, alignment = _out_of_fold(
        cut, ends, np.flatnonzero(learning), final, run.best_epoch + 1, length, params, runtime, seed, part
    )
    fitted = Space.fit(final.vectors[learning], np.append(False, np.diff(taught) == 1), params.archetypes, seed)
    validation = (table.split == SELECT) | (table.split == REPORT)
    named = space.meanings(
        final.vectors[validation], measures(bars, ends[validation], length), params.min_correlation, length, seed
    )
    steps = params.communication.sequence + 1
    known, later = (
        communication.sequences(regimes.vectors, consecutive, table.split == code, steps) for code in (TRAIN, SELECT)
    )
    layer, layer_run = communication.fit(known, later, params.communication, runtime, seed, part("communication"))
    return Engine(
        model, fitted, named, space.archetype_names(fitted, named), layer, final, regimes, consecutive, run, layer_run,
        alignment,
    )  # fmt: skip


def _out_of_fold(
    cut: Callable[[np.ndarray], np.ndarray],
    ends: np.ndarray,
    learning: np.ndarray,
    final: Encoded,
    epochs: int,
    length: int,
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
    for k, (seen, block) in enumerate(walk_forward.blocks(ends[learning], params.folds, length)):
        # As many passes over its share of the windows as the final model needed over all: there is none to stop on.
        samples = max(1, round(params.optimizer.samples_per_epoch * len(seen) / len(learning)))
        budget = params.optimizer.model_copy(update={"epochs": epochs, "samples_per_epoch": samples})
        known = ends[learning[seen]]

        def windows(chosen: np.ndarray, known: np.ndarray = known) -> np.ndarray:
            return cut(known[chosen])

        run = params.model_copy(update={"optimizer": budget})
        model, _ = fit(windows, len(known), None, run, runtime, seed, part(f"fold_{k}"))
        alignment.append(space.align(model.cpu(), encode(model, cut, known).vectors, final.vectors[learning[seen]]))
        at = learning[block]
        for kept, found in zip(regimes, encode(model, cut, ends[at]), strict=True):
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
    engine: Engine, judged: Quality, table: RegimeRows, bars: HalfHours, length: int, params: RDEParams, seed: int
) -> dict[str, Any]:
    """Figures on the reporting half of validation."""
    rows, ends, vectors = table.rows, table.window_end, engine.final.vectors
    train_rows, report = table.split == TRAIN, table.split == REPORT
    windows = gather(rows, ends[report], length)
    found: dict[str, Any] = {
        "train_windows": int(train_rows.sum()),
        "report_windows": int(report.sum()),
        "best_epoch": engine.fit.best_epoch,
        "epochs": len(engine.fit.history),
    }
    found |= figures.reconstruction(engine.model, windows, np.nanmean(rows[ends[train_rows]], axis=0))
    found |= evaluate(engine.model, windows, params)
    found["mean_step"] = figures.mean_step(vectors[report], np.append(False, np.diff(ends[report]) == 1))

    # A target may not leave its split: the last windows of each have none.
    taught, examined = (np.flatnonzero((table.split == code) & _followed(table, length)) for code in (TRAIN, REPORT))
    raw = np.column_stack([rows[ends], _window_means(rows, ends, length)])
    for name, x in (("regime", vectors), ("raw", raw)):
        known, asked = ((x[at], next_window(bars, ends[at], length)) for at in (taught, examined))
        found |= {f"probe_{name}_{k}": v for k, v in figures.probe(known, asked, length, seed).items()}

    labels = engine.space.nearest(vectors[report])
    found |= figures.silhouettes(vectors[report], labels, params.archetypes, seed)
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


def _window_means(rows: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    total = np.cumsum(np.nan_to_num(rows.astype(np.float64)), axis=0)
    total = np.concatenate([np.zeros_like(total[:1]), total])
    means: np.ndarray = (total[ends + 1] - total[ends + 1 - length]) / length
    return means
