"""The command line ``algospace``: heavy imports wait until a command needs them."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from algospace import __version__
from algospace.errors import BundleError, InputError

OK, DRIFTED, BAD_INPUT, BAD_BUNDLE = 0, 1, 2, 3
NOT_READY = DRIFTED


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input is one line on stderr and exit code 2, a refused bundle 3."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or OK
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_BUNDLE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        print(f"error: {error.filename}: expected to read or write there, found: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="algospace", description="Features of bars, decisions of a bundle, params.")
    parser.add_argument("--version", action="version", version=f"algospace {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    params = commands.add_parser("params", help="validate every section of params.yaml")
    params.set_defaults(run=_params)

    metrics = commands.add_parser("metrics", help="the metrics of the last run, a line each")
    metrics.set_defaults(run=_metrics)

    profile = commands.add_parser(
        "profile", help="write a profile's values into params.yaml (default, full, prd, legacy200)"
    )
    profile.add_argument("name", metavar="NAME")
    profile.set_defaults(run=_profile)

    download = commands.add_parser("download", help="5-minute bars of Yahoo's last 60 days, added to a CSV file")
    download.add_argument("--symbol", default="SPY", help="as Yahoo writes it (default: SPY)")
    download.add_argument("--days", type=int, default=59, help="how far back (default and most: 59)")
    download.add_argument(
        "--out", metavar="FILE.csv", type=Path, help="default: data/raw/SYMBOL_5min.csv; it grows with each download"
    )
    download.set_defaults(run=_download)

    features = commands.add_parser("features", help="the feature table of a bar file, as prepare computes it")
    features.add_argument("bars", metavar="BARS", type=Path, help="CSV (plain or gzip) or Parquet; 5 or 30 minutes")
    features.add_argument("--out", metavar="FILE.parquet", type=Path, required=True)
    features.add_argument(
        "--params", metavar="P", type=Path, default=Path("params.yaml"), help="how to read it: its data.* keys"
    )
    features.add_argument(
        "--fitted", metavar="DIR", type=Path, default=Path("data/prepared"), help="where prepare left what it fitted"
    )
    features.set_defaults(run=_features)

    verify = commands.add_parser("verify", help="check every hash of a bundle (exit 3 when refused)")
    verify.add_argument("bundle", metavar="BUNDLE", type=Path)
    verify.set_defaults(run=_verify)

    decide = commands.add_parser("decide", help="one JSON line per Gate-1 event: the decision, or the refusal and why")
    decide.add_argument("bundle", metavar="BUNDLE", type=Path)
    decide.add_argument(
        "bars", metavar="BARS", type=Path, help="CSV (plain or gzip) or Parquet, read as the bundle's own"
    )
    decide.add_argument("--from", dest="start", metavar="T", help="hide decisions before this ISO time (UTC)")
    decide.set_defaults(run=_decide)

    report = commands.add_parser(
        "report", help="what a bundle earns on bars, beside baselines and chance: an HTML page"
    )
    report.add_argument("bundle", metavar="BUNDLE", type=Path)
    report.add_argument("bars", metavar="BARS", type=Path, help="CSV (plain or gzip) or Parquet")
    report.add_argument("--against", metavar="BUNDLE2", type=Path, help="another bundle, on the same bars and costs")
    report.add_argument(
        "--out", metavar="DIR", type=Path, required=True,
        help="report.html, evaluation.json; trades, decisions and equity as Parquet and CSV",
    )  # fmt: skip
    report.set_defaults(run=_report)

    monitor = commands.add_parser(
        "monitor",
        help="do the inputs, the confidence and the refusals still look like train? (exit 1 when they drifted)",
    )
    monitor.add_argument("bundle", metavar="BUNDLE", type=Path)
    monitor.add_argument("bars", metavar="BARS", type=Path, help="CSV (plain or gzip) or Parquet")
    monitor.set_defaults(run=_monitor)
    for command in (report, monitor):
        command.add_argument(
            "--params", metavar="P", type=Path, help="how to read BARS: its data.* keys (default: as the bundle's own)"
        )
        command.add_argument("--from", dest="start", metavar="T", help="bars before this ISO time (UTC) only warm up")

    trials = commands.add_parser("trials", help="list the configurations tried, after adding those that DVC knows of")
    trials.add_argument("--all-commits", action="store_true", help="look at every commit and its experiments")
    trials.add_argument("--list", action="store_true", help="list only, add nothing")
    trials.set_defaults(run=_trials)

    readiness = commands.add_parser("readiness", help="is everything there that a run needs? (exit 1 with the remedy)")
    readiness.add_argument("--json", action="store_true", help="for machines")
    readiness.set_defaults(run=_readiness)

    sweep = commands.add_parser("sweep", help="search a stage's params with Optuna, judged on validation alone")
    sweep.add_argument("--trials", metavar="N", type=int, required=True, help="configurations in all, resumed ones too")
    sweep.add_argument("--stage", default="marl", help="rde, mrms or marl (default)")
    sweep.add_argument("--storage", metavar="URL", help="a database for several machines, or a journal file")
    sweep.add_argument(
        "--space", metavar="FILE", type=Path, default=Path("sweep.yaml"), help="what is varied (default: sweep.yaml)"
    )
    sweep.set_defaults(run=_sweep)
    return parser


def _params(arguments: argparse.Namespace) -> None:
    from algospace.pipeline.config import load_params

    for section, owner in _owners().items():
        load_params(section, owner)
    print("params.yaml: every section is valid")


def _owners() -> dict[str, Any]:
    """Each section of ``params.yaml`` and the model of its owner."""
    from algospace.data.params import DataParams
    from algospace.features.params import FeatureParams
    from algospace.indicators.params import IndicatorParams
    from algospace.market import MarketParams
    from algospace.marl.params import MARLParams
    from algospace.mrms.params import MRMSParams
    from algospace.params import RuntimeParams
    from algospace.pipeline.config import SECTIONS
    from algospace.policy.params import ExportParams
    from algospace.rde.params import RDEParams
    from algospace.synergy import Gate1Params

    owners = (
        int, RuntimeParams, DataParams, IndicatorParams, Gate1Params, FeatureParams, MarketParams, RDEParams,
        MRMSParams, MARLParams, ExportParams,
    )  # fmt: skip
    return dict(zip(SECTIONS, owners, strict=True))


def _metrics(arguments: argparse.Namespace) -> None:
    from algospace import artefacts

    def lines(name: str, value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from lines(f"{name}.{key}" if name else key, item)
        else:
            yield f"  {name:<48} {'-' if value is None else value}"

    for stage in ("prepare", "rde", "mrms", "marl", "export"):
        path = Path(f"metrics/{stage}.json")
        if not path.exists():
            continue  # a run that has not come to this stage yet
        found = artefacts.read_json(path)
        print(f"{stage} (test bars: not for selection)" if stage == "export" else stage)
        print("\n".join(lines("", found)))


def _profile(arguments: argparse.Namespace) -> None:
    from algospace.pipeline.profiles import switch_profile

    changes = switch_profile(arguments.name)
    print("\n".join(changes) or f"params.yaml: already at profile {arguments.name}")


def _download(arguments: argparse.Namespace) -> None:
    from algospace.data.download import download, keep

    raw = Path("data/raw")
    out = arguments.out or raw / f"{arguments.symbol}_5min.csv"
    if out.suffix != ".csv":
        raise InputError(f"--out: expected a name that ends in .csv, found {str(out)!r}")
    kept = keep(out, download(arguments.symbol, arguments.days))
    print(f"{out}: {kept.bars} bars, {kept.new} of them new; dates: {kept.days}; {kept.first} to {kept.last}")
    if out.parent == raw:
        print(
            f"dvc add {out}\n"
            f"dvc exp run -S data.source=csv -S 'data.files=[{out.name}]' -S data.symbol={arguments.symbol}\n"
            "if prepare finds too few days for its splits: download again within 60 days, the file grows"
        )


def _features(arguments: argparse.Namespace) -> None:
    from algospace import artefacts
    from algospace.data import contracts, sources
    from algospace.data.params import DataParams
    from algospace.features import outputs
    from algospace.features.fitted import Fitted
    from algospace.indicators.params import IndicatorParams
    from algospace.pipeline.config import load_params
    from algospace.synergy import Gate1Params

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
    reading = _reading(data, arguments.bars).model_copy(update={"min_quality": 0.0})  # said, but no reason to refuse
    contract = contracts.resolve(reading.symbol, reading.contract, reading.calendar)
    loaded = sources.load(reading, contract, arguments.bars.parent, m30=True)
    score = float(loaded.quality["score"])
    if score < data.min_quality:
        print(
            f"{arguments.bars}: quality {score:.1f} is below data.min_quality ({data.min_quality:g})", file=sys.stderr
        )
    rows = outputs.write_features(arguments.out, loaded.bars, loaded.minutes, contract, indicators, gate1, reference)
    print(f"{arguments.out}: {rows} rows, {loaded.minutes}-minute bars, quality {score:.1f}")


def _reading(data: "DataParams", path: Path) -> "DataParams":  # type: ignore[name-defined]  # noqa: F821
    """How a file of the command line is read: as the ``data`` section says, or its ``auto`` entry for such a name."""
    from algospace.data import auto

    kind = "parquet" if path.suffix.lower() == ".parquet" else "csv"
    return auto.reading_of(data, path.name).model_copy(update={"source": kind, "files": [path.name], "m30_files": []})


def _verify(arguments: argparse.Namespace) -> None:
    from algospace import artefacts
    from algospace.policy import bundle

    manifest = bundle.verify(arguments.bundle)
    bundle_id = artefacts.sha256(arguments.bundle / bundle.MANIFEST)
    kind = manifest["provenance"].get("data", {}).get("source", {}).get("kind", "unknown")
    print(f"{arguments.bundle}: whole, {len(manifest['files']) + 1} files, trained on {kind} bars, id {bundle_id}")


def _decide(arguments: argparse.Namespace) -> None:
    import pandas as pd
    import torch

    from algospace.data import sources
    from algospace.policy import bundle
    from algospace.policy.decide import decide

    start = _utc(arguments.start)
    policy, _ = bundle.load(arguments.bundle)
    torch.set_num_threads(policy.settings.threads)
    reading = _reading(policy.settings.data, arguments.bars)
    loaded = sources.load(reading, policy.settings.contract, arguments.bars.parent)
    for record in decide(policy, loaded.bars).records:
        if start is None or pd.Timestamp(record["time"]) >= start:
            print(json.dumps(record, sort_keys=True, allow_nan=False))


def _judged_bars(arguments: argparse.Namespace, settings: "Settings") -> "tuple[Settings, Loaded]":  # type: ignore[name-defined]  # noqa: F821
    """Bars of the command line, and the settings with the contract that they are of."""
    from algospace.data import contracts, sources
    from algospace.data.params import DataParams
    from algospace.pipeline.config import load_params

    data, contract = settings.data, settings.contract
    if arguments.params is not None:
        data = load_params("data", DataParams, arguments.params)
    reading = _reading(data, arguments.bars)
    if arguments.params is not None:
        contract = contracts.resolve(reading.symbol, reading.contract, reading.calendar)
    return settings._replace(contract=contract), sources.load(reading, contract, arguments.bars.parent)


def _report(arguments: argparse.Namespace) -> None:
    import torch

    from algospace import artefacts, report, trials
    from algospace.policy import bundle, evaluation, outputs, page
    from algospace.policy.params import ExportParams

    if arguments.out.exists() and not arguments.out.is_dir():
        raise InputError(f"--out: expected a directory, found the file {arguments.out}")
    start = _utc(arguments.start)
    policy, manifest = bundle.load(arguments.bundle)
    judging = ExportParams.model_validate(bundle.provenance(manifest, "export"))
    other = bundle.load(arguments.against)[0] if arguments.against else None
    ids = [artefacts.sha256(path / bundle.MANIFEST) if path else "" for path in (arguments.bundle, arguments.against)]
    torch.set_num_threads(policy.settings.threads)
    settings, loaded = _judged_bars(arguments, policy.settings)
    tried = trials.judged(trials.read())
    found = evaluation.evaluate(policy._replace(settings=settings), loaded.bars, judging, tried, start, other)
    uses = "Choose nothing by bars that you also judge by. Configurations tried: those of metrics/trials.jsonl here."
    shown = page.report_data(found, page.source(loaded.source), ids[0], tried, uses, other_id=ids[1])
    outputs.write(arguments.out, found)
    artefacts.write_bytes(arguments.out / "report.html", report.render(shown).encode())
    print(f"{report.words(shown)}\n{arguments.out / 'report.html'}")


def _monitor(arguments: argparse.Namespace) -> int:
    import torch

    from algospace.policy import bundle, monitor

    start = _utc(arguments.start)
    policy, manifest = bundle.load(arguments.bundle)
    train = bundle.provenance(manifest, "train")
    torch.set_num_threads(policy.settings.threads)
    settings, loaded = _judged_bars(arguments, policy.settings)
    findings = monitor.compare(train, monitor.see(policy._replace(settings=settings), loaded.bars, start))
    print(f"{'':<12}{'':<44}{'PSI':>8}{'bound':>8}{'values':>10}")
    for kind, name, (psi, bound, values) in findings:
        print(f"{kind:<12}{name:<44}{psi:8.3f}{bound:8.3f}{values:10,}{'  drifted' if psi > bound else ''}")
    drifted = sum(finding.drift.drifted for finding in findings)
    print(f"{drifted} of {len(findings)} drifted: {'these bars are not like train' if drifted else 'like train'}")
    return DRIFTED if drifted else OK


def _trials(arguments: argparse.Namespace) -> None:
    from algospace import trials
    from algospace.pipeline import experiments

    added = left_out = 0
    if not arguments.list:
        found = experiments.collect(Path(), arguments.all_commits)
        added, left_out = len(experiments.record(found.trials)), found.left_out
    known = trials.read()
    print(f"{'config':<14}{'name':<18}{'Sharpe':>8}  changes")
    for trial in known:
        changes = " ".join(f"{key}={json.dumps(value)}" for key, value in trial.changes.items())
        print(f"{trial.config:<14}{trial.name[:16]:<18}{trial.sharpe:8.2f}  {changes or '-'}")
    print(f"{len(known)} configurations in {trials.PATH}, {added} of them new; {left_out} runs left out: not judged")


def _readiness(arguments: argparse.Namespace) -> int:
    from algospace.pipeline import readiness

    found = readiness.inspect(_owners())
    if arguments.json:
        print(json.dumps(readiness.as_json(found), indent=2, sort_keys=True, allow_nan=False))
    else:
        print("\n".join(readiness.lines(found, sys.stdout.isatty() and "NO_COLOR" not in os.environ)))
    return OK if found.ready else NOT_READY


def _sweep(arguments: argparse.Namespace) -> None:
    try:
        from algospace.pipeline import space, sweep
    except ModuleNotFoundError as error:
        if error.name not in {"optuna", "sqlalchemy"}:
            raise
        raise InputError("sweep: expected Optuna, found none; pip install -c requirements.lock -e '.[sweep]'") from None
    from algospace.pipeline.config import load_params

    if arguments.trials < 1:
        raise InputError(f"--trials: expected at least 1, found {arguments.trials}")
    if arguments.stage not in sweep.SWEPT:
        raise InputError(f"--stage: expected one of {', '.join(sweep.SWEPT)}, found {arguments.stage}")
    owners = _owners()
    for section, owner in owners.items():
        load_params(section, owner)
    model = owners[arguments.stage]
    varied = space.load_space(arguments.stage, model, arguments.space)
    attempts = sweep.attempts_of(arguments.stage, model)
    name = sweep.study_name(arguments.stage, varied)
    study = sweep.search(name, varied, attempts, arguments.trials, arguments.storage, load_params("seed", int))
    print(f"{sweep.summary(study)}\n{sweep.command(study)}")


def _utc(text: str | None) -> "pd.Timestamp | None":  # type: ignore[name-defined]  # noqa: F821
    import pandas as pd

    if text is None:
        return None
    try:
        stamp = pd.Timestamp(datetime.fromisoformat(text))
    except ValueError:
        raise InputError(f"--from: expected an ISO time, found {text!r}") from None
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")


if __name__ == "__main__":
    sys.exit(main())
