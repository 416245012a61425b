"""How the report says its figures: formats, rows of its tables, sentences."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace.calibration import MIN_EVENTS, Reliability

Figures = Mapping[str, Any]

NONE = "–"
MINUS = "−"


class Cell(NamedTuple):
    """A figure and, under it, its interval."""

    text: str
    below: str = ""


def signed(value: float) -> str:
    """Three digits with their sign."""
    return f"{value:+.3f}".replace("-", MINUS)


def two_digits(value: float) -> str:
    """Two digits."""
    return f"{value:.2f}".replace("-", MINUS)


def percent(value: float) -> str:
    """A share in percent, signed, two digits."""
    return f"{100.0 * value:+.2f}\u00a0%".replace("-", MINUS)


def share(value: float) -> str:
    """A share in percent, one digit."""
    return f"{100.0 * value:.1f}\u00a0%"


def money(value: float) -> str:
    """Whole dollars with their sign."""
    return f"{value:+,.0f}".replace("-", MINUS)


def plain(value: Any) -> str:
    """Any value, in four significant digits where it is a fraction."""
    if value is None or value != value:  # NaN
        return NONE
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace("-", MINUS)
    if isinstance(value, float | np.floating):
        return f"{value:,.4g}".replace("-", MINUS)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or NONE
    return str(value)


def listed(parts: Sequence[str]) -> str:
    """Parts as an English list."""
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def between(figures: Figures, name: str, text: Callable[[Any], str]) -> str:
    """The interval of a figure, empty where it has none."""
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    if low is None and high is None:
        return ""
    return f"{NONE if low is None else text(low)} to {'∞' if high is None else text(high)}"


Line = tuple[str, str, Callable[[Any], str]]  # figure, label, how it is written

RECORD: dict[str, tuple[Line, ...]] = {
    "Result": (
        ("net_return", "Net return", percent),
        ("gross_return", "Gross return", percent),
        ("net_pnl", "Net P&L, USD", money),
        ("costs", "Costs, USD", lambda value: f"{value:,.0f}"),
        ("cost_share", "Costs, of gross gains", share),
        ("max_drawdown", "Max drawdown, session ends", share),
    ),
    "A trade": (
        ("trades", "Trades", plain),
        ("mean_r", "Mean net R", signed),
        ("expectancy", "P&L a trade, USD", lambda value: f"{value:+,.2f}".replace("-", MINUS)),
        ("win_rate", "Win rate", share),
        ("profit_factor", "Profit factor", two_digits),
    ),
    "A year": (
        ("annual_return", "Annual return", percent),
        ("sharpe", "Sharpe", two_digits),
        ("sortino", "Sortino", two_digits),
        ("calmar", "Calmar", two_digits),
    ),
    "Activity": (
        ("sessions", "Sessions", plain),
        ("exposure", "Bars with a position", share),
        ("turnover", "Turnover, times equity a year", lambda value: f"{value:,.1f}"),
    ),
}
CHANCE: tuple[Line, ...] = (
    ("random_mean_r", "Mean R of random traders", signed),
    ("random_percentile", "Percentile among them", lambda value: f"{value:.1f}"),
    ("random_p_value", "p value", lambda value: f"{value:.3f}"),
    ("mean_r_costs_x0", "Mean R without costs", signed),
    ("mean_r_costs_x0.5", "at half the costs", signed),
    ("mean_r_costs_x1", "at the costs", signed),
    ("mean_r_costs_x2", "at twice the costs", signed),
)

VALIDATION: tuple[Line, ...] = (
    ("candidates", "Candidates", plain),
    ("mean_r", "Mean net R", signed),
    ("always_with_mean_r", "Always with the signal", signed),
    ("always_against_mean_r", "Always against it", signed),
    ("random_mean_r", "The same votes at other moments", signed),
    ("random_p_value", "p value against these", lambda value: f"{value:.3f}"),
    ("trades", "Trades, one at a time", plain),
    ("session_mean_r", "Their net R a session", signed),
    ("sharpe", "Their Sharpe, annual", two_digits),
    ("deployed_trades", "Trades through Gate 2", plain),
    ("deployed_session_mean_r", "Their net R a session", signed),
    ("with_rate", "Votes with the signal", share),
    ("against_rate", "Votes against it", share),
)


EVIDENCE: dict[Line, str] = {
    (
        "probabilistic_sharpe",
        "Probabilistic Sharpe",
        two_digits,
    ): "probability that the true Sharpe ratio is above zero",
    (
        "deflated_sharpe",
        "Deflated Sharpe",
        two_digits,
    ): "probability that it is above what the best of so many worthless configurations shows",
    ("trials", "Configurations tried", plain): "as metrics/trials.jsonl records them",
    ("trials_sharpe_deviation", "Spread of their Sharpe", two_digits): "standard deviation on validation, annual",
    (
        "minimum_sessions",
        "Minimum track length",
        lambda value: f"{np.ceil(value):,.0f}",
    ): "sessions like these until the first figure is 0.95",
    (
        "minimum_backtest_years",
        "Minimum backtest length",
        lambda value: f"{value:.1f}",
    ): "years below which the best of so many worthless configurations is expected to show a Sharpe ratio of 1",
    ("overfitting", "Probability of overfitting", two_digits): "that the best configuration on one half of the "
    "validation sessions is in the lower half on the other; one half if nothing is better than the rest",
}


def cell(figures: Figures, name: str, text: Callable[[Any], str]) -> Cell:
    """A figure with its interval, or a dash."""
    value = figures.get(name)
    if value is None:
        return Cell(NONE)
    return Cell(text(value), between(figures, name, text) if f"{name}_low" in figures else "")


def record_rows(lines: Sequence[Line], summaries: Any) -> list[tuple[str, list[Cell]]]:
    """A row of cells for every line that any of the records has."""
    shown = [line for line in lines if any(line[0] in figures for figures in summaries)]
    return [(label, [cell(figures, name, text) for figures in summaries]) for name, label, text in shown]


def tiles(policy: Figures, evidence: Figures) -> list[tuple[str, Cell]]:
    """The four figures beside the verdict."""
    deflated = evidence["deflated_sharpe"]
    return [
        ("Net return", cell(policy, "net_return", percent)),
        ("Mean net R", cell(policy, "mean_r", signed)),
        ("Sharpe, annual", cell(policy, "sharpe", two_digits)),
        ("Deflated Sharpe", Cell(NONE) if deflated is None else Cell(two_digits(deflated), "probability of skill")),
    ]


def evidence_rows(found: Figures, why_not: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Label, value and what it means, or why there is none."""
    return [
        (label, NONE, why_not.get(name, "")) if found[name] is None else (label, text(found[name]), meaning)
        for (name, label, text), meaning in EVIDENCE.items()
    ]


