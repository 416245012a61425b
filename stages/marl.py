"""Stage 4 of 5: candidates, regimes and proposals -> three agents trained by MAPPO, judged on validation.

Several processes share the episodes: ``torchrun --standalone --nproc-per-node=N -m stages.marl``, then
``dvc commit marl`` (docs/scaling.md).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from algospace import artefacts, nets, plotting, training
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared, windows
from algospace.features.fitted import Fitted
from algospace.marl import engine, exams, figures, pictures, sweep
from algospace.marl.params import MARLParams
from algospace.mrms import model as risk_model
from algospace.mrms.proposal import Proposal, propose
from algospace.mrms.state import states
from algospace.params import RuntimeParams
from algospace.performance import rounded
from algospace.pipeline import stage
from algospace.pipeline.config import load_params
from algospace.pipeline.curves import write_curves
from algospace.pipeline.settings import load_settings
from algospace.pipeline.training_state import training_state

MAIN = Path("data/prepared/main_training_data.parquet")
MANIFEST = Path("data/prepared/manifest.json")
ROWS = Path("data/prepared/rde_training_data.h5")
FITTED = Path("data/prepared/fitted.safetensors")
VECTORS = Path("data/regimes/regime_vectors.parquet")
RISK = Path("models/mrms/mrms.safetensors")
PROPOSALS = Path("data/proposals/train_proposals.parquet")
MODEL = Path("models/marl/marl.safetensors")
METRICS = Path("metrics/marl.json")
CURVES = Path("metrics/curves/marl")
PICTURES = Path("reports/marl")


def main() -> None:
    """Train every seed on train; choose one and calibrate it on select; quote it on report."""
    seed = load_params("seed", int)
    runtime = load_params("runtime", RuntimeParams)
    params = load_params("marl", MARLParams)
    stage.make_deterministic(runtime, seed)
    lessons, exam, days, settings = read(params, runtime)
    with training_state("marl") as state:
        study = engine.study(lessons, exam, params, settings, runtime, seed, state.part)
        if not stage.leads():
            return
        team = study.run.team
        artefacts.write_tensors(
            MODEL, nets.arrays(team), {"team": team.config, "calibration": study.calibration._asdict()}
        )
        confidence = exams.worth(study.run.judged["report"], exam["report"].candidates, study.calibration, seed)
        found = figures.figures(study, exam, lessons, confidence, params, settings, days)
        artefacts.write_json(METRICS, rounded(found))
        write_curves(CURVES, study.run.history)
        table = figures.daily(study.runs, params, exam["report"], days["report"], settings)
        artefacts.write_bytes(CURVES / "validation_daily.tsv", table.encode())
        histories = {k: run.history for k, run in zip(params.seeds, study.runs, strict=True)}
        pictures.write_all(PICTURES, histories, confidence, plotting.watermark(artefacts.read_json(MANIFEST)["source"]))


def read(params: MARLParams, runtime: RuntimeParams) -> exams.Inputs:
    """Read candidates, regimes and proposals of train and both halves of validation."""
    manifest = artefacts.read_json(MANIFEST)
    settings = load_settings(manifest)
    m5 = prepared.learning_rows(artefacts.read_parquet(MAIN))
    vectors = artefacts.read_parquet(VECTORS)
    rows = windows.prepared_rows(
        m5, prepared.read_regime_rows(ROWS), Fitted.from_tensors(artefacts.read_tensors(FITTED)[0])
    )
    risk = risk_model.load(*artefacts.read_tensors(RISK))

    def of_split(code: int, on: prepared.Decisions) -> exams.Material:
        ends = prepared.decision_rows(m5, code, on)
        events = m5.iloc[ends]
        regime = prepared.regime_vectors_at(events, vectors)
        if code == TRAIN:  # out-of-fold: what the agents learn on must not be better than what they will see
            proposal = Proposal.from_table(artefacts.read_parquet(PROPOSALS), ends)
        else:
            proposal = propose(risk, states(events, regime), events, settings.contract.tick)
        return exams.material(m5, ends, rows, regime, proposal, settings, runtime.device, params.pretraining)

    lessons = of_split(TRAIN, params.train_on)
    halves = {"select": SELECT, "report": REPORT}
    exam = {name: of_split(code, prepared.examined(params.train_on)) for name, code in halves.items()}
    parts = {"train": TRAIN} | halves
    days = {name: np.unique(m5["session_id"][m5["split"] == code]) for name, code in parts.items()}
    return exams.Inputs(lessons, exam, days, settings)


def attempts(params: MARLParams) -> Iterator[training.Attempt]:
    """Train with params of a sweep, seed by seed; nothing is written."""
    seed, runtime = load_params("seed", int), load_params("runtime", RuntimeParams)
    stage.make_deterministic(runtime, seed)
    yield from sweep.attempts(read(params, runtime), params, runtime, seed)


if __name__ == "__main__":
    stage.run(main, scales=True)
