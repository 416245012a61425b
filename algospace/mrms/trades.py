"""Simulated trades: proposals with the signal, one trade at a time, and the accounts they make."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace import market
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal
from algospace.mrms.stops import stop_distances
from algospace.mrms.track import Track, account_states, accounts_after, outcome_vector, risk_vector

PLAIN_STOP, PLAIN_REWARD_RISK = 1.5, 2.0  # the plain rule: one unit, this stop in ATR, this target over stop
FRESH_SHARE = 0.5  # of the events that are shown to a fresh account in training
LONGEST_RECORD = 100  # trades of the others' accounts at most


class Trades(NamedTuple):
    """Closed trades of a stretch of time, oldest first."""

    track: Track
    event: np.ndarray  # int64 (n,): number of the event that each was decided at
    known_row: np.ndarray  # int64 (n,): row at whose close the end of each was known


class Bracket(NamedTuple):
    """A bracket with the signal at each of n events; arrays (n,)."""

    units: np.ndarray  # 0: no trade
    stop_atr: np.ndarray
    stop: np.ndarray  # distance in price
    reward_risk: np.ndarray
    confidence: np.ndarray


def trade(venue: market.Venue, events: pd.DataFrame, brackets: Bracket) -> Trades:
    """Trade events in time order, each with its bracket, one open trade at most and no limit of an account.

    The same rule as `algospace.policy.simulation`: an event that falls into an open trade is passed over. It reads
    the bars after each event; a trade may be shown to events from ``known_row`` on.
    """
    rows = events["row"].to_numpy()
    side = events["candidate_direction"].to_numpy()
    outcome = market.bracket(
        venue.bars, rows, side, brackets.stop, brackets.reward_risk, np.zeros(len(rows), np.int64), venue.costs,
        venue.params.max_bars,
    )  # fmt: skip
    known = market.known_row(venue.bars, rows, outcome)
    taken, free = [], -1
    for i in np.flatnonzero(brackets.units > 0):
        if rows[i] >= free:
            taken.append(i)
            free = known[i]
    event = np.array(taken, np.int64)
    event = event[(outcome.entry_row[event] >= 0) & (outcome.exit[event] != market.OPEN)]
    made = Bracket(*(part[event] for part in brackets))
    net_r, exits = outcome.net_r[event], outcome.exit[event]
    bars_held = outcome.exit_row[event] - outcome.entry_row[event] + 1
    track = Track(
        risk_vector(made.units, made.stop_atr, made.reward_risk, made.confidence),
        outcome_vector(exits, net_r, bars_held),
        net_r * made.stop * made.units * venue.contract.point_value,
        venue.session[outcome.exit_row[event]].astype(np.int64),
    )  # fmt: skip
    return Trades(track, event, known[event])


def of_cells(events: pd.DataFrame, cell: np.ndarray, venue: market.Venue, params: MRMSParams) -> Bracket:
    """One unit with the signal at each event, in the given cells (n,) of the grid."""
    stop, reward = np.divmod(cell, len(params.reward_risk_grid))
    stop_atr = np.array(params.stop_grid)[stop]
    side = events["candidate_direction"].to_numpy()
    distance, _ = stop_distances(events, side, stop_atr, params.stop_grid[-1], params.lvn, venue.costs.tick)
    ones = np.ones(len(cell))
    return Bracket(ones.astype(np.int64), stop_atr, distance, np.array(params.reward_risk_grid)[reward], ones)


def of_proposal(proposal: Proposal) -> Bracket:
    """The proposals with the signal, at least one unit each: a record of what they are worth needs trades."""
    parts = (proposal.stop_atr, proposal.stop, proposal.reward_risk, proposal.confidence)
    return Bracket(np.maximum(proposal.units[:, 0], 1), *(part[:, 0] for part in parts))


def plain_cell(params: MRMSParams) -> int:
    """The plain rule's cell: 1.5 ATR and reward-risk 2, or the grid's nearest."""
    stop = np.abs(np.array(params.stop_grid) - PLAIN_STOP).argmin()
    reward = np.abs(np.array(params.reward_risk_grid) - PLAIN_REWARD_RISK).argmin()
    return int(stop) * len(params.reward_risk_grid) + int(reward)


def proposed_trades(venue: market.Venue, events: pd.DataFrame, proposal: Proposal) -> Trades:
    """The trades that proposals for events make, at least one unit each."""
    return trade(venue, events, of_proposal(proposal))


def with_past_accounts(lessons: Lessons, venue: market.Venue, params: MRMSParams, seed: int) -> Lessons:
    """Lessons whose states show accounts that have traded the plain rule (see `past_accounts`)."""
    events = lessons.events
    plain = of_cells(events, np.full(len(events), plain_cell(params)), venue, params)
    accounts = past_accounts(trade(venue, events, plain), venue, events["row"].to_numpy(), seed)
    return lessons._replace(states=lessons.states.with_accounts(accounts))


def past_accounts(trades: Trades, venue: market.Venue, rows: np.ndarray, seed: int) -> np.ndarray:
    """Ten account numbers (n, 10) for events at ``rows``, so that training sees accounts of every age.

    Half of the events see a fresh account; each other one an account that has made the last 1 to 100 of the trades
    that were known to be closed by then. Nothing of it comes later than the event.
    """
    rng = np.random.default_rng(seed)
    last = np.searchsorted(trades.known_row, rows, side="right")
    length = np.where(rng.random(len(rows)) < FRESH_SHARE, 0, rng.integers(1, LONGEST_RECORD + 1, len(rows)))
    first = np.maximum(last - length, 0)
    initial, limits = venue.params.account.equity, venue.params.limits
    accounts = accounts_after(trades.track, first, last, venue.session[rows], initial)
    return account_states(trades.track, first, last, accounts, initial, limits)
