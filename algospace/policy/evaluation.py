"""Judge what a policy did on a stretch of bars: its track record beside baselines and chance, and how sure that is."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace import evidence, market, performance, track_record
from algospace.calibration import Reliability, reliability
from algospace.data import sessions
from algospace.data.contracts import Contract
from algospace.features import prepared, windows
from algospace.features.windows import Rows
from algospace.marl import exams
from algospace.mrms.proposal import propose
from algospace.mrms.state import states
from algospace.policy.baselines import HOLD, baselines, cost_ladder, random_traders
from algospace.policy.breakdown import breakdowns, closed_trades, funnel, refusals
from algospace.policy.decide import Policy, Replay, decide, regimes, require_bars_from
from algospace.policy.params import ExportParams
from algospace.policy.simulation import Simulation
from algospace.settings import Settings
from algospace.trials import Trials

POLICY, AGAINST = "policy", "other policy"  # names of the judged record, and of the one it is held against
PICTURED = 1200  # regime vectors
LADDER = (0.0, 0.5, 1.0, 2.0)  # times the contract's costs


class Evaluation(NamedTuple):
    """What is known of a policy on a stretch of bars."""

    settings: Settings
    params: ExportParams
    replay: Replay
    records: dict[str, Simulation]  # `POLICY` first, `AGAINST` next where there is one, then the baselines
    summaries: dict[str, dict[str, Any]]  # of each record
    evidence: dict[str, Any]  # what the policy's Sharpe ratio is worth
    funnel: dict[str, int]
    refusals: dict[str, int]
    breakdowns: dict[str, list[dict[str, Any]]]
    examined: prepared.Decisions  # on which bars the confidence is judged
    confidence: Reliability  # of the calibrated confidence, on every one of them
    regimes: pd.DataFrame  # see `regime_vectors`
    difference: dict[str, Any] | None  # to the other policy, session by session


def evaluate(
    policy: Policy,
    bars: pd.DataFrame,
    params: ExportParams,
    tried: Trials,
    trade_from: pd.Timestamp | None = None,
    against: Policy | None = None,
    examined: prepared.Decisions = "signals",
) -> Evaluation:
    """Replay a policy over bars and judge what came of it.

    Parameters
    ----------
    policy, against
        The judged one, and another that trades the same bars under the judged one's contract and costs.
    bars
        See `algospace.data.bars`; those before ``trade_from`` only warm the features up.
    tried
        How many configurations the policy was chosen among.
    examined
        On which bars the confidence is judged: those that it was calibrated on (`prepared.examined`).

    Raises
    ------
    InputError
        If no bar closes at ``trade_from`` or later.
    """
    settings = policy.settings
    require_bars_from(bars, trade_from)
    replay = decide(policy, bars, trade_from)
    m5, first_row = replay.m5, replay.first_row
    records = {POLICY: replay.simulation}
    if against is not None:
        same = against.settings._replace(contract=settings.contract, market=settings.market)
        records[AGAINST] = decide(against._replace(settings=same), bars, trade_from).simulation
    records |= baselines(m5, settings, params, first_row)
    rows = replay.rows(policy)
    whole = windows.complete(rows, settings.features)
    found = {name: summary(name, record, m5, settings, params, first_row) for name, record in records.items()}
    return Evaluation(
        settings, params, replay, records, found,
        evidence_of(replay.simulation, settings.contract, params, tried), funnel(replay),
        refusals(replay.records), breakdowns(replay, params, settings.seed), examined,
        confidence_on_candidates(policy, m5, rows, whole, first_row, examined),
        regime_vectors(policy, replay.m30, rows, whole, first_row),
        None if against is None else difference(records[POLICY], records[AGAINST], params, settings.seed),
    )  # fmt: skip


def sessions_per_year(contract: Contract, curve: pd.DataFrame) -> float:
    """Sessions a year by the contract's calendar, over the calendar years that a record touches."""
    first, last = (int(curve["session_id"].iloc[k]) for k in (0, -1))
    return sessions.per_year(contract.calendar, first, last)


def equity_of(simulation: Simulation) -> np.ndarray:
    """Capital at the start, then at each session's end: (sessions + 1,)."""
    curve = simulation.equity
    ends = curve.groupby("session_id", sort=True)["equity"].last().to_numpy()
    return np.concatenate([curve["equity"].to_numpy()[:1], ends])


