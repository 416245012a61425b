"""Stage 1 of 5: raw bars -> checked bars, causal features, chronological splits."""

from pathlib import Path
from typing import Any

from algospace import artefacts, planted, synthetic
from algospace.data import contracts, quality, sources, splits
from algospace.data.bars import M5_MINUTES
from algospace.data.contracts import Contract
from algospace.data.params import DataParams
from algospace.data.sources import Loaded
from algospace.features import census, fitted, health, outputs, prepared, table, windows
from algospace.features.params import FeatureParams
from algospace.indicators.params import IndicatorParams
from algospace.pipeline import stage
from algospace.pipeline.config import load_params
from algospace.pipeline.profiles import load_profile
from algospace.synergy import Gate1Params

RAW = Path("data/raw")
MAIN = Path("data/prepared/main_training_data.parquet")
RDE = Path("data/prepared/rde_training_data.h5")
MRMS = Path("data/prepared/mrms_training_data.parquet")
FITTED = Path("data/prepared/fitted.safetensors")
MANIFEST = Path("data/prepared/manifest.json")
METRICS = Path("metrics/prepare.json")


def main() -> None:
    """Read, check, compute, split, write."""
    seed = load_params("seed", int)
    data, tried = sources.resolve(load_params("data", DataParams), RAW)
    sources.confine(data, RAW)
    indicators = load_params("indicators", IndicatorParams)
    gate1 = load_params("gate1", Gate1Params)
    features = load_params("features", FeatureParams)

    contract = contracts.resolve(data.symbol, data.contract, data.calendar)
    for market in tried:
        print(f"not {market['symbol']}: {market['reason']}")
    print(f"bars: {data.symbol}, {data.source} {', '.join(data.files)}".rstrip())
    census_params = {
        name: (load_profile(name, "indicators", IndicatorParams), load_profile(name, "gate1", Gate1Params))
        for name in ("default", "prd")
    }
    with stage.quality_log():
        loaded = read(data, contract, seed, indicators, gate1)
    bars = loaded.bars
    if loaded.quality["session_jumps"]:
        print(f"{loaded.quality['session_jumps']} opens lie over 10 % from the last close: rolls? (data.rolls)")
    if not bars["volume"].any():
        print("no bar has a volume: whatever rests on it is absent or constant (data.columns)")

    source = loaded.source | ({"tried": tried} if tried else {})

    codes = splits.split(bars, data)
    scales = fitted.fit(bars, codes == splits.TRAIN, indicators, seed)
    stream = table.FeatureStream(contract, indicators, gate1, scales.reference)
    regime, candidates = outputs.write_main(MAIN, bars, codes, stream, scales, features, gate1.min_train_events)
    condition = health.inspect(MAIN, regime, scales)
    learning = prepared.learning_rows(bars.assign(split=codes))
    rates = {name: census.census(learning, *params) for name, params in census_params.items()}

    names = windows.REGIME[indicators.mmd.kind]
    prepared.write_regime_rows(RDE, regime, {"window": features.window_regime, "stride": 1, "features": names})
    artefacts.write_parquet(MRMS, candidates)
    artefacts.write_tensors(FITTED, scales.tensors(), {})
    files, dates = [MAIN, RDE, MRMS, FITTED], splits.boundaries(bars, codes)
    artefacts.write_json(
        MANIFEST, outputs.manifest(files, source, data, contract, dates, names, loaded.quality, condition)
    )
    main_table = artefacts.read_parquet(MAIN, columns=list(outputs.COUNTED))
    figures = outputs.figures(main_table, loaded.quality, source, rates, health.summary(condition))
    artefacts.write_json(METRICS, figures)
    print(outputs.told(figures, dates))


def read(data: DataParams, contract: Contract, seed: int, indicators: IndicatorParams, gate1: Gate1Params) -> Loaded:
    """Bars of the source that the params name, never of another."""
    if data.source != "synthetic":
        return sources.load(data, contract, RAW)
    if data.synthetic.market == "planted":
        bars = planted.market(data.synthetic, contract, seed, indicators, gate1).bars
    else:
        bars = synthetic.market(data.synthetic, contract, seed)
    source: dict[str, Any] = {"kind": "synthetic", "market": data.synthetic.market, "files": [], "rows": len(bars)}
    return Loaded(bars, quality.score(bars, contract.calendar, M5_MINUTES), source, (), M5_MINUTES)


if __name__ == "__main__":
    stage.run(main)
