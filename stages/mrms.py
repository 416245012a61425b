"""Stage 3 of 5: candidates and their realised paths -> position, stop and target agents -> a proposal for any event."""

from pathlib import Path

import pandas as pd

from algospace import artefacts, market, nets
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared
from algospace.mrms.figures import figures
from algospace.mrms.fit import fit
from algospace.mrms.outcomes import outcome_table
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import context
from algospace.performance import rounded
from algospace.pipeline import stage
from algospace.pipeline.config import RuntimeParams, load_params
from algospace.pipeline.curves import write_curves
from algospace.pipeline.training_state import training_state

MAIN = Path("data/prepared/main_training_data.parquet")
MANIFEST = Path("data/prepared/manifest.json")
EVENTS = Path("data/prepared/mrms_training_data.parquet")
VECTORS = Path("data/regimes/regime_vectors.parquet")
MODEL = Path("models/mrms/mrms.safetensors")
METRICS = Path("metrics/mrms.json")
CURVES = Path("metrics/curves/mrms")


def main() -> None:
    """Run every cell of the grid through the bars, fit on train, stop on select, quote on report."""
    seed = load_params("seed", int)
    runtime = load_params("runtime", RuntimeParams)
    exchange = load_params("market", market.MarketParams)
    params = load_params("mrms", MRMSParams)
    stage.make_deterministic(runtime, seed)

    main_table = prepared.learning_rows(pd.read_parquet(MAIN, columns=list(prepared.MARKET_COLUMNS)))
    bars = market.Bars.of(main_table)
    contract = prepared.contract(artefacts.read_json(MANIFEST))
    costs = market.Costs.of(contract, exchange.cost_multiplier)
    events = pd.read_parquet(EVENTS)
    vectors = pd.read_parquet(VECTORS)
    sets = {}
    for code in (TRAIN, SELECT, REPORT):
        chosen = events[events["split"] == code]
        seen = context(chosen, prepared.regime_vectors_at(chosen, vectors))
        sets[code] = seen, outcome_table(bars, chosen, costs, params, exchange.max_bars)

    with training_state("mrms") as state:
        model, run = fit(
            sets[TRAIN], sets[SELECT], exchange.limits.max_units, params, runtime.device, state, state.resumed
        )
        artefacts.write_tensors(MODEL, nets.arrays(model.cpu()), model.config)
        found = figures(model, *sets[REPORT], sets[TRAIN][1], params)
        counts = {
            "train_candidates": len(sets[TRAIN][0]),
            "best_epoch": run.best_epoch,
            "epochs": len(run.history),
        }
        artefacts.write_json(METRICS, rounded(counts | found))
        write_curves(CURVES, run.history)


if __name__ == "__main__":
    stage.run(main)
