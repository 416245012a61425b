"""The evaluation report: one self-contained HTML page, verdict first.

:func:`render` turns a :class:`ReportData` into HTML that needs no network, no script and no other file, and
is the same bytes for the same data. It reads what has happened, test bars included: nothing here may feed a
decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from algospace import pictures

Figures = Mapping[str, Any]

POLICY = "policy"  # the summary that is judged; the others are baselines
WATERMARK = "SYNTHETIC DATA"
LISTED = 40  # decisions in the table
NONE = "–"


@dataclass(frozen=True)
class ReportData:
    """All that the report shows. Times are UTC: datetimes, or integer nanoseconds since 1970.

    Attributes
    ----------
    title : str
    source : mapping
        ``kind``, ``symbol``, ``files``, ``first``, ``last``, ``is_synthetic``; other entries are shown too.
    bundle_id : str
        Hash of the bundle that was evaluated.
    summaries : mapping of name to :func:`algospace.performance.summary`
        ``policy`` and the baselines, in the order of the columns.
    funnel : mapping of step to count
        From bars to trades, in order.
    refusals : mapping of reason to count
    equity : mapping of name to (times, equity)
        Two arrays of one length, the starting capital first; ``policy`` is the first curve.
    decisions : DataFrame
        ``close_utc``, ``direction`` (1 long, -1 short, 0 pass), ``accepted`` (bool), ``reasons`` (str),
        ``price``, ``net_r`` (NaN without a trade), ``confidence``; in time order.
    bars : DataFrame
        ``close_utc`` and ``close`` of the test period; in time order.
    regimes : DataFrame
        ``close_utc`` and ``regime_0`` .. ``regime_7``; in time order. A bar shows the last vector known then.
    validation : sequence of rows
        Mappings of column to value.
    limitations : sequence of str
    test_uses : str
        How many configurations were tried, and how many bundles these test bars have judged.
    """

    title: str
    source: Mapping[str, Any]
    bundle_id: str
    summaries: Mapping[str, Figures]
    funnel: Mapping[str, int]
    refusals: Mapping[str, int]
    equity: Mapping[str, tuple[NDArray[Any], NDArray[np.float64]]]
    decisions: pd.DataFrame
    bars: pd.DataFrame
    regimes: pd.DataFrame
    validation: Sequence[Mapping[str, Any]]
    limitations: Sequence[str]
    test_uses: str


def verdict(summary: Figures, baselines: Mapping[str, Figures]) -> tuple[str, str]:
    """Say in plain words what a track record is evidence of: (headline, sentences).

    The mean net R decides, by its 0.95 interval: one that includes zero, or touches it, is no evidence. Where
    :func:`algospace.performance.summary` gives no mean, the trades are too few to say anything.

    Parameters
    ----------
    summary : mapping
        Of the policy, as :func:`algospace.performance.summary` returns it.
    baselines : mapping of name to summary
    """
    trades, mean, low = summary["trades"], summary["mean_r"], summary["mean_r_low"]
    returns = [f"{_percent(figures['net_return'])} for “{name}”" for name, figures in baselines.items()]
    against = f", against {' and '.join(returns)}" if returns else ""
    compared = [f"Net return {_percent(summary['net_return'])}{against}."]
    if mean is None:
        made = {0: "No trade was", 1: "One trade was"}.get(trades, f"{trades:,} trades were")
        found = f"{made} made; with fewer than {summary['min_trades']:,} nothing can be said about an edge."
        return "Too few events", " ".join([found, "No ratio is given.", *compared])

    high = summary["mean_r_high"]
    finding = f"{trades:,} trades earned {_signed(mean)} R on average after costs"
    finding += f" (95 % interval {_interval(summary)}), "
    if low > 0:
        headline, finding = "Evidence of a positive edge", finding + "which lies above zero."
    elif high < 0:
        headline, finding = "Evidence of a loss", finding + "which lies below zero."
    else:
        headline, finding = "No evidence of an edge", finding + "which includes zero."
    for name, figures in baselines.items():
        if figures["mean_r"] is None:
            continue
        if low > figures["mean_r_high"]:
            relation = "above that of"
        elif high < figures["mean_r_low"]:
            relation = "below that of"
        else:
            relation = "not distinguishable from that of"
        compared.append(f"The mean is {relation} “{name}” ({_signed(figures['mean_r'])} R, {_interval(figures)}).")
    return headline, " ".join([finding, *compared])


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
    policy = report.summaries[POLICY]
    baselines = {name: figures for name, figures in report.summaries.items() if name != POLICY}
    headline, sentence = verdict(policy, baselines)
    columns = list(dict.fromkeys(column for row in report.validation for column in row))
    return template.render(
        data=report,
        synthetic=synthetic,
        watermark=WATERMARK,
        headline=headline,
        sentence=sentence,
        names=list(report.summaries),
        figures=_figure_rows(list(report.summaries.values())),
        funnel=_funnel_rows(report.funnel),
        refusals=[(reason, f"{count:,}") for reason, count in report.refusals.items()],
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
        },
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{100.0 * value:+.2f}\u00a0%".replace("-", "−")


def _share(value: float) -> str:
    return f"{100.0 * value:.2f}\u00a0%"


def _plain(value: Any) -> str:
    if value is None or value != value:  # NaN
        return NONE
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float | np.floating):
        return f"{value:,.4g}".replace("-", "−")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or NONE
    return str(value)


def _interval(figures: Figures) -> str:
    return f"{_signed(figures['mean_r_low'])} to {_signed(figures['mean_r_high'])}"


FORMATS: dict[
    str, tuple[str, Callable[[Any], str]]
] = {  # the order of the rows; a figure that is not listed follows in its own order
    "trades": ("Trades", _plain),
    "net_return": ("Net return", _percent),
    "net_pnl": ("Net P&L", lambda value: f"{value:+,.0f}".replace("-", "−")),
    "mean_r": ("Mean net R", _signed),
    "mean_r_interval": ("95 % interval", str),
    "win_rate": ("Win rate", _share),
    "profit_factor": ("Profit factor", _plain),
    "expectancy": ("P&L a trade", lambda value: f"{value:+,.2f}".replace("-", "−")),
    "annual_return": ("Annual return", _percent),
    "sharpe": ("Sharpe", lambda value: f"{value:.2f}".replace("-", "−")),
    "sortino": ("Sortino", lambda value: f"{value:.2f}".replace("-", "−")),
    "calmar": ("Calmar", lambda value: f"{value:.2f}".replace("-", "−")),
    "max_drawdown": ("Max drawdown", _share),
    "sessions": ("Sessions", _plain),
}
HIDDEN = {"min_trades", "mean_r_low", "mean_r_high"}


def _figure_rows(summaries: Sequence[Figures]) -> list[list[str]]:
    shown = [
        {**figures, "mean_r_interval": None if figures["mean_r"] is None else _interval(figures)}
        for figures in summaries
    ]
    extra = [key for key in dict.fromkeys(key for figures in shown for key in figures) if key not in FORMATS]
    rows = []
    for key in [*FORMATS, *(key for key in extra if key not in HIDDEN)]:
        label, text = FORMATS.get(key, (key.replace("_", " ").capitalize(), _plain))
        values = [figures.get(key) for figures in shown]
        rows.append([label, *(NONE if value is None else text(value) for value in values)])
    return rows


def _funnel_rows(funnel: Mapping[str, int]) -> list[list[str]]:
    shares = [""] + [_share(count / before) if before else NONE for before, count in pairwise(funnel.values())]
    return [[step, f"{count:,}", share] for (step, count), share in zip(funnel.items(), shares, strict=True)]


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
