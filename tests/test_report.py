"""The page: same bytes, self-contained, accessible, and never more confident than the evidence."""

import dataclasses
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import style

from algospace import pictures, report, svg, track_record, wording
from algospace.calibration import reliability

ROOT = Path(__file__).resolve().parent.parent
START = pd.Timestamp("2022-10-03 14:30", tz="UTC")
VOID = {"meta", "link", "br", "hr", "img", "input"}


def made_up(sessions=20, trades=40, synthetic=True, title="A made-up market", seed=0):
    """Build a report of random numbers: 78 bars a session, three decisions for every trade."""
    generator = np.random.default_rng(seed)
    times = [START + pd.Timedelta(days=d, minutes=5 * k) for d in range(sessions) for k in range(78)]
    bars = pd.DataFrame({"close_utc": pd.to_datetime(times, utc=True)})
    bars["close"] = 4800 + generator.normal(0, 2, len(bars)).cumsum()
    chosen = np.sort(generator.permutation(len(bars))[: 3 * trades])
    accepted = np.arange(3 * trades) % 3 == 0
    net_r = np.where(accepted, generator.normal(0, 1, 3 * trades), np.nan)
    decisions = pd.DataFrame(
        {
            "close_utc": bars["close_utc"].iloc[chosen].reset_index(drop=True),
            "direction": np.where(np.arange(3 * trades) % 2, 1, -1),
            "accepted": accepted,
            "reasons": np.where(accepted, "", "daily trade limit"),
            "price": bars["close"].to_numpy()[chosen],
            "net_r": net_r,
            "confidence": np.where(accepted, 0.5, np.nan),
        }
    )
    regimes = pd.DataFrame(generator.normal(size=(len(bars), 8)), columns=[f"regime_{k}" for k in range(8)]).assign(
        close_utc=bars["close_utc"]
    )
    r = net_r[accepted]
    equity = np.concatenate([[50_000.0], 50_000 + 100 * r.cumsum()])
    ends = pd.DatetimeIndex([START, *decisions["close_utc"][accepted]])
    settings = {"periods_per_year": 252.0, "min_trades": 30, "draws": 200, "seed": 42}
    flat = np.full(len(equity), 50_000.0)
    none = np.array([])
    policy = track_record.summary(equity, r, 100 * r, **settings)
    known = policy["mean_r"] is not None
    probability = generator.uniform(0.3, 0.6, 600 if bars.size else 0)
    group = {"events": 2 * trades, "trades": trades, "net_pnl": float(100 * r.sum()), "win_rate": policy["win_rate"]}
    group |= {name: policy[name] for name in ("mean_r", "mean_r_low", "mean_r_high")}
    blank = {"events": 3, "trades": 0, "net_pnl": 0.0} | dict.fromkeys(
        ("win_rate", "mean_r", "mean_r_low", "mean_r_high")
    )
    return report.ReportData(
        title=title,
        bars_name="test bars",
        source={
            "kind": "synthetic" if synthetic else "csv",
            "symbol": "MES",
            "files": [],
            "first": "2022-10-03",
            "last": "2022-10-22",
            "is_synthetic": synthetic,
        },
        bundle_id="ab" * 32,
        summaries={
            "policy": policy,
            "flat": track_record.summary(flat, none, none, **settings),
        },
        evidence={
            "trials": 12,
            "trials_sharpe_deviation": 0.8,
            "minimum_backtest_years": 2.81,
            "overfitting": None,
            "probabilistic_sharpe": 0.81 if known else None,
            "deflated_sharpe": 0.34 if known else None,
            "minimum_sessions": 812.3 if known else None,
        },
        why_not={"overfitting": "2 configurations have daily returns, 10 are needed"},
        difference=None,
        funnel={"bars": len(bars), "synergies": 3 * trades, "trades": trades},
        refusals={"daily trade limit": 2 * trades} if trades else {},
        breakdowns={"Hour, New York": [{"group": "10:00"} | group, {"group": "11:00"} | blank]},
        examined="Each candidate, a bar with a signal,",
        confidence=reliability(probability, generator.random(len(probability)) < probability, seed),
        equity={"policy": (ends, equity), "flat": (ends, flat)},
        decisions=decisions,
        bars=bars,
        regimes=regimes.iloc[100:],
        validation={"trained, reporting half": {"mean_r": 0.0123, "mean_r_low": -0.1, "mean_r_high": 0.2}},
        limitations=["One symbol."],
        test_uses="1 configuration was tried; these bars have judged 1 bundle.",
    )


