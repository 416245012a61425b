"""Stage 5 of 5: the frozen models -> one bundle, loaded back and replayed over the untouched test bars."""

from pathlib import Path

import numpy as np

from algospace import agents, artefacts, report, trials
from algospace.calibration import Calibration
from algospace.data import bars as bars_module
from algospace.data.splits import TEST, TRAIN
from algospace.errors import InputError
from algospace.features import prepared
from algospace.features.fitted import Fitted
from algospace.marl.params import MARLParams
from algospace.mrms import communication
from algospace.mrms import model as risk_model
from algospace.mrms.params import MRMSParams
from algospace.params import Params, RuntimeParams
from algospace.pipeline import provenance, stage
from algospace.pipeline.config import load_params
from algospace.pipeline.settings import load_settings
from algospace.policy import bundle, evaluation, golden, graphs, monitor, outputs, page
from algospace.policy.decide import Policy
from algospace.policy.params import ExportParams
from algospace.rde import model as regime_model
from algospace.rde.params import RDEParams
from algospace.rde.space import Space

MAIN = Path("data/prepared/main_training_data.parquet")
FITTED = Path("data/prepared/fitted.safetensors")
MANIFEST = Path("data/prepared/manifest.json")
VECTORS = Path("data/regimes/regime_vectors.parquet")
REGIME_MODEL = Path("models/rde/rde.safetensors")
SPACE = Path("models/rde/space.safetensors")
RISK_MODEL = Path("models/mrms/mrms.safetensors")
COMMUNICATION = Path("models/mrms/communication.safetensors")
TEAM_MODEL = Path("models/marl/marl.safetensors")
REGIME_METRICS = Path("metrics/rde.json")
RISK_METRICS = Path("metrics/mrms.json")
TEAM_METRICS = Path("metrics/marl.json")
TRIALS = Path("metrics/trials.jsonl")
LOCK = Path("requirements.lock")
BUNDLE = Path("models/bundle")
VALIDATION = (REGIME_METRICS, RISK_METRICS, TEAM_METRICS)
INPUTS = (
    MAIN, FITTED, MANIFEST, VECTORS, REGIME_MODEL, SPACE, RISK_MODEL, COMMUNICATION, TEAM_MODEL, *VALIDATION, LOCK
)  # fmt: skip
PAGE = Path("reports/report.html")
EVALUATION = Path("reports/export")
METRICS = Path("metrics/export.json")


def main() -> None:
    """Bundle, load, replay, judge, report."""
    seed, runtime = load_params("seed", int), load_params("runtime", RuntimeParams)
    params = load_params("export", ExportParams)
    prepared_manifest = artefacts.read_json(MANIFEST)
    settings, marl = load_settings(prepared_manifest), load_params("marl", MARLParams)
    training: dict[str, Params] = {
        "runtime": runtime, "rde": load_params("rde", RDEParams), "mrms": load_params("mrms", MRMSParams), "marl": marl,
    }  # fmt: skip
    stage.make_deterministic(runtime, seed)

    weights, header = artefacts.read_tensors(TEAM_MODEL)
    axes, words = artefacts.read_tensors(SPACE)
    trained = Policy(
        settings,
        Fitted.from_tensors(artefacts.read_tensors(FITTED)[0]),
        regime_model.load(*artefacts.read_tensors(REGIME_MODEL)),
        Space(**axes),
        words["archetypes"],
        risk_model.load(*artefacts.read_tensors(RISK_MODEL)),
        communication.load(*artefacts.read_tensors(COMMUNICATION)),
        agents.load(weights, header["team"]),
        Calibration(**header["calibration"]),
    )
    table = artefacts.read_parquet(MAIN)
    bars, split = table[list(bars_module.SCHEMA)], table["split"].to_numpy()
    train = bars.iloc[: np.flatnonzero(split == TRAIN)[-1] + 1]
    validation = {path.stem: artefacts.read_json(path) for path in VALIDATION}
    origin = provenance.of_bundle(prepared_manifest, INPUTS, validation) | {
        "train": monitor.reference(monitor.see(trained, train)),
        "training": {name: model.model_dump(mode="json") for name, model in training.items()},
        "export": params.model_dump(mode="json"),
    }
    beside = graphs.export(trained) | golden.contents(trained, golden.before_test(table))
    bundle_id = bundle.write(BUNDLE, trained, origin, beside)

    policy, _ = bundle.load(BUNDLE)
    golden.check(policy, BUNDLE)
    graphs.check(BUNDLE, policy)
    tried = trials.judged(trials.read(TRIALS))
    start = bars["close_utc"].iloc[np.flatnonzero(split == TEST)[0]]
    examined = prepared.examined(marl.train_on)
    found = evaluation.evaluate(policy, bars, params, tried, trade_from=start, examined=examined)
    if not evaluation.parity(found.replay, table):
        raise InputError(f"{MAIN}: expected the features that the bundle computes from its bars, found others")
    uses = provenance.count_test_use(bundle_id, bars[split == TEST])
    shown = page.report_data(
        found, page.source(prepared_manifest["source"]), bundle_id, tried, provenance.TOLD, "test bars",
        page.validation(validation["marl"]),
    )  # fmt: skip
    artefacts.write_bytes(PAGE, report.render(shown).encode())
    outputs.write(EVALUATION, found)
    artefacts.write_json(METRICS, outputs.metrics(found, feature_parity=True) | {"verdict": report.headline(shown)})
    print(f"{report.words(shown)}\n{uses}")


if __name__ == "__main__":
    stage.run(main)
