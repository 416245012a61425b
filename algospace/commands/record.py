"""Commands that show what was run: the last run's metrics, all that was tried."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from algospace import artefacts, trials
from algospace.pipeline import experiments, status


def print_metrics(arguments: argparse.Namespace) -> None:
    """``algospace metrics``."""

    def lines(name: str, value: object) -> Iterator[str]:
        if isinstance(value, dict) and name.endswith(".months"):
            yield f"  {name:<48} of {len(value)}, in the file"
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from lines(f"{name}.{key}" if name else key, item)
        else:
            yield f"  {name:<48} {'-' if value is None else value}"

    for stage in status.STAGES:
        path = Path(f"metrics/{stage}.json")
        if not path.exists():
            print(f"{stage}: no run yet")
            continue
        found = artefacts.read_json(path)
        print(f"{stage} (test bars: not for selection)" if stage == "export" else stage)
        print("\n".join(lines("", found)))


def print_trials(arguments: argparse.Namespace) -> None:
    """``algospace trials``."""
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
