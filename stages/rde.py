"""Stage 2 of 5: regime rows -> a Transformer-VAE fitted on train -> a regime vector for every 30-minute close.

Several processes share the training: ``torchrun --standalone --nproc-per-node=N -m stages.rde``, then
``dvc commit rde`` (docs/scaling.md).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from algospace import artefacts, nets
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared
from algospace.features.params import FeatureParams
from algospace.params import RuntimeParams
from algospace.performance import rounded
from algospace.pipeline import stage
from algospace.pipeline.config import load_params
from algospace.pipeline.curves import write_curves
from algospace.pipeline.training_state import training_state
from algospace.rde import figures
from algospace.rde import model as regime_model
from algospace.rde.fit import evaluate, fit
from algospace.rde.params import RDEParams

ROWS = Path("data/prepared/rde_training_data.h5")
MODEL = Path("models/rde/rde.safetensors")
VECTORS = Path("data/regimes/regime_vectors.parquet")
METRICS = Path("metrics/rde.json")
CURVES = Path("metrics/curves/rde")


def main() -> None:
    """Fit on train, stop on select, quote on report, encode every close."""
    seed = load_params("seed", int)
    runtime = load_params("runtime", RuntimeParams)
    params = load_params("rde", RDEParams)
    length = load_params("features", FeatureParams).window_regime
    stage.make_deterministic(runtime, seed)

    table = prepared.read_regime_rows(ROWS)
    train, select, report = (table.window_end[table.split == code] for code in (TRAIN, SELECT, REPORT))

    def cut(ends: np.ndarray) -> np.ndarray:
        return prepared.gather(table.rows, ends, length)

    with training_state("rde") as state:
        model, run = fit(lambda chosen: cut(train[chosen]), len(train), cut(select), params, runtime, seed, state)
        if not stage.leads():
            return
        vectors = regime_model.encode(model.cpu(), cut, table.window_end)

        artefacts.write_tensors(MODEL, nets.arrays(model), model.config)
        frame = pd.DataFrame(vectors, columns=[f"regime_{i}" for i in range(vectors.shape[1])])
        close = pd.to_datetime(table.close_utc[table.window_end], unit="ms", utc=True).as_unit("ms")
        frame.insert(0, "close_utc", close)
        artefacts.write_parquet(VECTORS, frame)
        quality = figures.quality(model, cut(report), np.nanmean(table.rows[train], axis=0))
        counts = {"train_windows": len(train), "best_epoch": run.best_epoch, "epochs": len(run.history)}
        artefacts.write_json(METRICS, rounded(counts | quality | evaluate(model, cut(report), params)))
        write_curves(CURVES, run.history)


if __name__ == "__main__":
    stage.run(main, scales=True)
