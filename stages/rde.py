"""Stage 2 of 5: regime rows -> a Transformer-VAE fitted on train -> a regime vector for every 30-minute close.

Several processes share the training: ``torchrun --standalone --nproc-per-node=N -m stages.rde``, then
``dvc commit rde`` (docs/scaling.md).
"""

from collections.abc import Iterator
from pathlib import Path

from algospace import artefacts, nets, plotting, training
from algospace.features import prepared
from algospace.features.params import FeatureParams
from algospace.indicators.params import IndicatorParams
from algospace.params import RuntimeParams
from algospace.performance import rounded
from algospace.pipeline import stage
from algospace.pipeline.config import load_params
from algospace.pipeline.curves import write_curves
from algospace.pipeline.training_state import training_state
from algospace.rde import engine, pictures, space
from algospace.rde.examples import Windows
from algospace.rde.measures import COLUMNS, HalfHours
from algospace.rde.params import RDEParams

MAIN = Path("data/prepared/main_training_data.parquet")
MANIFEST = Path("data/prepared/manifest.json")
ROWS = Path("data/prepared/rde_training_data.h5")
MODEL = Path("models/rde/rde.safetensors")
SPACE = Path("models/rde/space.safetensors")
COMMUNICATION = Path("models/rde/communication.safetensors")
VECTORS = Path("data/regimes/regime_vectors.parquet")
METRICS = Path("metrics/rde.json")
CURVES = Path("metrics/curves/rde")
PICTURES = Path("reports/rde")


def main() -> None:
    """Fit on train, stop on select, quote on report, encode every close."""
    seed = load_params("seed", int)
    runtime = load_params("runtime", RuntimeParams)
    params = load_params("rde", RDEParams)
    stage.make_deterministic(runtime, seed)

    table, windows = read()
    known = prepared.learning_rows(artefacts.read_parquet(MAIN, columns=list(COLUMNS)))
    bars = HalfHours.of(known)
    mark = plotting.watermark(artefacts.read_json(MANIFEST)["source"])

    with training_state("rde") as state:
        trained = engine.train(table, bars, windows, params, runtime, seed, state.part)
        if not stage.leads():
            return
        judged = engine.judge(trained, params)

        artefacts.write_tensors(MODEL, nets.arrays(trained.model), trained.model.config)
        artefacts.write_tensors(SPACE, trained.space._asdict(), space.words(trained.meanings, trained.archetypes))
        artefacts.write_tensors(COMMUNICATION, nets.arrays(trained.layer), trained.layer.config)
        artefacts.write_parquet(VECTORS, engine.frame(trained, table.close_utc[table.window_end], judged))
        found = engine.examine(trained, judged, table, bars, windows, params, seed)
        artefacts.write_json(METRICS, rounded(found))
        write_curves(CURVES, trained.fit.history)
        pictures.write_all(PICTURES, trained, table, bars, judged, windows.length, seed, mark)


def read() -> tuple[prepared.RegimeRows, Windows]:
    """Read the regime rows, and cut windows over them."""
    length = load_params("features", FeatureParams).window_regime
    horizon = length + load_params("indicators", IndicatorParams).mmd.window
    table = prepared.read_regime_rows(ROWS)
    return table, Windows(table.rows, length, horizon)


def attempts(params: RDEParams) -> Iterator[training.Attempt]:
    """Fit with params of a sweep; nothing is written."""
    seed, runtime = load_params("seed", int), load_params("runtime", RuntimeParams)
    stage.make_deterministic(runtime, seed)
    yield from engine.attempts(*read(), params, runtime, seed)


if __name__ == "__main__":
    stage.run(main, scales=True)