class Page(HTMLParser):
    """Tags with their attributes, the text, and the tags that were left open or closed without opening."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.open, self.broken = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html():
    return report.render(made_up())


CASES = {
    "usual": {},
    "real": {"synthetic": False},
    "few trades": {"trades": 5},
    "no trades": {"trades": 0},
    "one session": {"sessions": 1, "trades": 2},
    "no bars": {"sessions": 0, "trades": 0},
}


@pytest.mark.parametrize("case", CASES)
def test_page_is_well_formed_and_small(case):
    html = report.render(made_up(**CASES[case]))
    page = Page(html)
    assert not page.broken
    assert not page.open
    assert not re.search(r"\b(nan|inf|None|NaT)\b", page.text)
    assert not re.search(r"[-−]0\.00\s%", page.text)
    assert len(html.encode()) < 1_500_000
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_page_loads_nothing(html):
    assert "http" not in html.lower()
    assert "@import" not in html
    assert "<script" not in html
    targets = [
        attributes[name]
        for _, attributes in Page(html).tags
        for name in ("src", "href", "xlink:href", "srcset", "action")
        if name in attributes
    ]
    assert targets  # the heat map and the markers at least
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", html))


def test_references_inside_the_page_exist(html):
    known = set(re.findall(r'\bid="([^"]+)"', html))
    used = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used
    assert used <= known


def test_every_picture_says_what_is_seen(html):
    page = Page(html)
    seen = [attributes for tag, attributes in page.tags if tag == "svg" and "aria-hidden" not in attributes]
    labels = [attributes["aria-label"] for attributes in seen]
    assert len(labels) == 5
    assert all(attributes["role"] == "img" for attributes in seen)
    assert "policy" in labels[0]
    assert "%" in labels[1]
    assert "120 decisions: 40 accepted (20 long, 20 short" in labels[3]
    assert "600 candidates by" in labels[2]
    assert "100 of 1,560 bars have no regime vector" in labels[4]


def test_pictures_that_look_alike_share_no_identifier():
    identifiers = []
    for name in ("one", "other"):
        with svg.drawing(3.0) as figure:
            figure.subplots().plot([0, 1])
            drawn = svg.picture(figure, name, "caption", [], "").svg
        identifiers.append(set(re.findall(r'\bid="([^"]+)"', drawn)))
    assert all(identifiers)
    assert not identifiers[0] & identifiers[1]


def test_colours_follow_the_page(html):
    assert "prefers-color-scheme: dark" in html
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    drawings = re.sub(r'href="data:[^"]*"', "", drawings)
    assert "var(--series-0)" in drawings
    assert not re.search(r"(fill|stroke): #[0-9a-f]{6}", drawings)
    declared = set(re.findall(r"(--[a-z0-9-]+):", html))
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", html)) <= declared


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_are_marked(synthetic):
    page = Page(report.render(made_up(synthetic=synthetic)))
    marks = page.text.count(report.WATERMARK)
    assert marks == (6 if synthetic else 0)  # the ribbon and five pictures
    assert ("says nothing about a real market" in page.text) == synthetic


def test_verdict_comes_first(html):
    text = Page(html).text
    assert text.index("No evidence of an edge") < text.index("After costs unless")
    assert text.index("No evidence of an edge") < 400


def test_what_others_named_is_escaped():
    evil = "<script>alert('x')</script>"
    data = made_up(title=evil)
    times, equity = data.equity["flat"]
    decisions = data.decisions.assign(reasons=evil)
    data = dataclasses.replace(
        data,
        summaries={**data.summaries, evil: data.summaries["flat"]},
        equity={**data.equity, evil: (times, equity)},
        source={**data.source, "files": [evil], "symbol": evil},
        refusals={evil: 1},
        decisions=decisions,
        limitations=[evil],
        validation={evil: {}},
        test_uses=evil,
        bars_name=evil,
        why_not={"overfitting": evil},
        breakdowns={evil: [data.breakdowns["Hour, New York"][0] | {"group": evil}]},
        difference={
            "name": evil,
            "id": evil,
            "sessions": 3,
            "mean_return": 0.0,
            "mean_return_low": 0.0,
            "mean_return_high": 0.0,
        },
    )
    html = report.render(data)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 15


def test_same_bytes_in_other_processes(html):
    command = (
        "import sys, test_report; from algospace import report;"
        "sys.stdout.buffer.write(report.render(test_report.made_up()).encode())"
    )
    for hash_seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        environment = os.environ | {
            "PYTHONHASHSEED": hash_seed,
            "TZ": zone,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        other = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, check=True)
        assert other.stdout == html.encode()


def test_bytes_do_not_depend_on_the_users_style(html):
    with style.context({"font.size": 30, "svg.fonttype": "path", "axes.ymargin": 0.4}):
        assert report.render(made_up()) == html


def figures(trades=100, mean=None, low=None, high=None, net_return=0.0):
    return {
        "trades": trades,
        "min_trades": 30,
        "mean_r": mean,
        "mean_r_low": low,
        "mean_r_high": high,
        "net_return": net_return,
    }


PROVEN = {"trials": 12, "deflated_sharpe": 0.97}


@pytest.mark.parametrize(
    ("summary", "headline", "words"),
    [
        (figures(0), "Too few events", "No trade was made; with fewer than 30 "),
        (figures(1), "Too few events", "One trade was made"),
        (figures(29, net_return=0.5), "Too few events", "29 trades were made; with fewer than 30 "),
        (figures(40) | {"mean_r": None}, "Too few events", "40 trades were made in one session; what another would"),
        (figures(100, 0.2, -0.1, 0.5), "No evidence of an edge", "100 trades earned +0.200 R"),
        (figures(100, 0.2, 0.0, 0.4), "No evidence of an edge", "+0.000 to +0.400), which includes zero"),
        (figures(100, -0.2, -0.4, 0.0), "No evidence of an edge", "includes zero"),
        (figures(1200, 0.2, 0.1, 0.3), "Evidence of a positive edge", "1,200 trades earned +0.200 R"),
        (figures(100, -0.2, -0.3, -0.1), "Evidence of a loss", "−0.300 to −0.100), which lies below zero"),
    ],
)
def test_verdict(summary, headline, words):
    found = report.verdict(summary, {}, PROVEN)
    assert found[0] == headline
    assert words in found[1]


@pytest.mark.parametrize(
    ("evidence", "headline", "words"),
    [
        ({"trials": 12, "deflated_sharpe": 0.95}, "Evidence of a positive edge", "the probability of skill is 0.95"),
        ({"trials": 12, "deflated_sharpe": 0.94}, "No evidence of an edge", "may be the luck of the choice"),
        ({"trials": 1, "deflated_sharpe": None}, "A positive record, not yet corrected", "cannot be told from skill"),
    ],
)
def test_a_positive_record_is_held_against_the_number_of_trials(evidence, headline, words):
    found = report.verdict(figures(100, 0.2, 0.1, 0.3), {}, evidence)
    assert found[0].startswith(headline)
    assert words in found[1]
    assert report.verdict(figures(100, -0.2, -0.3, -0.1), {}, evidence)[0] == "Evidence of a loss"


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.0001, 0.0003, "better"), (-0.0003, -0.0001, "worse"), (-0.0001, 0.0003, "not dist")]
)
def test_two_policies_are_compared_session_by_session(low, high, words):
    found = {"name": "other policy", "id": "cd" * 32, "sessions": 20, "mean_return": 0.0002}
    data = dataclasses.replace(made_up(), difference=found | {"mean_return_low": low, "mean_return_high": high})
    text = Page(report.render(data)).text
    assert "that of “other policy” (cdcdcdcdcdcd) by +2.00 basis points" in text
    assert f"+3.00): {words}" in text or f"−1.00): {words}" in text


def test_few_sessions_do_not_tell_two_policies_apart():
    found = {"name": "other policy", "id": "cd" * 32, "sessions": 1, "mean_return": 0.01}
    data = dataclasses.replace(made_up(), difference=found | {"mean_return_low": None, "mean_return_high": None})
    text = Page(report.render(data)).text
    assert "by +100.00 basis points on average over one session: too few to say which is better." in text


def test_intervals_stand_under_their_figures(html):
    text = Page(html).text
    policy = made_up().summaries["policy"]
    for name, label in (("sharpe", "Sharpe"), ("profit_factor", "Profit factor")):
        value, low, high = (f"{policy[name + end]:.2f}".replace("-", "−") for end in ("", "_low", "_high"))
        assert f"{label} {value} {low} to {high} –" in text


def test_a_figure_that_is_missing_says_why(html):
    assert "Probability of overfitting – 2 configurations have daily returns, 10 are needed" in Page(html).text


def test_groups_without_enough_trades_have_no_ratio(html):
    text = Page(html).text
    assert "11:00 3 0 – – –" in text
    assert html.count('class="span"><div') == 1


def test_calibration_is_judged_by_what_chance_explains():
    probability = np.random.default_rng(1).uniform(0.2, 0.8, 2000)
    happened = np.random.default_rng(2).random(2000)
    fair = wording.calibration(reliability(probability, happened < probability, 0))
    assert fair.endswith("within what chance explains.")
    off = wording.calibration(reliability(probability, happened < probability - 0.2, 0))
    assert off.endswith("worse than chance explains, unless it is that trades overlap.")
    assert "too few" in wording.calibration(reliability(probability[:400], happened[:400] < 0.5, 0))


def test_verdict_of_too_few_events_names_no_mean():
    _, sentence = report.verdict(figures(12, net_return=0.03), {"flat": figures(0)}, PROVEN)
    assert " R " not in sentence
    assert "Net return +3.00\u00a0%, against +0.00\u00a0% for “flat”." in sentence


@pytest.mark.parametrize(
    ("baseline", "relation"),
    [
        (figures(200, 0.0, -0.05, 0.05), "above that of “random”"),
        (figures(200, 0.15, 0.05, 0.25), "not distinguishable from that of “random”"),
        (figures(200, 0.9, 0.8, 1.0), "below that of “random”"),
    ],
)
def test_verdict_compares_with_baselines_by_their_intervals(baseline, relation):
    _, sentence = report.verdict(figures(100, 0.2, 0.1, 0.3), {"flat": figures(0), "random": baseline}, PROVEN)
    assert relation in sentence
    assert "of “flat”" not in sentence  # nothing to compare with: it made no trade


def test_thinned_lines_keep_ends_and_extremes():
    values = np.random.default_rng(0).normal(size=50_000)
    values[31_000], values[31_001] = 50.0, -50.0
    kept = pictures.thinned(values, 2000)
    assert len(kept) <= 2000
    assert {0, 31_000, 31_001, 49_999} <= set(kept)
    assert (np.diff(kept) > 0).all()
    assert list(pictures.thinned(values[:7], 7)) == list(range(7))


def test_regimes_are_drawn_as_known_at_the_close():
    """A vector stamped after a bar's close must not show on that bar; one stamped at the close must."""
    bars = pd.DataFrame({"close_utc": [10, 20, 30], "close": [1.0, 1.0, 1.0]})
    late = pd.DataFrame({"close_utc": [21], "regime_0": [1.0]})
    caption = pictures.regimes(late, bars, "").caption
    assert "2 of 3 bars have no regime vector" in caption
    caption = pictures.regimes(late.assign(close_utc=20), bars, "").caption
    assert "1 of 3 bars have no regime vector" in caption


def test_dates_of_integer_and_datetime_stamps_agree():
    times = pd.to_datetime(["2022-10-03 23:59:59", "2022-10-04 00:00:00"], utc=True)
    nanos = pictures.nanoseconds(times)
    assert (pictures.nanoseconds(nanos) == nanos).all()
    assert [pictures.day_of(time) for time in nanos] == ["2022-10-03", "2022-10-04"]


def test_a_long_test_period_stays_small():
    data = made_up(sessions=500, trades=3000)
    assert len(report.render(data).encode()) < 1_500_000
