"""Stage 3 of 5: candidates and their realised paths -> position, stop and target agents -> a proposal for any event."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from algospace import artefacts, market, nets, plotting, training
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared
from algospace.features.table import EVENT
from algospace.mrms import engine, pictures
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import states
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
    params = within_limits(load_params("mrms", MRMSParams))
    stage.make_deterministic(runtime, seed)

    manifest = artefacts.read_json(MANIFEST)
    main_table, vectors, venue, splits = read(params)
    rows = prepared.decision_rows(main_table, TRAIN, "bars")  # whatever the agents will train on
    bars = main_table.iloc[rows]
    bars = bars.assign(row=rows, candidate_direction=prepared.directions(bars))
    seen = states(bars, prepared.regime_vectors_at(bars, vectors))

    with training_state("mrms") as state:
        trained = engine.train(splits, venue, prepared.reading(manifest), params, runtime, seed, state.part)
        proposals = engine.unseen_proposals(trained, splits["train"], seen, bars, venue.costs.tick)

        artefacts.write_tensors(MODEL, nets.arrays(trained.model), trained.model.config)
        artefacts.write_tensors(COMMUNICATION, nets.arrays(trained.layer), trained.layer.config)
        artefacts.write_parquet(PROPOSALS, proposals.table(rows))
        artefacts.write_json(METRICS, rounded(engine.examine(trained, splits, venue, params, seed)))
        write_curves(CURVES, trained.fit.history)
        pictures.write_all(PICTURES, trained, splits["train"], params, plotting.watermark(manifest["source"]))


def within_limits(params: MRMSParams) -> MRMSParams:
    """These params without the targets that the account's limits refuse."""
    return params.within(load_params("market", market.MarketParams).limits)


class Inputs(NamedTuple):
    """What the ensemble is fitted to and judged on."""

    main_table: pd.DataFrame  # the rows before the test split
    vectors: pd.DataFrame
    venue: market.Venue
    splits: dict[str, Lessons]  # train, select and report


def read(params: MRMSParams) -> Inputs:
    """Read the candidates, and run every cell of the grid through the bars."""
    contract = prepared.contract(artefacts.read_json(MANIFEST))
    columns = {*prepared.MARKET_COLUMNS, *EVENT, "is_decidable"}
    main_table = prepared.learning_rows(artefacts.read_parquet(MAIN, columns=sorted(columns)))
    venue = market.Venue.of(main_table, contract, load_params("market", market.MarketParams))
    events, vectors = artefacts.read_parquet(EVENTS), artefacts.read_parquet(VECTORS)

    def of_split(code: int) -> Lessons:
        chosen = events[events["split"] == code].reset_index(drop=True)
        return Lessons.new(chosen, prepared.regime_vectors_at(chosen, vectors), venue, params)

    splits = {"train": of_split(TRAIN), "select": of_split(SELECT), "report": of_split(REPORT)}
    return Inputs(main_table, vectors, venue, splits)


def attempts(params: MRMSParams) -> Iterator[training.Attempt]:
    """Fit with params of a sweep; nothing is written."""
    seed, runtime = load_params("seed", int), load_params("runtime", RuntimeParams)
    stage.make_deterministic(runtime, seed)
    params = within_limits(params)
    inputs = read(params)
    yield from engine.attempts(inputs.splits, inputs.venue, params, runtime, seed)


if __name__ == "__main__":
    stage.run(main)
