"""Commands that judge a bundle on bars: what it earns there, and whether they are still like train."""

import argparse
import sys
from typing import Any

import pandas as pd
import torch

from algospace import artefacts, report, trials
from algospace.commands.reading import moment, reading_of, require_bars, require_from
from algospace.data import contracts, sources
from algospace.data.params import DataParams
from algospace.data.sources import Loaded
from algospace.errors import InputError
from algospace.features import prepared
from algospace.pipeline.config import load_params
from algospace.policy import bundle, evaluation, monitor, outputs, page
from algospace.policy.params import ExportParams
from algospace.settings import Settings

OK, DRIFTED = 0, 1


def write_report(arguments: argparse.Namespace) -> None:
    """``algospace report``."""
    if arguments.out.exists() and not arguments.out.is_dir():
        raise InputError(f"--out: expected a directory, found the file {arguments.out}")
    require_bars(arguments.bars)
    start = moment(arguments.start)
    policy, manifest = bundle.load(arguments.bundle)
    stated = bundle.provenance(manifest, "export")
    with bundle.unfit(f"{bundle.MANIFEST}: provenance.export"):
        judging = ExportParams.model_validate(stated)
    examined = prepared.examined(bundle.provenance(manifest, "training", "marl", "train_on"))
    other = bundle.load(arguments.against)[0] if arguments.against else None
    ids = [artefacts.sha256(path / bundle.MANIFEST) if path else "" for path in (arguments.bundle, arguments.against)]
    torch.set_num_threads(policy.settings.threads)
    settings, loaded = _judged_bars(arguments, policy.settings, start)
    tried = trials.judged(trials.read())
    judged = policy._replace(settings=settings)
    found = evaluation.evaluate(judged, loaded.bars, judging, tried, start, other, examined)
    uses = "Choose nothing by bars that you also judge by. Configurations tried: those of metrics/trials.jsonl here."
    known = _already_known(manifest, loaded.bars, start)
    source = page.source(loaded.source) | {"the bundle was trained on": f"{bundle.source_kind(manifest)} bars"}
    shown = page.report_data(found, source, ids[0], tried, f"{known} {uses}".lstrip(), other_id=ids[1])
    outputs.write(arguments.out, found)
    artefacts.write_bytes(arguments.out / "report.html", report.render(shown).encode())
    if known:
        print(known, file=sys.stderr)
    print(f"{report.words(shown)}\n{arguments.out / 'report.html'}")


def print_drift(arguments: argparse.Namespace) -> int:
    """``algospace monitor``."""
    require_bars(arguments.bars)
    start = moment(arguments.start)
    policy, manifest = bundle.load(arguments.bundle)
    train = bundle.provenance(manifest, "train")
    torch.set_num_threads(policy.settings.threads)
    settings, loaded = _judged_bars(arguments, policy.settings, start)
    seen = monitor.see(policy._replace(settings=settings), loaded.bars, start)
    with bundle.unfit(f"{bundle.MANIFEST}: provenance.train"):
        findings = monitor.compare(train, seen)
    drifted = sum(finding.drift.drifted for finding in findings)
    judged = sum(finding.drift.judged for finding in findings)
    if not judged:
        raise InputError(f"{arguments.bars}: expected bars enough to judge by, found too few values of every variable")
    known = _already_known(manifest, loaded.bars, start)
    print(f"{'':<12}{'':<44}{'PSI':>8}{'bound':>8}{'values':>10}")
    for kind, name, found in findings:
        word = "  drifted" if found.drifted else "" if found.judged else "  not judged"
        print(f"{kind:<12}{name:<44}{found.psi:8.3f}{found.bound:8.3f}{found.values:10,}{word}")
    if known:
        print(known, file=sys.stderr)
    left = f"{len(findings) - judged} not judged, of too few values; " if judged < len(findings) else ""
    print(f"{left}{drifted} of {judged} drifted: {'these bars are not like train' if drifted else 'like train'}")
    return DRIFTED if drifted else OK


def _already_known(manifest: dict[str, Any], bars: pd.DataFrame, start: pd.Timestamp | None) -> str:
    """A warning where judged bars are of the time that the bundle was trained and chosen on, empty where none is.

    Days are compared, not bars: what was learnt from one contract is known on another's same days too. Synthetic bars
    have no time in common with others, and of what a bundle does not tell nothing is said.
    """
    if bundle.source_kind(manifest) in ("synthetic", "unknown"):
        return ""
    splits = bundle.provenance(manifest, "data", "splits")
    with bundle.unfit(f"{bundle.MANIFEST}: provenance.data.splits"):
        first, last, _ = (int(splits[name].replace("-", "")) for name in ("train_first", "report_last", "test_first"))
    judged = bars if start is None else bars[bars["close_utc"] >= start]
    days = judged["session_id"].unique()
    known = int(((first <= days) & (days <= last)).sum())
    if not known:
        return ""
    return (
        f"{known} of these {len(days)} sessions are of the time that the bundle was trained and chosen on "
        f"({splits['train_first']} to {splits['report_last']}), where nothing is evidence; "
        f"--from {splits['test_first']} leaves them out."
    )


def _judged_bars(
    arguments: argparse.Namespace, settings: Settings, start: pd.Timestamp | None
) -> tuple[Settings, Loaded]:
    """Bars of the command line, and the settings with the contract that they are of."""
    data, contract = settings.data, settings.contract
    if arguments.params is not None:
        data = load_params("data", DataParams, arguments.params)
    reading = reading_of(data, arguments.bars)
    if arguments.params is not None:
        contract = contracts.resolve(reading.symbol, reading.contract, reading.calendar)
    loaded = sources.load(reading, contract, arguments.bars.parent)
    require_from(arguments.bars, loaded.bars, start)
    return settings._replace(contract=contract), loaded
