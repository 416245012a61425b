"""The command line ``algospace``: a command's module is imported when the command is called."""

import argparse
import importlib
import io
import os
import sys
from pathlib import Path

from algospace import __version__
from algospace.errors import BundleError, InputError

OK, BAD_INPUT, BAD_BUNDLE, INTERRUPTED = 0, 2, 3, 130
# Extra of a package, and who needs it.
PIPELINE = ("pipeline", "training and reports")
EXTRAS = {"optuna": ("sweep", "sweeps"), "sqlalchemy": ("sweep", "sweeps"), "onnxruntime": ("onnx", "ONNX graphs")}


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input is one line on stderr and exit code 2, a refused bundle 3."""
    for stream in (sys.stdout, sys.stderr):  # a locale that lacks a letter must not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    try:
        module, _, command = arguments.run.partition(".")
        code = getattr(importlib.import_module(f"algospace.commands.{module}"), command)(arguments) or OK
        return _written(code)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_BUNDLE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] == "algospace":
            raise
        extra, brought = EXTRAS.get(str(error.name).split(".")[0], PIPELINE)
        print(
            f"error: {error.name}: expected an installed package, found none; "
            f"algospace's extra [{extra}] brings what {brought} need",
            file=sys.stderr,
        )
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        where = error.filename or "the output"
        print(f"error: {where}: expected to read or write there, found: {error.strerror or error}", file=sys.stderr)
        return BAD_INPUT
    return OK


def _written(code: int) -> int:
    """The exit code once all output has left; the interpreter would fail at its end, with a code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="algospace", description="Train, judge and use a trading policy on intraday bars."
    )
    parser.add_argument("--version", action="version", version=f"algospace {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, says: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=says, description=says)

    params = add("params", "validate every section of params.yaml")
    params.set_defaults(run="project.check_params")

    metrics = add("metrics", "the metrics of the last run, a line each")
    metrics.set_defaults(run="record.print_metrics")

    profile = add(
        "profile", "write a profile's values into params.yaml (default, full, prd, legacy200, bench, prop_firm)"
    )
    profile.add_argument("name", metavar="NAME")
    profile.set_defaults(run="project.set_profile")

    download = add("download", "5-minute bars of Yahoo's last 60 days, added to a CSV file")
    download.add_argument("--symbol", default="SPY", help="as Yahoo writes it (default: SPY)")
    download.add_argument("--days", type=int, default=59, help="how far back (default and most: 59)")
    download.add_argument(
        "--out", metavar="FILE.csv", type=Path, help="default: data/raw/SYMBOL_5min.csv; it grows with each download"
    )
    download.set_defaults(run="bars.download_bars")

    features = add("features", "the feature table of a bar file, as prepare computes it")
    features.add_argument("bars", metavar="BARS", type=Path, help="CSV (plain or gzip) or Parquet; 5 or 30 minutes")
    features.add_argument("--out", metavar="FILE.parquet", type=Path, required=True)
    features.add_argument(
        "--params", metavar="P", type=Path, default=Path("params.yaml"), help="how to read it: its data.* keys"
    )
    features.add_argument(
        "--fitted", metavar="DIR", type=Path, default=Path("data/prepared"), help="where prepare left what it fitted"
    )
    features.set_defaults(run="bars.write_features")

    verify = add("verify", "check every hash of a bundle and make its golden decisions again (exit 3 when refused)")
    verify.add_argument("bundle", metavar="BUNDLE", type=Path)
    verify.set_defaults(run="decisions.verify")

    decide = add("decide", "one JSON line per Gate-1 event: the decision, or the refusal and why")
    decide.add_argument("bundle", metavar="BUNDLE", type=Path)
    decide.add_argument(
        "bars", metavar="BARS", type=Path, help="CSV (plain or gzip) or Parquet, read as the bundle's own"
    )
    decide.add_argument("--from", dest="start", metavar="T", help="hide decisions before this ISO time (UTC)")
    decide.add_argument(
        "--account",
        metavar="FILE",
        type=Path,
        help="JSON of the account to begin with (docs/bundle.md), else a fresh one",
    )
    decide.add_argument("--onnx", action="store_true", help="run the 50 passes of the consensus by ONNX Runtime")
    decide.set_defaults(run="decisions.print_decisions")

    report = add("report", "what a bundle earns on bars, beside baselines and chance: an HTML page")
    report.add_argument("bundle", metavar="BUNDLE", type=Path)
    report.add_argument("bars", metavar="BARS", type=Path, help="CSV (plain or gzip) or Parquet")
    report.add_argument("--against", metavar="BUNDLE2", type=Path, help="another bundle, on the same bars and costs")
    report.add_argument(
        "--out", metavar="DIR", type=Path, required=True,
        help="report.html, evaluation.json; trades, decisions and equity as Parquet and CSV",
    )  # fmt: skip
    report.set_defaults(run="judging.write_report")

    monitor = add(
        "monitor",
        "do the inputs, the confidence and the refusals still look like train? (exit 1 when they drifted)",
    )
    monitor.add_argument("bundle", metavar="BUNDLE", type=Path)
    monitor.add_argument("bars", metavar="BARS", type=Path, help="CSV (plain or gzip) or Parquet")
    monitor.set_defaults(run="judging.print_drift")
    for command in (report, monitor):
        command.add_argument(
            "--params", metavar="P", type=Path, help="how to read BARS: its data.* keys (default: as the bundle's own)"
        )
        command.add_argument("--from", dest="start", metavar="T", help="bars before this ISO time (UTC) only warm up")

    trials = add("trials", "list the configurations tried, after adding those that DVC knows of")
    trials.add_argument("--all-commits", action="store_true", help="look at every commit and its experiments")
    trials.add_argument("--list", action="store_true", help="list only, add nothing")
    trials.set_defaults(run="record.print_trials")

    readiness = add("readiness", "is everything there that a run needs? (exit 1 with the remedy)")
    readiness.add_argument("--json", action="store_true", help="for machines")
    readiness.set_defaults(run="readiness.print_readiness")

    sweep = add("sweep", "search a stage's params with Optuna, judged on validation alone")
    sweep.add_argument("--trials", metavar="N", type=int, required=True, help="configurations in all, resumed ones too")
    sweep.add_argument("--stage", default="marl", help="rde, mrms or marl (default)")
    sweep.add_argument("--storage", metavar="URL", help="a database for several machines, or a journal file")
    sweep.add_argument(
        "--space", metavar="FILE", type=Path, default=Path("sweep.yaml"), help="what is varied (default: sweep.yaml)"
    )
    sweep.set_defaults(run="search.sweep_stage")
    return parser


if __name__ == "__main__":
    sys.exit(main())
