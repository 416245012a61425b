"""A configuration of the agents as a sweep tries it: seed after seed, so that it can be given up early."""

from collections.abc import Iterator

import numpy as np

from algospace import performance, training
from algospace.marl import engine, figures
from algospace.marl.engine import Run
from algospace.marl.exams import Inputs
from algospace.marl.params import MARLParams
from algospace.params import RuntimeParams


def attempts(inputs: Inputs, params: MARLParams, runtime: RuntimeParams, seed: int) -> Iterator[training.Attempt]:
    """Train each of ``params.seeds``; after each, what the seeds so far come to.

    The score is the mean over seeds of the net R a candidate on ``select``. The Sharpe ratio is quoted on ``report``,
    of the seed that the stage would export (the best on ``select``); it is for the record, the score alone chooses.
    """
    lessons, exam, days, settings = inputs
    engine.require_candidates(exam)
    runs: list[Run] = []
    for k in params.seeds:
        runs.append(
            engine.run(
                lessons, exam["select"], exam, params, settings, runtime, seed + k, training.unsaved, f"seed_{k}"
            )
        )
        quoted = figures.sharpe(runs[engine.choose(runs)].judged["report"], exam["report"], days["report"], settings)
        yield training.Attempt(
            float(np.mean([run.judged["select"].net_r.mean() for run in runs])),
            {} if len(runs) == len(params.seeds) else {"seeds": list(params.seeds[: len(runs)])},
            performance.rounded({"sharpe": quoted})["sharpe"],
            figures.daily(runs, params, exam["report"], days["report"], settings),
        )
