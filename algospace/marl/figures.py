"""The figures of the agents: what training changed, what seeds and folds came to, beside rules that learn nothing."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import trim_mean

from algospace import agents, env, market, performance
from algospace.calibration import Calibration, Reliability
from algospace.data import sessions
from algospace.marl import passage, pretraining
from algospace.marl.engine import Fold, Run, Study
from algospace.marl.exams import Judged, Material, sides, won
from algospace.marl.params import MARLParams
from algospace.settings import Settings

SAMPLED = 16  # passes of the training rule


def figures(
    study: Study,
    exam: dict[str, Material],
    lessons: Material,
    confidence: Reliability,
    params: MARLParams,
    settings: Settings,
    days: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Figures of the exported run (last update, pre-training, both halves of validation), of all seeds and folds.

    ``confidence`` is what its calibrated confidence is worth on the reporting half, ``days`` are the sessions of train
    and of each half.
    """
    found: dict[str, Any] = study.run.history[-1] | {
        "train_candidates": len(lessons.sessions),
        "calibration": study.calibration._asdict(),
    }
    found["pretraining"] = {
        name: pretraining.figures(trained, name, lessons, exam["report"], params.bootstrap_draws, settings.seed)
        for name, trained in study.run.pretrained.items()
    }
    for half, trained in study.run.judged.items():
        found[half] = _half(study.initial[half], trained, exam[half], study.calibration, params, settings)
        found[half]["traded"] = traded(
            study.run.team, trained, exam[half], days[half], study.calibration, params, settings
        )
    found["report"] |= confidence.figures()
    found["seeds"] = seeds(study.runs, params, study.exported, settings.seed)
    return found | {"folds": walk_forward(study.folds, days["train"], params, settings)}


def _half(
    initial: Judged,
    trained: Judged,
    given: Material,
    calibration: Calibration,
    params: MARLParams,
    settings: Settings,
) -> dict[str, Any]:
    """Rates and net R of the consensus on every candidate by itself, before Gate 2, beside three rules, the base rate.

    ``random`` shifts the same sequence of actions along the candidates, round and round, so that runs of equal
    actions and of equal outcomes stay what they are: ``random_p_value`` is the share of ``params.random_draws`` such
    shifts, the real one counted among them, that earn as much or more.
    """
    candidates, n = given.candidates, len(trained.action)
    probability = np.array([calibration(c) for c in trained.confidence])
    hit = won(trained, candidates)
    confident = _confident(trained, given, calibration, settings)
    found: dict[str, Any] = {
        "candidates": n,
        "synergies": int(given.synergies.sum()),
        "changed_rate": float((trained.action != initial.action).mean()),
        "initial": _rates(initial, given, params, settings),
        "trained": _rates(trained, given, params, settings),
        "confident_rate": float(confident.mean()),
        "confident_mean_r": float(trained.net_r[confident].mean()) if confident.any() else None,
        "always_with_mean_r": float(candidates.net_r[:, 0, 0].mean()),
        "always_against_mean_r": float(candidates.net_r[:, 1, 0].mean()),
        "confidence_brier": float(((probability - hit) ** 2).mean()),
        "base_rate_brier": float(hit.mean() * (1 - hit.mean())),
    }
    rng = np.random.default_rng(settings.seed)
    shifted = np.array(
        [
            _net_r(np.roll(trained.action, by), np.roll(trained.delay, by), candidates).mean()
            for by in rng.integers(1, n, params.random_draws)
        ]
    )
    as_good = int((shifted >= trained.net_r.mean()).sum())
    return found | {
        "random_mean_r": float(shifted.mean()),
        "random_p_value": (1 + as_good) / (1 + params.random_draws),
    }


def _confident(judged: Judged, given: Material, calibration: Calibration, settings: Settings) -> np.ndarray:
    """Where the consensus goes with the signal and its calibrated confidence passes Gate 2: bool (n,)."""
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    chosen, proposal = (np.arange(len(judged.action)), sides(judged)), given.candidates.proposal
    break_even = costs.break_even(proposal.reward_risk[chosen], proposal.stop[chosen])
    probability = np.array([calibration(c) for c in judged.confidence])
    passed: np.ndarray = (judged.action == env.WITH) & (probability >= break_even + settings.gate2.margin)
    return passed


