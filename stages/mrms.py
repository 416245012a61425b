"""Stage 3 of 5: candidates and their realised paths -> position, stop and target agents -> a proposal for any event."""

from pathlib import Path

import pandas as pd

from algospace import artefacts, market, nets
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared
from algospace.mrms.figures import figures
from algospace.mrms.fit import fit
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import propose
from algospace.mrms.trades import with_past_accounts
from algospace.mrms.walk_forward import folds, shift, walk_forward
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
PROPOSALS = Path("data/proposals/train_proposals.parquet")
METRICS = Path("metrics/mrms.json")
CURVES = Path("metrics/curves/mrms")


def main() -> None:
    """Run every cell of the grid through the bars, fit on train, stop on select, quote on report."""
    seed = load_params("seed", int)
    runtime = load_params("runtime", RuntimeParams)
    exchange = load_params("market", market.MarketParams)
    params = load_params("mrms", MRMSParams)
    stage.make_deterministic(runtime, seed)

    manifest = artefacts.read_json(MANIFEST)
    data, contract = prepared.reading(manifest), prepared.contract(manifest)
    main_table = prepared.learning_rows(pd.read_parquet(MAIN, columns=list(prepared.MARKET_COLUMNS)))
    venue = market.Venue.of(main_table, contract, exchange)
    events = pd.read_parquet(EVENTS)
    vectors = pd.read_parquet(VECTORS)

    def of_split(code: int) -> Lessons:
        chosen = events[events["split"] == code].reset_index(drop=True)
        return Lessons.new(chosen, prepared.regime_vectors_at(chosen, vectors), venue, params)

    train, select, report = (of_split(code) for code in (TRAIN, SELECT, REPORT))
    lessons = with_past_accounts(train, venue, params, seed)

    with training_state("mrms") as state:
        model, run = fit(
            "mrms", lessons, select, exchange.limits.max_units, params, runtime.device, state, state.resumed
        )
        parts = folds(train.events, params.folds, data.embargo_m30_bars, data.embargo_m5_bars)
        out_of_fold = walk_forward(
            train, lessons, parts, run.best_epoch + 1, exchange.limits.max_units, params, contract.tick, seed,
            runtime.device,
        )  # fmt: skip
        final, judged = (propose(model, part.states, part.events, contract.tick) for part in (train, report))
        found = figures(model.cpu(), judged, report, train.net_r, venue, params, seed)
        counts = {"train_candidates": len(train.events), "best_epoch": run.best_epoch, "epochs": len(run.history)}
        artefacts.write_tensors(MODEL, nets.arrays(model), model.config)
        artefacts.write_parquet(PROPOSALS, out_of_fold.table(train.events["row"].to_numpy()))
        artefacts.write_json(METRICS, rounded(counts | found | shift(out_of_fold, final, params)))
        write_curves(CURVES, run.history)


if __name__ == "__main__":
    stage.run(main)
