"""The command line ``algospace``: heavy imports wait until a command needs them."""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from algospace import __version__
from algospace.errors import BundleError, InputError

OK, BAD_INPUT, BAD_BUNDLE = 0, 2, 3


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input is one line on stderr and exit code 2, a refused bundle 3."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_BUNDLE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        sys.stderr.close()
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="algospace", description="Verify a bundle, decide with it, check the params.")
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
    return parser


def _params(arguments: argparse.Namespace) -> None:
    from algospace.consensus import MARLParams
    from algospace.data.params import DataParams
    from algospace.features.params import FeatureParams
    from algospace.indicators.params import IndicatorParams
    from algospace.market import MarketParams
    from algospace.mrms import MRMSParams
    from algospace.pipeline.config import SECTIONS, RuntimeParams, load_params
    from algospace.policy.evaluation import ExportParams
    from algospace.rde import RDEParams
    from algospace.synergy import Gate1Params

    owners = (
        int, RuntimeParams, DataParams, IndicatorParams, Gate1Params, FeatureParams, MarketParams, RDEParams,
        MRMSParams, MARLParams, ExportParams,
    )  # fmt: skip
    for section, owner in zip(SECTIONS, owners, strict=True):
        load_params(section, owner)
    print("params.yaml: every section is valid")


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
    path = arguments.bars
    kind = "parquet" if path.suffix == ".parquet" else "csv"
    reading = policy.settings.data.model_copy(update={"source": kind, "files": [path.name]})
    loaded = sources.load(reading, policy.settings.contract, path.parent)
    for record in decide(policy, loaded.bars).records:
        if start is None or pd.Timestamp(record["time"]) >= start:
            print(json.dumps(record, sort_keys=True, allow_nan=False))


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
