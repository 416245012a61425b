"""Commands on a bundle as it is: whether it is whole, and what it decides."""

import argparse
import json
from importlib.util import find_spec

import pandas as pd
import torch

from algospace import artefacts
from algospace.commands.reading import moment, reading_of, require_bars, require_from
from algospace.data import sources
from algospace.policy import account, bundle, golden, graphs
from algospace.policy.decide import decide


def verify(arguments: argparse.Namespace) -> None:
    """``algospace verify``."""
    policy, manifest = bundle.load(arguments.bundle)
    torch.set_num_threads(policy.settings.threads)
    bundle_id = artefacts.sha256(arguments.bundle / bundle.MANIFEST)
    told = "no golden decisions"
    if set(golden.GOLDEN) <= set(manifest["files"]):
        told = f"{golden.check(policy, arguments.bundle)} golden decisions made again"
        if find_spec("onnxruntime") and graphs.CONSENSUS in manifest["files"]:
            golden.check(bundle.load(arguments.bundle, "onnx")[0], arguments.bundle)
            told += ", by PyTorch and by ONNX Runtime"
    print(
        f"{arguments.bundle}: whole, {len(manifest['files']) + 1} files, "
        f"trained on {bundle.source_kind(manifest)} bars, {told}, id {bundle_id}"
    )


def print_decisions(arguments: argparse.Namespace) -> None:
    """``algospace decide``."""
    require_bars(arguments.bars)
    start = moment(arguments.start)
    begins = None if arguments.account is None else account.read(arguments.account)
    policy, _ = bundle.load(arguments.bundle, "onnx" if arguments.onnx else "pytorch")
    torch.set_num_threads(policy.settings.threads)
    reading = reading_of(policy.settings.data, arguments.bars)
    loaded = sources.load(reading, policy.settings.contract, arguments.bars.parent)
    require_from(arguments.bars, loaded.bars, start)
    for record in decide(policy, loaded.bars, account=begins).records:
        if start is None or pd.Timestamp(record["time"]) >= start:
            print(json.dumps(record, sort_keys=True, allow_nan=False))