def traded(
    team: agents.Team,
    judged: Judged,
    given: Material,
    days: np.ndarray,
    calibration: Calibration,
    params: MARLParams,
    settings: Settings,
) -> dict[str, dict[str, float | None]]:
    """Figures of `_account` of what one account would have traded, in time order, by each rule.

    ``sampled`` is the rule of training, each figure the mean over `SAMPLED` passes; ``consensus`` takes what the 50
    passes agree on; ``deployed`` what Gates 1 and 2 let through of it: a completed synergy, confidence, a proposed
    size. What the agents say of a candidate is what they say to a fresh account. ``every_signal`` and ``every_synergy``
    learn nothing: they go with it at the next open, in the proposed bracket. Where only synergies are examined there is
    no ``every_signal``.
    """
    n, units = len(judged.action), given.candidates.proposal.units[:, 0]
    passed = given.synergies & _confident(judged, given, calibration, settings) & (units > 0)
    at_once = np.zeros(n, np.int64)
    rules = {
        "consensus": (judged.action, judged.delay),
        "deployed": (np.where(passed, env.WITH, env.PASS), judged.delay),
        "every_signal": (np.full(n, env.WITH), at_once),
        "every_synergy": (np.where(given.synergies, env.WITH, env.PASS), at_once),
    }
    if given.synergies.all():
        del rules["every_signal"]
    ruled = passage.by_rules(given, list(rules.values()), settings)
    found = {
        name: _account(net_r, taken, given, days, params, settings)
        for name, net_r, taken in zip(rules, *ruled, strict=True)
    }
    drawn = passage.by_sampling(team, given, SAMPLED, settings)
    each = pd.DataFrame([_account(*one, given, days, params, settings) for one in zip(*drawn, strict=True)])
    means = each.astype(np.float64).mean()  # of the passes that have a figure
    return found | {"sampled": {name: None if np.isnan(mean) else float(mean) for name, mean in means.items()}}


def _account(
    net_r: np.ndarray, taken: np.ndarray, given: Material, days: np.ndarray, params: MARLParams, settings: Settings
) -> dict[str, float | None]:
    """Trades, net R of a session with its 95 % interval, annual Sharpe ratio: all sessions ``days`` (d,) count.

    ``net_r`` (n,) and ``taken``, bool (n,), say what came of each candidate. Without a trade, or of one session, there
    is no interval.
    """
    daily, low, high = _by_session(net_r, given, days), None, None
    if taken.any() and len(daily) > 1:
        low, high = performance.stationary_bootstrap_interval(
            daily, partial(np.mean, axis=-1), len(daily) ** (1 / 3), params.bootstrap_draws, settings.seed
        )
    return {
        "trades": int(taken.sum()),
        "total_r": float(net_r.sum()),
        "session_mean_r": float(daily.mean()),
        "session_mean_r_low": low,
        "session_mean_r_high": high,
        "sharpe": performance.sharpe(daily, _sessions_per_year(days, settings)),
    }


def _by_session(net_r: np.ndarray, given: Material, days: np.ndarray) -> np.ndarray:
    """Net R (d,) of each of the sessions ``days`` (d,), ascending; 0 where nothing was taken."""
    return np.bincount(np.searchsorted(days, given.sessions), net_r, len(days))


def _sessions_per_year(days: np.ndarray, settings: Settings) -> float:
    return sessions.per_year(settings.contract.calendar, int(days[0]), int(days[-1]))


def _net_r(action: np.ndarray, delay: np.ndarray, candidates: env.Candidates) -> np.ndarray:
    """Net R (n,) of given actions, one unit, each with a fresh account; 0 for a pass."""
    r = candidates.net_r[np.arange(len(action)), np.maximum(action - 1, 0), delay]
    return np.where(action != env.PASS, r, 0.0)


def _rates(judged: Judged, given: Material, params: MARLParams, settings: Settings) -> dict[str, float | None]:
    """``mean_r`` is a candidate's, passes included, with its 95 % interval over blocks a session long on average."""
    taken = judged.action != env.PASS
    block = max(1.0, len(taken) / len(np.unique(given.sessions)))
    low, high = performance.stationary_bootstrap_interval(
        judged.net_r, partial(np.mean, axis=-1), block, params.bootstrap_draws, settings.seed
    )
    return {
        "with_rate": float((judged.action == env.WITH).mean()),
        "against_rate": float((judged.action == env.AGAINST).mean()),
        "unanimous_rate": float((judged.agreement == len(params.agents)).mean()),
        "epistemic": float(judged.epistemic.mean()),
        "taken_mean_r": float(judged.net_r[taken].mean()) if taken.any() else None,
        "mean_r": float(judged.net_r.mean()),
        "mean_r_low": low,
        "mean_r_high": high,
        "synergy_mean_r": float(judged.net_r[given.synergies].mean()) if given.synergies.any() else None,
    }