def difference(found: Figures | None) -> str:
    """A sentence on two policies, empty where there is one."""
    if found is None:
        return ""
    low, high = found["mean_return_low"], found["mean_return_high"]
    sessions = "one session" if found["sessions"] == 1 else f"{found['sessions']:,} sessions"
    said = (
        f"Session by session the policy’s return differs from that of “{found['name']}” ({found['id'][:12]}) by "
        f"{basis_points(found['mean_return'])} basis points on average over {sessions}"
    )
    if low is None:
        return f"{said}: too few to say which is better."
    relation = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
    return f"{said} (95 % interval {basis_points(low)} to {basis_points(high)}): {relation}."


def basis_points(value: float) -> str:
    """Hundredths of a percent, signed."""
    return f"{1e4 * value:+.2f}".replace("-", MINUS)


def funnel_rows(funnel: Mapping[str, int]) -> list[tuple[str, str, str, float]]:
    """Step, count, share of the step before, and the width of its bar in percent (of a logarithmic scale)."""
    shares = [""] + [share(count / before) if before else NONE for before, count in pairwise(funnel.values())]
    most = np.log1p(max(funnel.values(), default=0)) or 1.0
    return [
        (step, f"{count:,}", share, round(100 * float(np.log1p(count) / most), 1))
        for (step, count), share in zip(funnel.items(), shares, strict=True)
    ]


def breakdown_rows(rows: Sequence[Figures]) -> list[dict[str, Any]]:
    """Texts of each row, and where its interval lies on a common scale around zero, in percent of the width."""
    known = [row for row in rows if row["mean_r"] is not None]
    reach = max((max(abs(row["mean_r_low"]), abs(row["mean_r_high"])) for row in known), default=0.0) or 1.0

    def at(value: float) -> float:
        return round(50 + 50 * value / reach, 1)

    return [
        {
            "group": row["group"],
            "cells": [f"{row['events']:,}", f"{row['trades']:,}", money(row["net_pnl"]) if row["trades"] else NONE],
            "win_rate": NONE if row["win_rate"] is None else share(row["win_rate"]),
            "mean": cell(row, "mean_r", signed),
            "span": row in known and (at(row["mean_r_low"]), at(row["mean_r"]), at(row["mean_r_high"])),
            "apart": row in known and (row["mean_r_low"] > 0 or row["mean_r_high"] < 0),
        }
        for row in rows
    ]


def calibration(found: Reliability) -> str:
    """A sentence on what the confidence is worth."""
    count = int(found.counts.sum())
    if found.ece is None:
        return f"{count:,} candidates are too few for a calibration error, which needs {MIN_EVENTS}."
    relation = "within what chance explains"
    if found.ece > (found.floor_high or 0.0):
        relation = "worse than chance explains, unless it is that trades overlap"
    return (
        f"Expected calibration error {found.ece:.3f} over {count:,} candidates; were outcomes independent, a perfect "
        f"confidence would show {found.floor:.3f}, more than {found.floor_high:.3f} once in twenty times: {relation}."
    )


def decision_rows(decisions: pd.DataFrame) -> list[list[str]]:
    """Time, side, price, confidence, result and outcome of each decision."""
    closes = pd.DatetimeIndex(pd.to_datetime(decisions["close_utc"], utc=True)).strftime("%Y-%m-%d %H:%M")
    return [
        [
            close,
            {1: "long", -1: "short"}.get(int(row.direction), "pass"),
            f"{row.price:,.8g}",
            NONE if np.isnan(row.confidence) else f"{row.confidence:.3f}",
            NONE if np.isnan(row.net_r) else signed(row.net_r),
            "accepted" if row.accepted else f"refused: {row.reasons}",
        ]
        for close, row in zip(closes, decisions.itertuples(), strict=True)
    ]
