"""The agents' training put together: a run per seed, the choice among them, and walk-forward folds inside train."""

from typing import NamedTuple

import numpy as np
import torch

from algospace import agents, distributed, env, mappo, market, training
from algospace.calibration import Calibration
from algospace.data.splits import embargo_bars
from algospace.errors import InputError
from algospace.features import windows
from algospace.features.table import SIDE
from algospace.forecast import Forecast
from algospace.marl import exams, pretraining
from algospace.marl.exams import Judged, Material
from algospace.marl.params import MARLParams
from algospace.marl.pretraining import Pretrained
from algospace.mrms.proposal import PROPOSAL_CODE
from algospace.params import RuntimeParams
from algospace.settings import Settings

TAIL = 0.15  # share of a fold's past that stops its pre-training


class Run(NamedTuple):
    """One training, from first weights to the last update."""

    team: agents.Team
    pretrained: dict[str, Pretrained]  # of each agent that was pre-trained
    history: training.History
    judged: dict[str, Judged]  # of each exam


class Fold(NamedTuple):
    """A later stretch of train, judged by a team that has learnt from what came before it.

    The regimes and brackets that it learnt by are those of all out-of-fold experts, some of which knew later rows. What
    `prepare` fits (scales, the references of MMD) is of all of train, the judged stretch included.
    """

    given: Material
    judged: Judged


class Study(NamedTuple):
    """What the stage leaves."""

    runs: list[Run]  # of each of ``params.seeds``
    exported: int  # which of them
    calibration: Calibration  # of its confidence
    initial: dict[str, Judged]  # how its team judged the exams before it had learnt anything
    folds: list[Fold]

    @property
    def run(self) -> Run:
        """The exported one."""
        return self.runs[self.exported]


def study(
    lessons: Material,
    exam: dict[str, Material],
    params: MARLParams,
    settings: Settings,
    runtime: RuntimeParams,
    seed: int,
    part: training.Part,
) -> Study:
    """Train every seed on ``lessons``, choose one and calibrate it on ``select``; walk forward inside train.

    Raises
    ------
    InputError
        For a half of validation with fewer than two candidates: nothing could be said of it.
    """
    require_candidates(exam)
    runs = [
        run(lessons, exam["select"], exam, params, settings, runtime, seed + k, part, f"seed_{k}") for k in params.seeds
    ]
    folds = walk_forward(lessons, params, settings, runtime, seed, part)
    best = choose(runs)
    calibration = exams.calibrate(runs[best].judged["select"], exam["select"].candidates)
    untrained = new_team(
        params, lessons.candidates.context, lessons.candidates.net_r[:, :, 0], seed + params.seeds[best]
    ).to(runtime.device)
    initial = {half: exams.judge(untrained, given, settings) for half, given in exam.items()}
    return Study(runs, best, calibration, initial, folds)


def require_candidates(exam: dict[str, Material]) -> None:
    """Refuse a half of validation with fewer than two candidates: nothing could be said of it."""
    for half, given in exam.items():
        if len(given.sessions) < 2:
            raise InputError(f"marl: expected candidates in {half}, found {len(given.sessions)}")


def new_team(params: MARLParams, context: np.ndarray, net_r: np.ndarray, seed: int) -> agents.Team:
    """A team that has learnt nothing but a linear forecast; the seed gives the networks' weights.

    It is scaled to the rows of context (n, c) that train, and forecasts their net R (n, 2) at the next open from all
    but the proposals, which are the context's end: on train other models make them than later (decision 0016).
    """
    torch.manual_seed(seed)
    sizes = {env.STRUCTURE: len(windows.STRUCTURE), env.TACTICAL: len(windows.TACTICAL)}
    team = agents.Team(
        params.agents, context.shape[1] + market.ACCOUNT_FEATURES, params.channels, params.stride, params.n_heads,
        params.message_dim, params.head_dim, params.dropout, sizes | {env.ARBITRAGEUR: sum(sizes.values())}, len(SIDE),
    )  # fmt: skip
    team.scale_to(torch.from_numpy(context))
    told = team.scaled(torch.from_numpy(context[:, :-PROPOSAL_CODE])).double().numpy()
    linear = Forecast.fit(told, net_r.astype(np.float64))
    team.begin_with(torch.from_numpy(linear.weights), torch.from_numpy(linear.bias))
    return team


