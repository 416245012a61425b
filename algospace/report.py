"""The evaluation report: one self-contained HTML page, verdict first.

:func:`render` turns a :class:`ReportData` into HTML that needs no network, no script and no other file, and
is the same bytes for the same data. It reads what has happened, test bars included: nothing here may feed a
decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from algospace import pictures
from algospace.calibration import MIN_EVENTS, Reliability

Figures = Mapping[str, Any]

POLICY = "policy"  # the summary that is judged; the others are what it is held against
WATERMARK = "SYNTHETIC DATA"
LISTED = 40  # decisions in the table
CONVINCING = 0.95  # deflated Sharpe ratio from which on a positive record counts as evidence
NONE = "–"
MINUS = "−"


@dataclass(frozen=True)
class ReportData:
    """All that the report shows. Times are UTC: datetimes, or integer nanoseconds since 1970.

    Attributes
    ----------
    title : str
    bars_name : str
        What the bars are, as the page calls them: "test bars".
    source : mapping
        ``kind``, ``symbol``, ``files``, ``first``, ``last``, ``is_synthetic``; other entries are shown too.
    bundle_id : str
        Hash of the bundle that was evaluated.
    summaries : mapping of name to figures
        ``policy``, another policy where there is one, and the baselines, in the order of the columns; each at least
        what :func:`algospace.track_record.summary` gives.
    evidence : mapping
        ``trials``, ``trials_sharpe_deviation``, ``minimum_backtest_years``, ``overfitting``,
        ``probabilistic_sharpe``, ``deflated_sharpe``, ``minimum_sessions``; None where nothing can be said.
    why_not : mapping
        Figure of ``evidence`` to the reason why it is None.
    difference : mapping or None
        ``name`` and bundle ``id`` of the other policy, ``sessions``, ``mean_return``, ``mean_return_low``,
        ``mean_return_high`` of the paired session returns.
    funnel : mapping of step to count
        From bars to trades, in order.
    refusals : mapping of reason to count
    breakdowns : mapping of heading to rows
        Rows of ``group``, ``events``, ``trades``, ``net_pnl``, ``win_rate``, ``mean_r``, ``mean_r_low``,
        ``mean_r_high``.
    confidence : Reliability
        Of the calibrated confidence on every candidate.
    equity : mapping of name to (times, equity)
        Two arrays of one length, the starting capital first; ``policy`` is the first curve.
    decisions : DataFrame
        ``close_utc``, ``direction`` (1 long, -1 short, 0 pass), ``accepted`` (bool), ``reasons`` (str),
        ``price``, ``net_r`` (NaN without a trade), ``confidence``; in time order.
    bars : DataFrame
        ``close_utc`` and ``close`` of the period; in time order.
    regimes : DataFrame
        ``close_utc`` and ``regime_0`` .. ``regime_7``; in time order. A bar shows the last vector known then.
    validation : sequence of rows
        Mappings of column to value; none where the bars are not the project's own.
    limitations : sequence of str
    test_uses : str
        How often these bars have judged, and how many configurations were tried.
    """

    title: str
    bars_name: str
    source: Mapping[str, Any]
    bundle_id: str
    summaries: Mapping[str, Figures]
    evidence: Figures
    why_not: Mapping[str, str]
    difference: Figures | None
    funnel: Mapping[str, int]
    refusals: Mapping[str, int]
    breakdowns: Mapping[str, Sequence[Figures]]
    confidence: Reliability
    equity: Mapping[str, tuple[NDArray[Any], NDArray[np.float64]]]
    decisions: pd.DataFrame
    bars: pd.DataFrame
    regimes: pd.DataFrame
    validation: Sequence[Mapping[str, Any]]
    limitations: Sequence[str]
    test_uses: str


class Cell(NamedTuple):
    """A figure and, under it, its interval."""

    text: str
    below: str = ""


def verdict(summary: Figures, others: Mapping[str, Figures], evidence: Figures) -> tuple[str, str]:
    """Say in plain words what a track record is evidence of: (headline, sentences).

    The mean net R decides first, by its 0.95 interval: one that includes zero, or touches it, is no evidence. A
    positive one is evidence only if the Sharpe ratio survives the number of configurations that were tried. Where there
    is no mean, the trades are too few to say anything.

    Parameters
    ----------
    summary, evidence : mapping
        Of the policy, as :class:`ReportData` has them.
    others : mapping of name to summary
    """
    trades, mean, low = summary["trades"], summary["mean_r"], summary["mean_r_low"]
    returns = [f"{_percent(figures['net_return'])} for “{name}”" for name, figures in others.items()]
    against = f", against {_listed(returns)}" if returns else ""
    compared = [f"Net return {_percent(summary['net_return'])}{against}."]
    if mean is None:
        made = {0: "No trade was", 1: "One trade was"}.get(trades, f"{trades:,} trades were")
        found = f"{made} made; with fewer than {summary['min_trades']:,} nothing can be said about an edge."
        return "Too few events", " ".join([found, "No ratio is given.", *compared])

    high = summary["mean_r_high"]
    finding = f"{trades:,} trades earned {_signed(mean)} R on average after costs"
    finding += f" (95 % interval {_between(summary, 'mean_r', _signed)}), "
    if low > 0:
        headline, more = _after_trials(evidence)
        finding += f"which lies above zero. {more}"
    elif high < 0:
        headline, finding = "Evidence of a loss", finding + "which lies below zero."
    else:
        headline, finding = "No evidence of an edge", finding + "which includes zero."
    for name, figures in others.items():
        if figures["mean_r"] is None:
            continue
        if low > figures["mean_r_high"]:
            relation = "above that of"
        elif high < figures["mean_r_low"]:
            relation = "below that of"
        else:
            relation = "not distinguishable from that of"
        theirs = f"{_signed(figures['mean_r'])} R, {_between(figures, 'mean_r', _signed)}"
        compared.append(f"The mean is {relation} “{name}” ({theirs}).")
    return headline, " ".join([finding, *compared])


def _after_trials(evidence: Figures) -> tuple[str, str]:
    """Headline and sentence of a record that is positive by itself."""
    deflated, trials = evidence["deflated_sharpe"], evidence["trials"]
    if deflated is None:
        said = f"{trials:,} configurations are on record as tried; without at least two, luck in choosing among them "
        return "A positive record, not yet corrected for the trials", said + "cannot be told from skill."
    held = f"against the best of {trials:,} worthless configurations, the probability of skill is {deflated:.2f}"
    if deflated < CONVINCING:
        return "No evidence of an edge", f"Yet {held}, below {CONVINCING}: this may be the luck of the choice."
    return "Evidence of a positive edge", f"It holds up {held}."


def _verdict(report: ReportData) -> tuple[str, str]:
    others = {name: figures for name, figures in report.summaries.items() if name != POLICY}
    return verdict(report.summaries[POLICY], others, report.evidence)


def words(report: ReportData) -> str:
    """Return the verdict as a line of text."""
    return ". ".join(_verdict(report))


def render(report: ReportData) -> str:
    """Return the report as one HTML page; the same bytes for the same data, in any process.

    Raises
    ------
    KeyError
        If a mapping or a frame lacks an entry that :class:`ReportData` names.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(resources.files("algospace").joinpath("report.html.jinja").read_text("utf-8"))
    synthetic = bool(report.source["is_synthetic"])
    watermark = WATERMARK if synthetic else ""
    headline, sentence = _verdict(report)
    columns = list(dict.fromkeys(column for row in report.validation for column in row))
    return template.render(
        data=report,
        synthetic=synthetic,
        watermark=WATERMARK,
        headline=headline,
        sentence=sentence,
        tiles=_tiles(report.summaries[POLICY], report.evidence),
        names=list(report.summaries),
        record=[(heading, _rows(rows, report.summaries.values())) for heading, rows in RECORD.items()],
        chance=_rows(CHANCE, report.summaries.values()),
        evidence=_evidence_rows(report),
        difference=_difference(report.difference),
        funnel=_funnel_rows(report.funnel),
        refusals=[(reason, f"{count:,}") for reason, count in report.refusals.items()],
        breakdowns=[(heading, _breakdown_rows(rows)) for heading, rows in report.breakdowns.items()],
        calibration=_calibration(report.confidence),
        decisions=_decision_rows(report.decisions.tail(LISTED)),
        validation_columns=columns,
        validation=[[_plain(row.get(column)) for column in columns] for row in report.validation],
        source=[(key.replace("_", " "), _plain(value)) for key, value in report.source.items()]
        + [("bundle", report.bundle_id)],
        ramp=[f"rgb{pictures.NEGATIVE}", f"rgb{pictures.POSITIVE}"],
        pictures={
            "equity": pictures.equity(report.equity, report.bars, watermark),
            "drawdown": pictures.drawdowns(report.equity, report.bars, watermark),
            "decisions": pictures.decisions(report.decisions, report.bars, watermark),
            "regimes": pictures.regimes(report.regimes, report.bars, watermark),
            "reliability": pictures.reliability(report.confidence, watermark),
        },
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", MINUS)


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def _percent(value: float) -> str:
    return f"{100.0 * value:+.2f}\u00a0%".replace("-", MINUS)


def _share(value: float) -> str:
    return f"{100.0 * value:.1f}\u00a0%"


def _money(value: float) -> str:
    return f"{value:+,.0f}".replace("-", MINUS)


def _plain(value: Any) -> str:
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


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def _between(figures: Figures, name: str, text: Callable[[Any], str]) -> str:
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    if low is None and high is None:
        return ""
    return f"{NONE if low is None else text(low)} to {'∞' if high is None else text(high)}"


Line = tuple[str, str, Callable[[Any], str]]  # figure, label, how it is written

RECORD: dict[str, tuple[Line, ...]] = {
    "Result": (
        ("net_return", "Net return", _percent),
        ("gross_return", "Gross return", _percent),
        ("net_pnl", "Net P&L, USD", _money),
        ("costs", "Costs, USD", lambda value: f"{value:,.0f}"),
        ("cost_share", "Costs, of gross gains", _share),
        ("max_drawdown", "Max drawdown, session ends", _share),
    ),
    "A trade": (
        ("trades", "Trades", _plain),
        ("mean_r", "Mean net R", _signed),
        ("expectancy", "P&L a trade, USD", lambda value: f"{value:+,.2f}".replace("-", MINUS)),
        ("win_rate", "Win rate", _share),
        ("profit_factor", "Profit factor", _two),
    ),
    "A year": (
        ("annual_return", "Annual return", _percent),
        ("sharpe", "Sharpe", _two),
        ("sortino", "Sortino", _two),
        ("calmar", "Calmar", _two),
    ),
    "Activity": (
        ("sessions", "Sessions", _plain),
        ("exposure", "Bars with a position", _share),
        ("turnover", "Turnover, times equity a year", lambda value: f"{value:,.1f}"),
    ),
}
CHANCE: tuple[Line, ...] = (
    ("random_mean_r", "Mean R of random traders", _signed),
    ("random_percentile", "Percentile among them", lambda value: f"{value:.1f}"),
    ("random_p_value", "p value", lambda value: f"{value:.3f}"),
    ("mean_r_costs_x0", "Mean R without costs", _signed),
    ("mean_r_costs_x0.5", "at half the costs", _signed),
    ("mean_r_costs_x1", "at the costs", _signed),
    ("mean_r_costs_x2", "at twice the costs", _signed),
)


def _cell(figures: Figures, name: str, text: Callable[[Any], str]) -> Cell:
    value = figures.get(name)
    if value is None:
        return Cell(NONE)
    return Cell(text(value), _between(figures, name, text) if f"{name}_low" in figures else "")


def _rows(lines: Sequence[Line], summaries: Any) -> list[tuple[str, list[Cell]]]:
    shown = [line for line in lines if any(line[0] in figures for figures in summaries)]
    return [(label, [_cell(figures, name, text) for figures in summaries]) for name, label, text in shown]


def _tiles(policy: Figures, evidence: Figures) -> list[tuple[str, Cell]]:
    deflated = evidence["deflated_sharpe"]
    return [
        ("Net return", _cell(policy, "net_return", _percent)),
        ("Mean net R", _cell(policy, "mean_r", _signed)),
        ("Sharpe, annual", _cell(policy, "sharpe", _two)),
        ("Deflated Sharpe", Cell(NONE if deflated is None else _two(deflated), "probability of skill")),
    ]


def _evidence_rows(report: ReportData) -> list[tuple[str, str, str]]:
    """Label, value and what it means, or why there is none."""
    found = report.evidence
    lines: tuple[tuple[str, str, Callable[[Any], str], str], ...] = (
        ("probabilistic_sharpe", "Probabilistic Sharpe", _two, "probability that the true Sharpe ratio is above zero"),
        (
            "deflated_sharpe", "Deflated Sharpe", _two,
            "probability that it is above what the best of so many worthless configurations shows",
        ),
        ("trials", "Configurations tried", _plain, "as metrics/trials.jsonl records them"),
        ("trials_sharpe_deviation", "Spread of their Sharpe", _two, "standard deviation on validation, annual"),
        ("minimum_sessions", "Minimum track length", lambda v: f"{np.ceil(v):,.0f}", "sessions like these until "
         "the first figure is 0.95"),
        ("minimum_backtest_years", "Minimum backtest length", lambda v: f"{v:.1f}", "years below which the best of so "
         "many worthless configurations is expected to show a Sharpe ratio of 1"),
        ("overfitting", "Probability of overfitting", _two, "that the best configuration on one half of the "
         "validation sessions is in the lower half on the other; one half if nothing is better than the rest"),
    )  # fmt: skip
    return [
        (label, NONE, report.why_not.get(name, "")) if found[name] is None else (label, text(found[name]), meaning)
        for name, label, text, meaning in lines
    ]


def _difference(found: Figures | None) -> str:
    if found is None:
        return ""
    low, high = found["mean_return_low"], found["mean_return_high"]
    relation = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
    return (
        f"Session by session the policy’s return differs from that of “{found['name']}” ({found['id'][:12]}) by "
        f"{_bp(found['mean_return'])} basis points on average over {found['sessions']:,} sessions "
        f"(95 % interval {_bp(low)} to {_bp(high)}): {relation}."
    )


def _bp(value: float) -> str:
    return f"{1e4 * value:+.2f}".replace("-", MINUS)


def _funnel_rows(funnel: Mapping[str, int]) -> list[tuple[str, str, str, float]]:
    """Step, count, share of the step before, and the width of its bar in percent (of a logarithmic scale)."""
    shares = [""] + [_share(count / before) if before else NONE for before, count in pairwise(funnel.values())]
    most = np.log1p(max(funnel.values(), default=0)) or 1.0
    return [
        (step, f"{count:,}", share, round(100 * float(np.log1p(count) / most), 1))
        for (step, count), share in zip(funnel.items(), shares, strict=True)
    ]


def _breakdown_rows(rows: Sequence[Figures]) -> list[dict[str, Any]]:
    """Texts of each row, and where its interval lies on a common scale around zero, in percent of the width."""
    known = [row for row in rows if row["mean_r"] is not None]
    reach = max((max(abs(row["mean_r_low"]), abs(row["mean_r_high"])) for row in known), default=0.0) or 1.0

    def at(value: float) -> float:
        return round(50 + 50 * value / reach, 1)

    return [
        {
            "group": row["group"],
            "cells": [f"{row['events']:,}", f"{row['trades']:,}", _money(row["net_pnl"]) if row["trades"] else NONE],
            "win_rate": NONE if row["win_rate"] is None else _share(row["win_rate"]),
            "mean": _cell(row, "mean_r", _signed),
            "span": row in known and (at(row["mean_r_low"]), at(row["mean_r"]), at(row["mean_r_high"])),
            "apart": row in known and (row["mean_r_low"] > 0 or row["mean_r_high"] < 0),
        }
        for row in rows
    ]


def _calibration(found: Reliability) -> str:
    count = int(found.counts.sum())
    if found.ece is None:
        return f"{count:,} candidates are too few for a calibration error, which needs {MIN_EVENTS}."
    relation = "worse than chance explains" if found.ece > (found.floor_high or 0.0) else "within what chance explains"
    return (
        f"Expected calibration error {found.ece:.3f} over {count:,} candidates; a perfect confidence would show "
        f"{found.floor:.3f}, and more than {found.floor_high:.3f} once in twenty times: {relation}."
    )


def _decision_rows(decisions: pd.DataFrame) -> list[list[str]]:
    closes = pd.DatetimeIndex(pd.to_datetime(decisions["close_utc"], utc=True)).strftime("%Y-%m-%d %H:%M")
    return [
        [
            close,
            {1: "long", -1: "short"}.get(int(row.direction), "pass"),
            f"{row.price:,.8g}",
            NONE if np.isnan(row.confidence) else f"{row.confidence:.3f}",
            NONE if np.isnan(row.net_r) else _signed(row.net_r),
            "accepted" if row.accepted else f"refused: {row.reasons}",
        ]
        for close, row in zip(closes, decisions.itertuples(), strict=True)
    ]
