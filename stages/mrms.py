"""Stage 3 of 5: candidates and their realised paths -> position, stop and target agents -> a proposal for any event."""

from pathlib import Path

import pandas as pd

from algospace import artefacts, market, nets, plotting
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared
from algospace.features.table import EVENT
from algospace.mrms import communication, method, pictures
from algospace.mrms.figures import figures
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import propose
from algospace.mrms.state import states
from algospace.mrms.trades import proposed_trades, with_past_accounts
from algospace.mrms.walk_forward import borne_units, folds, out_of_fold, shift, walk_forward
from algospace.params import RuntimeParams
from algospace.performance import rounded
from algospace.pipeline import stage
from algospace.pipeline.config import load_params
from algospace.pipeline.curves import write_curves
from algospace.pipeline.training_state import training_state

MAIN = Path("data/prepared/main_training_data.parquet")
MANIFEST = Path("data/prepared/manifest.json")
EVENTS = Path("data/prepared/mrms_training_data.parquet")
VECTORS = Path("data/regimes/regime_vectors.parquet")
MODEL = Path("models/mrms/mrms.safetensors")
COMMUNICATION = Path("models/mrms/communication.safetensors")
PROPOSALS = Path("data/proposals/train_proposals.parquet")
METRICS = Path("metrics/mrms.json")
CURVES = Path("metrics/curves/mrms")
PICTURES = Path("reports/mrms")


def main() -> None:
    """Run every cell of the grid through the bars, fit on train, stop on select, quote on report."""
    seed = load_params("seed", int)
    runtime = load_params("runtime", RuntimeParams)
    exchange = load_params("market", market.MarketParams)
    params = load_params("mrms", MRMSParams)
    stage.make_deterministic(runtime, seed)

    manifest = artefacts.read_json(MANIFEST)
    data, contract = prepared.reading(manifest), prepared.contract(manifest)
    columns = {*prepared.MARKET_COLUMNS, *EVENT, "is_decidable"}
    main_table = prepared.learning_rows(pd.read_parquet(MAIN, columns=sorted(columns)))
    venue = market.Venue.of(main_table, contract, exchange)
    events = pd.read_parquet(EVENTS)
    vectors = pd.read_parquet(VECTORS)

    def of_split(code: int) -> Lessons:
        chosen = events[events["split"] == code].reset_index(drop=True)
        return Lessons.new(chosen, prepared.regime_vectors_at(chosen, vectors), venue, params)

    rows = prepared.decision_rows(main_table, TRAIN, "bars")  # whatever the agents will train on
    bars = main_table.iloc[rows]
    bars = bars.assign(row=rows, candidate_direction=prepared.directions(bars))
    seen = states(bars, prepared.regime_vectors_at(bars, vectors))

    splits = {"train": of_split(TRAIN), "select": of_split(SELECT), "report": of_split(REPORT)}
    train, select, report = splits.values()
    lessons = with_past_accounts(train, venue, params, seed)

    with training_state("mrms") as state:
        tick = contract.tick
        model, run = method.train("mrms", lessons, select, venue, params, runtime, seed, state.part("ensemble"))
        parts = folds(train.events, params.folds, data.embargo_m30_bars, data.embargo_m5_bars)
        models = walk_forward(lessons, parts, run.best_epoch + 1, venue, params, runtime, seed, state.part)
        unlimited = out_of_fold(models, parts, train, train.states, train.events, tick)
        borne = borne_units(unlimited, train, venue.session, params)
        for taught in (model, *models):
            taught.limit_units(borne)
        unseen = out_of_fold(models, parts, train, train.states, train.events, tick)
        final = {name: propose(model, part.states, part.events, tick) for name, part in splits.items()}
        tracks = {
            name: proposed_trades(venue, part.events, unseen if name == "train" else final[name]).track
            for name, part in splits.items()
        }
        layer, layer_run = communication.fit(
            tracks["train"], tracks["select"], params.communication, runtime, seed, state.part("communication")
        )

        artefacts.write_tensors(MODEL, nets.arrays(model), model.config)
        artefacts.write_tensors(COMMUNICATION, nets.arrays(layer), layer.config)
        artefacts.write_parquet(PROPOSALS, out_of_fold(models, parts, train, seen, bars, tick).table(rows))
        counts = {"train_candidates": len(train.events), "best_epoch": run.best_epoch, "epochs": len(run.history)}
        counts |= {"borne_units": borne}
        found = figures(model, final["report"], report, train.net_r, venue, params, seed)
        found |= {"shift": shift(unseen, final["train"], params)}
        found |= {"next_trade": communication.figures(layer, tracks["report"])}
        artefacts.write_json(METRICS, rounded(counts | found))
        write_curves(CURVES, run.history)
        mark = plotting.watermark(manifest["source"])
        pictures.write_all(PICTURES, run, layer_run, layer, train, final["report"], tracks["report"], params, mark)


if __name__ == "__main__":
    stage.run(main)
