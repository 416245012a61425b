"""Training curves for ``dvc plots``, written by DVCLive once training is over."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dvclive.live import Live


def write_curves(directory: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Replay a history (one dict of named scalars a step) into DVCLive's plot files.

    The directory is an output of the stage: DVC deletes it before a run, so a resumed run could not append to it.
    The history therefore travels in the training state and is written at the end: beside the directory, which then
    takes its place, since DVCLive appends to its files line by line.
    """
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    live = Live(str(temporary), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)
    for step, row in enumerate(history):
        live.step = step
        for name, value in row.items():
            live.log_metric(name, value)
    if directory.exists():
        shutil.rmtree(directory)
    os.replace(temporary, directory)
