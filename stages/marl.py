"""Stage 4 of 5: candidates, regimes and proposals -> three agents trained by MAPPO, judged on validation.

Several processes share the episodes: ``torchrun --standalone --nproc-per-node=N -m stages.marl``, then
``dvc commit marl`` (docs/scaling.md).
"""

from pathlib import Path

import pandas as pd

from algospace import artefacts, consensus, distributed, env, mappo, nets, plotting
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared, windows
from algospace.features.fitted import Fitted
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
from algospace.policy import exams, pictures

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
    """Train on train, calibrate on select, quote on report, at initial and at trained weights."""
    seed = load_params("seed", int)
    runtime = load_params("runtime", RuntimeParams)
    params = load_params("marl", consensus.MARLParams)
    manifest = artefacts.read_json(MANIFEST)
    settings = load_settings(manifest)
    stage.make_deterministic(runtime, seed)

    m5 = prepared.learning_rows(pd.read_parquet(MAIN))
    vectors = pd.read_parquet(VECTORS)
    rows = windows.prepared_rows(
        m5, prepared.read_regime_rows(ROWS), Fitted.from_tensors(artefacts.read_tensors(FITTED)[0])
    )
    risk = risk_model.load(*artefacts.read_tensors(RISK))

    def of_split(code: int, synergies: bool) -> exams.Material:
        ends = prepared.candidate_rows(m5, code, synergies)
        events = m5.iloc[ends]
        regime = prepared.regime_vectors_at(events, vectors)
        if code == TRAIN:  # out-of-fold: what the agents learn on must not be better than what they will see
            proposal = Proposal.from_table(pd.read_parquet(PROPOSALS), ends)
        else:
            proposal = propose(risk, states(events, regime), events, settings.contract.tick)
        return exams.material(m5, ends, rows, regime, proposal, settings, runtime.device)

    lessons = of_split(TRAIN, params.train_on == "synergies")
    validation = {name: of_split(code, False) for name, code in (("select", SELECT), ("report", REPORT))}
    world = env.TradingEnv(
        lessons.candidates, lessons.sessions, lessons.views, settings.contract, settings.market,
        distributed.own_count(params.ppo.num_envs, "marl.ppo.num_envs"), params.ppo.gamma, distributed.own_seed(seed),
        runtime.device,
    )  # fmt: skip
    with training_state("marl") as state:
        team = exams.new_team(params, lessons.candidates.context.shape[1], seed).to(runtime.device)
        before = exams.examine(team, validation, settings)
        history = mappo.train(world, team, params.ppo, params.critic_dim, seed, state).history
        if not stage.leads():
            return
        after = exams.examine(team, validation, settings)
        calibration = exams.calibrate(after["select"], validation["select"].candidates)

        header = {"team": team.config, "calibration": calibration._asdict()}
        artefacts.write_tensors(MODEL, nets.arrays(team), header)
        figures = exams.exam_figures(before, after, validation, calibration)
        confidence = exams.worth(after["report"], validation["report"].candidates, calibration, seed)
        figures["report"] |= confidence.figures()
        artefacts.write_json(METRICS, rounded({"train_candidates": len(lessons.sessions)} | history[-1] | figures))
        write_curves(CURVES, history)
        pictures.write_all(PICTURES, confidence, plotting.watermark(manifest["source"]))


if __name__ == "__main__":
    stage.run(main, scales=True)
