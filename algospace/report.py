"""The evaluation report: one self-contained HTML page, verdict first.

:func:`render` turns a :class:`ReportData` into HTML that needs no network, no script and no other file, and
is the same bytes for the same data. It reads what has happened, test bars included: nothing here may feed a
decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from algospace import pictures
from algospace.calibration import Reliability
from algospace.wording import (
    CHANCE,
    RECORD,
    VALIDATION,
    Figures,
    between,
    breakdown_rows,
    calibration,
    decision_rows,
    difference,
    evidence_rows,
    funnel_rows,
    listed,
    percent,
    plain,
    record_rows,
    signed,
    tiles,
)

POLICY = "policy"  # the summary that is judged; the others are what it is held against
WATERMARK = "SYNTHETIC DATA"
LISTED = 40  # decisions in the table
CONVINCING = 0.95  # deflated Sharpe ratio from which on a positive record counts as evidence


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
    validation : mapping of name to figures
        The columns of the validation table, with the figures of :data:`algospace.wording.VALIDATION`; none where the
        bars are not the project's own.
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
    examined: str
    confidence: Reliability
    equity: Mapping[str, tuple[NDArray[Any], NDArray[np.float64]]]
    decisions: pd.DataFrame
    bars: pd.DataFrame
    regimes: pd.DataFrame
    validation: Mapping[str, Figures]
    limitations: Sequence[str]
    test_uses: str


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
    returns = [f"{percent(figures['net_return'])} for “{name}”" for name, figures in others.items()]
    against = f", against {listed(returns)}" if returns else ""
    compared = [f"Net return {percent(summary['net_return'])}{against}."]
    if mean is None:
        made = {0: "No trade was", 1: "One trade was"}.get(trades, f"{trades:,} trades were")
        found = f"{made} made; with fewer than {summary['min_trades']:,} nothing can be said about an edge."
        if trades >= summary["min_trades"]:
            found = f"{made} made in one session; what another would bring cannot be said."
        return "Too few events", " ".join([found, "No ratio is given.", *compared])

    high = summary["mean_r_high"]
    finding = f"{trades:,} trades earned {signed(mean)} R on average after costs"
    finding += f" (95 % interval {between(summary, 'mean_r', signed)}), "
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
        theirs = f"{signed(figures['mean_r'])} R, {between(figures, 'mean_r', signed)}"
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


def headline(report: ReportData) -> str:
    """Return the verdict in a few words."""
    return _verdict(report)[0]


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
    title, sentence = _verdict(report)
    return template.render(
        data=report,
        synthetic=synthetic,
        watermark=WATERMARK,
        headline=title,
        sentence=sentence,
        tiles=tiles(report.summaries[POLICY], report.evidence),
        names=list(report.summaries),
        record=[(heading, record_rows(rows, report.summaries.values())) for heading, rows in RECORD.items()],
        chance=record_rows(CHANCE, report.summaries.values()),
        evidence=evidence_rows(report.evidence, report.why_not),
        difference=difference(report.difference),
        funnel=funnel_rows(report.funnel),
        refusals=[(reason, f"{count:,}") for reason, count in report.refusals.items()],
        breakdowns=[(heading, breakdown_rows(rows)) for heading, rows in report.breakdowns.items()],
        calibration=calibration(report.confidence),
        decisions=decision_rows(report.decisions.tail(LISTED)),
        validation=record_rows(VALIDATION, report.validation.values()),
        source=[(key.replace("_", " "), plain(value)) for key, value in report.source.items()]
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