def sharpe(judged: Judged, given: Material, days: np.ndarray, settings: Settings) -> float:
    """Annual Sharpe ratio of what the consensus would have traded in time order, over all sessions ``days``."""
    net_r = passage.by_rules(given, [(judged.action, judged.delay)], settings).net_r[0]
    return performance.sharpe(_by_session(net_r, given, days), _sessions_per_year(days, settings))


def daily(runs: list[Run], params: MARLParams, given: Material, days: np.ndarray, settings: Settings) -> str:
    """Net R of each session of the reporting half ``given``, traded in time order: what configurations are compared by.

    Tab-separated text: a row for each of the sessions ``days``, a column a seed.
    """
    judged = [run.judged["report"] for run in runs]
    passed = passage.by_rules(given, [(one.action, one.delay) for one in judged], settings)
    table = {
        f"seed_{k}": _by_session(net_r, given, days)
        for k, net_r in zip(
            params.seeds, passed.net_r, strict=False
        )  # a sweep may have come to the first of them alone
    }
    text: str = pd.DataFrame({"session_id": days} | table).to_csv(
        sep="\t", index=False, float_format=f"%.{performance.DIGITS}g", lineterminator="\n"
    )
    return text


def seeds(runs: list[Run], params: MARLParams, exported: int, seed: int) -> dict[str, Any]:
    """Every seed's net R a candidate on both halves, and over seeds their interquartile mean.

    The interval is the 95 % bootstrap over seeds of Agarwal et al. (2021), "Deep RL at the edge of the statistical
    precipice": what another choice of seeds would give on the same market. It says nothing of another market. Few
    seeds make it narrow: of three it is their range and covers 75 %, of one there is none.
    """
    found: dict[str, Any] = {"exported": params.seeds[exported]}
    rng = np.random.default_rng(seed)
    again = rng.integers(0, len(runs), (params.bootstrap_draws, len(runs)))
    for half in ("select", "report"):
        means = np.array([run.judged[half].net_r.mean() for run in runs])
        low, high = np.quantile(_interquartile_mean(means[again]), [0.025, 0.975])
        found[half] = {f"seed_{s}_mean_r": float(mean) for s, mean in zip(params.seeds, means, strict=True)} | {
            "interquartile_mean_r": float(_interquartile_mean(means)),
            "interquartile_mean_r_low": float(low) if len(runs) > 1 else None,
            "interquartile_mean_r_high": float(high) if len(runs) > 1 else None,
        }
    return found


def _interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what lies between the quartiles; of three values or fewer, of all."""
    middle: np.ndarray = trim_mean(values, 0.25, axis=-1)
    return middle


def walk_forward(folds: list[Fold], days: np.ndarray, params: MARLParams, settings: Settings) -> dict[str, Any]:
    """Figures of every fold's block, which no network that judges it has seen, beside taking every signal.

    ``days`` are the sessions of train. What `prepare` fits (scales, the references of MMD) is of all of train.
    """
    found: dict[str, Any] = {}
    for k, fold in enumerate(folds):
        first, last = (int(fold.given.sessions[i]) for i in (0, -1))
        simple: dict[str, Any] = {
            "candidates": len(fold.given.sessions),
            "first_session": first,
            "last_session": last,
            "always_with_mean_r": float(fold.given.candidates.net_r[:, 0, 0].mean()),
            "always_against_mean_r": float(fold.given.candidates.net_r[:, 1, 0].mean()),
        }
        within = days[(first <= days) & (days <= last)]
        passed = passage.by_rules(fold.given, [(fold.judged.action, fold.judged.delay)], settings)
        traded = _account(passed.net_r[0], passed.traded[0], fold.given, within, params, settings)
        found[f"fold_{k}"] = simple | _rates(fold.judged, fold.given, params, settings) | {"traded": traded}
    return found
