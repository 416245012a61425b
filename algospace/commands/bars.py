"""Commands on bar files: get them, and their feature table."""

import argparse
import sys
from pathlib import Path

from algospace import artefacts
from algospace.commands.reading import reading_of, require_bars
from algospace.data import contracts, sources
from algospace.data.download import download, keep
from algospace.data.params import DataParams
from algospace.errors import InputError
from algospace.features import outputs
from algospace.features.fitted import Fitted
from algospace.indicators.params import IndicatorParams
from algospace.pipeline.config import load_params
from algospace.synergy import Gate1Params


def download_bars(arguments: argparse.Namespace) -> None:
    """``algospace download``."""
    raw = Path("data/raw")
    out = arguments.out or raw / f"{arguments.symbol}_5min.csv"
    if out.suffix != ".csv":
        raise InputError(f"--out: expected a name that ends in .csv, found {str(out)!r}")
    kept = keep(out, download(arguments.symbol, arguments.days))
    print(f"{out}: {kept.bars} bars, {kept.new} of them new; dates: {kept.days}; {kept.first} to {kept.last}")
    if out.parent == raw:
        print(
            f"dvc add {out}\n"
            f"dvc exp run marl -S data.source=csv -S 'data.files=[{out.name}]' -S data.symbol={arguments.symbol}\n"
            "if prepare finds too few days for its splits: download again within 60 days, the file grows"
        )


def write_features(arguments: argparse.Namespace) -> None:
    """``algospace features``."""
    require_bars(arguments.bars)
    data = load_params("data", DataParams, arguments.params)
    indicators = load_params("indicators", IndicatorParams, arguments.params)
    gate1 = load_params("gate1", Gate1Params, arguments.params)
    if arguments.out.suffix != ".parquet":
        raise InputError(f"--out: expected a name that ends in .parquet, found {str(arguments.out)!r}")
    if arguments.out.is_dir():
        raise InputError(f"--out: expected a file, found the directory {arguments.out}")
    if arguments.out.resolve() == arguments.bars.resolve():
        raise InputError(f"--out: expected another file than BARS, found {arguments.out}, which it would overwrite")
    path = arguments.fitted / "fitted.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: expected what prepare fitted on train, found nothing there; run `dvc repro prepare`")
    reference = Fitted.from_tensors(artefacts.read_tensors(path)[0]).reference
    reading = reading_of(data, arguments.bars).model_copy(update={"min_quality": 0.0})  # said, but no reason to refuse
    contract = contracts.resolve(reading.symbol, reading.contract, reading.calendar)
    loaded = sources.load(reading, contract, arguments.bars.parent, m30=True)
    score = float(loaded.quality["score"])
    if score < data.min_quality:
        print(
            f"{arguments.bars}: quality {score:.1f} is below data.min_quality ({data.min_quality:g})", file=sys.stderr
        )
    rows = outputs.write_features(arguments.out, loaded.bars, loaded.minutes, contract, indicators, gate1, reference)
    print(f"{arguments.out}: {rows} rows, {loaded.minutes}-minute bars, quality {score:.1f}")
