"""The command that searches params."""

import argparse

from algospace.errors import InputError
from algospace.pipeline import space, status, sweep
from algospace.pipeline.config import load_params
from algospace.pipeline.owners import OWNERS, require_valid


def sweep_stage(arguments: argparse.Namespace) -> None:
    """``algospace sweep``."""
    if arguments.trials < 1:
        raise InputError(f"--trials: expected at least 1, found {arguments.trials}")
    if arguments.stage not in status.TRAINING:
        raise InputError(f"--stage: expected one of {', '.join(status.TRAINING)}, found {arguments.stage}")
    require_valid()
    model = OWNERS[arguments.stage]
    varied = space.load_space(arguments.stage, model, arguments.space)
    attempts = sweep.attempts_of(arguments.stage, model)
    name = sweep.study_name(arguments.stage, varied)
    study = sweep.search(name, varied, attempts, arguments.trials, arguments.storage, load_params("seed", int))
    print(f"{sweep.summary(study)}\n{sweep.command(study)}")