def run(
    lessons: Material,
    select: Material,
    exam: dict[str, Material],
    params: MARLParams,
    settings: Settings,
    runtime: RuntimeParams,
    seed: int,
    part: training.Part,
    name: str,
) -> Run:
    """Pre-train a team on ``lessons``, stopping on ``select``; train it by MAPPO; judge it on every exam.

    ``name`` is that of the run among the stage's training states.
    """
    team = new_team(params, lessons.candidates.context, lessons.candidates.net_r[:, :, 0], seed).to(runtime.device)
    pretrained: dict[str, Pretrained] = {
        agent: pretraining.pretrain(
            team, agent, lessons, select, params.pretraining.optimizer, runtime, seed, part(f"{name}_{agent}")
        )
        for agent in params.pretraining.agents
        if agent in params.agents
    }
    world = env.TradingEnv(
        lessons.candidates, lessons.sessions, lessons.views, settings.contract, settings.market,
        distributed.own_count(params.ppo.num_envs, "marl.ppo.num_envs"), params.ppo.gamma, distributed.own_seed(seed),
        runtime.device, len(params.agents),
    )  # fmt: skip
    history = mappo.train(world, team, params.ppo, params.critic_dim, runtime.precision, seed, part(name)).history
    return Run(team, pretrained, history, {half: exams.judge(team, given, settings) for half, given in exam.items()})


def choose(runs: list[Run]) -> int:
    """Which run is exported: the one whose consensus earns the most net R a candidate on the selecting half.

    The rule stands before any result is seen; of equals the first wins.
    """
    return int(np.argmax([one.judged["select"].net_r.mean() for one in runs]))


def before(lessons: Material, start: int, embargo: int) -> np.ndarray:
    """Positions of the candidates whose trades end at least ``embargo`` bars before candidate ``start``.

    On either side and with any delay: what is learnt from them has ended before what is judged begins.
    """
    ends = lessons.candidates.exit_row.max(axis=(1, 2))
    return np.flatnonzero(ends < lessons.candidates.row[start] - embargo)


def blocks(lessons: Material, count: int) -> list[np.ndarray]:
    """Positions of the candidates of ``count`` blocks, one after the other, cut between sessions.

    They cover the later half of train. There the frozen experts' outputs come from models that knew the past alone,
    since the experts' own folds are a third of train or less (``rde.folds``, ``mrms.folds``); were they halves, the
    first sessions could still be of the experts' first fold, which learns from later ones.
    """
    days = np.unique(lessons.sessions[len(lessons.sessions) // 2 :])
    return [np.flatnonzero(np.isin(lessons.sessions, block)) for block in np.array_split(days, count)]


def walk_forward(
    lessons: Material,
    params: MARLParams,
    settings: Settings,
    runtime: RuntimeParams,
    seed: int,
    part: training.Part,
) -> list[Fold]:
    """Judge the signals of each fold's block by a team, of the first seed, that has learnt from what came before it.

    The last `TAIL` of that stops the pre-training. Purge and embargo (that of the splits) lie before both.
    """
    embargo = embargo_bars(settings.data)
    found = []
    for k, block in enumerate(blocks(lessons, params.folds) if params.folds else []):
        past = before(lessons, block[0], embargo) if len(block) else block
        judged = block[lessons.signals[block]]
        if min(len(past), len(judged)) < 2:
            raise InputError(
                f"marl.folds: expected at least 2 signals in and candidates before each of {params.folds} blocks, "
                f"found {len(judged)} in block {k + 1} and {len(past)} before it"
            )
        tail = past[int(len(past) * (1 - TAIL)) :]
        asked = lessons.of(judged)
        one = run(
            lessons.of(before(lessons, tail[0], embargo)), lessons.of(tail), {"block": asked}, params, settings,
            runtime, seed + params.seeds[0], part, f"fold_{k}",
        )  # fmt: skip
        found.append(Fold(asked, one.judged["block"]))
    return found