def summary(
    name: str, simulation: Simulation, m5: pd.DataFrame, settings: Settings, params: ExportParams, first_row: int
) -> dict[str, Any]:
    """Figures of one record: `track_record.summary`, gross result and activity, and how it stands to chance."""
    closed = closed_trades(simulation.trades)
    per_year = sessions_per_year(settings.contract, simulation.equity)
    found: dict[str, Any] = track_record.summary(
        equity_of(simulation), closed["net_r"].to_numpy(np.float64), closed["pnl"].to_numpy(np.float64), per_year,
        params.min_trades, params.bootstrap_draws, settings.seed, name == HOLD,
    )  # fmt: skip
    found |= activity(simulation, settings, params, per_year)
    if name == HOLD:  # it has no trade that closes, and costs that no bracket counts
        found |= {"exposure": 1.0, "turnover": None, "gross_return": None, "costs": None}
    return found | beside_chance(simulation, m5, settings, params, first_row)


def with_costs(trades: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Trades with ``commission``, ``slippage`` and ``gross_pnl``, in USD, in place of ``costs``.

    Gross is what the same fills earn at prices without slippage and without commission: a slippage for each order that
    is no target. Net is gross minus both.
    """
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    slipped = costs.slipped((trades["exit_reason"] == market.EXITS[market.TARGET]).to_numpy())
    slippage = slipped * trades["units"].astype(np.float64) * costs.point_value
    commission = trades["costs"].astype(np.float64)
    gross = trades["pnl"].astype(np.float64) + commission + slippage
    return trades.drop(columns="costs").assign(commission=commission, slippage=slippage, gross_pnl=gross)


def activity(
    simulation: Simulation, settings: Settings, params: ExportParams, per_year: float
) -> dict[str, float | None]:
    """What the trades come to before costs, what the costs take, and how much is held and turned over.

    ``gross_return`` is the P&L before costs over the first equity, ``costs`` in USD: of closed trades, and of one that
    is open at the end what its entry has cost, so that net is gross minus costs. ``cost_share`` is the closed trades'
    costs over the sum of what their winners earn before costs, ``exposure`` the share of bars with a position,
    ``turnover`` the value that they bought and sold over the mean equity, a year.
    """
    curve = simulation.equity
    trades = with_costs(closed_trades(simulation.trades), settings)
    gross = trades["gross_pnl"].to_numpy(np.float64)
    costs = float((trades["commission"] + trades["slippage"]).sum())
    still_open = simulation.trades["exit_reason"] == market.EXITS[market.OPEN]
    entered = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    entry = entered.commission + entered.slippage * entered.point_value
    paid = costs + entry * float(simulation.trades["units"][still_open].sum())
    first, last = (float(curve["equity"].iloc[k]) for k in (0, -1))
    gains = float(gross[gross > 0].sum())
    units = trades["units"].to_numpy(np.float64) * settings.contract.point_value
    value = float((units * (trades["entry"] + trades["exit"]).to_numpy(np.float64)).sum())
    years = curve["session_id"].nunique() / per_year
    return performance.rounded(
        {
            "gross_return": (last - first + paid) / first,
            "costs": paid,
            "cost_share": costs / gains if gains > 0 and len(trades) >= params.min_trades else None,
            "exposure": float(simulation.trades["bars"].sum()) / len(curve),
            "turnover": value / float(curve["equity"].mean()) / years,
        }
    )


def beside_chance(
    simulation: Simulation, m5: pd.DataFrame, settings: Settings, params: ExportParams, first_row: int
) -> dict[str, float | None]:
    """How the closed trades stand to random traders', and what they earn at other costs; None for too few."""
    names = ["random_mean_r", "random_percentile", "random_p_value", *(f"mean_r_costs_x{x:g}" for x in LADDER)]
    closed = closed_trades(simulation.trades)
    if len(closed) < params.min_trades:
        return dict.fromkeys(names)
    chance = random_traders(closed, m5, settings, first_row, params.random_draws, settings.seed)
    ladder = cost_ladder(closed, m5, settings, LADDER)
    return performance.rounded(dict(zip(names, (*chance, *ladder.values()), strict=True)))


def evidence_of(simulation: Simulation, contract: Contract, params: ExportParams, tried: Trials) -> dict[str, Any]:
    """What the Sharpe ratio of a record is worth; None where there are too few trades or trials to say.

    ``probabilistic_sharpe`` is the probability that the true ratio is above zero, ``deflated_sharpe`` above what the
    best of so many worthless trials shows, ``minimum_sessions`` how many sessions like these would make the first 0.95;
    ``overfitting`` is the probability that the best of the trials on validation was luck.
    """
    returns = performance.simple_returns(equity_of(simulation))
    found: dict[str, Any] = {
        "trials": tried.tried,
        "trials_sharpe_deviation": tried.deviation,
        "minimum_backtest_years": None if tried.deviation is None else evidence.minimum_backtest_years(tried.tried),
        "overfitting": tried.overfitting,
        "probabilistic_sharpe": None,
        "deflated_sharpe": None,
        "minimum_sessions": None,
    }
    if len(closed_trades(simulation.trades)) < params.min_trades:
        return performance.rounded(found)
    ratio, n, skewness, kurtosis = evidence.moments(returns)
    if not np.isnan(ratio):
        found["probabilistic_sharpe"] = evidence.probabilistic_sharpe(ratio, n, skewness, kurtosis)
        found["minimum_sessions"] = evidence.minimum_track_length(returns)
    if tried.deviation is not None:
        of_a_session = tried.deviation / np.sqrt(sessions_per_year(contract, simulation.equity))
        found["deflated_sharpe"] = evidence.deflated_sharpe(returns, tried.tried, of_a_session)
    return performance.rounded(found)


def confidence_on_candidates(
    policy: Policy, m5: pd.DataFrame, rows: Rows, whole: np.ndarray, first_row: int, on: prepared.Decisions
) -> Reliability:
    """Compare the calibrated confidence with what happened on every candidate, each with a fresh account.

    Candidates are all bars with a signal, completed synergies or not, or completed synergies alone: ``on``, as
    `prepared.examined` has it. ``whole`` bool (n5,) says where the windows are.
    """
    settings = policy.settings
    wanted = (m5["candidate_direction"].to_numpy() != 0) & whole
    if on == "synergies":
        wanted &= m5["gate1_type"].to_numpy() != 0
    wanted[:first_row] = False
    ends = np.flatnonzero(wanted)
    if not len(ends):
        return reliability(np.empty(0), np.empty(0, bool), settings.seed)
    events = m5.iloc[ends]
    regime = regimes(policy.rde, rows, ends, settings.features)
    proposal = propose(policy.mrms, states(events, regime), events, settings.contract.tick)
    given = exams.material(m5, ends, rows, regime, proposal, settings, "cpu")
    judged = exams.judge(policy.team, given, settings)
    return exams.worth(judged, given.candidates, policy.calibration, settings.seed)


def regime_vectors(policy: Policy, m30: pd.DataFrame, rows: Rows, whole: np.ndarray, first_row: int) -> pd.DataFrame:
    """Regime vectors (``close_utc``, ``regime_0`` ..) from ``first_row`` on, of half hours whose window is whole.

    At most `PICTURED` of them, evenly spaced: they are there to be looked at.
    """
    ends = first_row + np.flatnonzero(whole[first_row:])
    newest, at = np.unique(rows.m30_row[ends], return_index=True)
    kept = np.unique(np.linspace(0, len(at) - 1, min(len(at), PICTURED)).astype(np.intp))
    vectors = regimes(policy.rde, rows, ends[at[kept]], policy.settings.features)
    table = pd.DataFrame(vectors, columns=[f"regime_{k}" for k in range(vectors.shape[1])])
    table.insert(0, "close_utc", m30["close_utc"].to_numpy()[newest[kept]])
    return table


def difference(ours: Simulation, theirs: Simulation, params: ExportParams, seed: int) -> dict[str, Any]:
    """Mean difference of session returns with its 95 % interval, paired: both met the same sessions.

    The interval is None for fewer than ``params.min_trades`` sessions, as a record's is for so few trades.
    """
    returns = [performance.simple_returns(equity_of(record)) for record in (ours, theirs)]
    paired = returns[0] - returns[1]
    found: dict[str, Any] = {"sessions": len(paired), "mean_return": float(paired.mean())}
    bounds: dict[str, float | None] = {"mean_return_low": None, "mean_return_high": None}
    if len(paired) >= max(params.min_trades, 2):
        bounds |= track_record.interval("mean_return", paired, lambda x: x.mean(axis=-1), params.bootstrap_draws, seed)
    return performance.rounded(found | bounds)


def parity(replay: Replay, prepared: pd.DataFrame) -> bool:
    """Whether the bundle's road from bars to features gave what `prepare` gave, to the last bit."""
    columns = list(replay.m5.columns)
    return set(columns) <= set(prepared.columns) and bool(replay.m5.equals(prepared[columns]))
