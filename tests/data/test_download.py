"""The real yfinance and the real download on an answer in Yahoo's format; only the HTTP client below them is not."""

import json
import sys
from pathlib import Path

import curl_cffi
import pandas as pd
import pytest
import yfinance

from algospace import cli
from algospace.data import sources
from algospace.data.contracts import resolve
from algospace.data.download import download, finished, keep

ANSWER = Path(__file__).parent / "answers" / "yahoo_chart_spy_5m.json"
WHOLE, HALF = 77, 42  # bars of the day with a null row and of the half day


class Yahoo:
    """What the service says to the chart's address; the addresses around it have nothing to say."""

    def __init__(self):
        self.chart = json.loads(ANSWER.read_text())
        self.refusal = None  # status and description instead of the 5-minute bars
        self.failure = None
        self.unknown = False  # whether every address says 404, as for a symbol that does not exist
        self.asked = []  # parameters of each chart

    @property
    def result(self):
        return self.chart["chart"]["result"][0]

    def later(self, moment, last=None):
        """Move the answer's clock; ``last``: start of the last bar that it has by then."""
        self.result["meta"]["regularMarketTime"] = int(pd.Timestamp(moment).timestamp())
        if last:
            known = sum(stamp <= pd.Timestamp(last).timestamp() for stamp in self.result["timestamp"])
            self.result["timestamp"] = self.result["timestamp"][:known]
            for values in self.quote.values():
                del values[known:]

    @property
    def quote(self):
        return self.result["indicators"]["quote"][0]

    def request(self, session, method, url, params=None, **_):
        if self.failure:
            raise self.failure
        response = curl_cffi.requests.Response()
        response.url = url
        if "/v8/finance/chart/" in url:
            self.asked.append(params)
            body = self.chart
            if self.refusal and params["interval"] == "5m":
                response.status_code, description = self.refusal
                body = {"chart": {"result": None, "error": {"code": "Not Found", "description": description}}}
            response.content = json.dumps(body).encode()
        else:
            response.content = b"crumb" if url.endswith("getcrumb") else b"<html></html>"
        if self.unknown:
            response.status_code, response.reason = 404, "Not Found"
        response.ok = response.status_code < 400
        return response


@pytest.fixture
def yahoo(monkeypatch):
    """Stand below yfinance: a session of its own, no cookie or time zone kept on the disk."""
    service = Yahoo()
    monkeypatch.setattr(curl_cffi.requests.Session, "request", lambda *args, **kw: service.request(*args, **kw))
    monkeypatch.setattr(yfinance.base, "_tz_info_fetch_ctr", 0)
    monkeypatch.setattr(yfinance.data.SingletonMeta, "_instances", {})
    monkeypatch.setattr(yfinance.cache._TzCacheManager, "_tz_cache", yfinance.cache._TzCacheDummy())
    monkeypatch.setattr(yfinance.cache._CookieCacheManager, "_Cookie_cache", yfinance.cache._CookieCacheDummy())
    return service


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, argv, *words):
    assert cli.main(["download", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_whole_bars_of_the_sessions_that_have_ended(yahoo):
    bars = download("SPY", 59)
    assert list(bars) == ["datetime", "open", "high", "low", "close", "volume"]
    assert str(bars["datetime"].dt.tz) == "UTC"
    assert bars["datetime"].dt.strftime("%d").value_counts().to_dict() == {"26": WHOLE, "28": HALF}
    assert bars["datetime"].iloc[[0, -1]].astype(str).tolist() == [
        "2025-11-26 14:30:00+00:00", "2025-11-28 17:55:00+00:00",
    ]  # fmt: skip
    assert pd.Timestamp("2025-11-26 19:15", tz="UTC") not in set(bars["datetime"])  # the null row
    asked = yahoo.asked[-1]
    assert (asked["range"], asked["interval"], asked["includePrePost"]) == ("59d", "5m", False)


def test_the_numbers_are_the_answers_without_its_single_precision(yahoo):
    bars = download("SPY", 59)
    served = dict(zip(yahoo.result["timestamp"], zip(*yahoo.quote.values(), strict=True), strict=True))
    for row in bars.itertuples():
        close, volume, high, low, open_ = served[int(row.datetime.timestamp())]
        assert (row.open, row.high, row.low, row.close) == tuple(round(p, 2) for p in (open_, high, low, close))
        assert row.volume == volume


@pytest.mark.parametrize(
    ("clock", "days"),
    [
        ("2025-12-01T15:37:12Z", 2),
        ("2025-12-01T20:59:59Z", 2),
        ("2025-12-01T21:00:00Z", 3),
        ("2025-11-28T18:00:00Z", 2),
        ("2025-11-28T17:59:59Z", 1),
    ],
)
def test_a_session_counts_from_its_end_on_the_answers_own_clock(yahoo, clock, days):
    yahoo.later(clock)
    assert download("SPY", 5)["datetime"].dt.date.nunique() == days


def test_the_answer_alone_decides():
    start = pd.date_range("2025-11-26 14:30", periods=3, freq="5min", tz="UTC")
    price = [1.0, 2.0, float("nan")]
    answer = pd.DataFrame({"Open": price, "High": price, "Low": price, "Close": price, "Volume": [5, 6, 0]}, start)
    ends = pd.Series([start[2], start[2] + pd.Timedelta(minutes=5)])
    assert finished(answer, ends, start[1]).empty
    assert finished(answer, ends, start[2])["volume"].tolist() == [5, 6]
    assert finished(answer, ends, ends[1])["volume"].tolist() == [5, 6]


def test_the_file_is_read_with_no_setting_but_its_symbol(yahoo, workspace, data_params, capsys):
    assert cli.main(["download"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "data/raw/SPY_5min.csv: 119 bars, 119 of them new; dates: 2; 2025-11-26T14:30:00Z to 2025-11-28T17:55:00Z",
        "dvc add data/raw/SPY_5min.csv",
        "dvc exp run marl -S data.source=csv -S 'data.files=[SPY_5min.csv]' -S data.symbol=SPY",
        "if prepare finds too few days for its splits: download again within 60 days, the file grows",
    ]
    params = data_params(source="csv", files=["SPY_5min.csv"], symbol="SPY")
    loaded = sources.load(params, resolve("SPY", None), Path("data/raw"))
    real = loaded.bars[~loaded.bars["is_synthetic"]].reset_index(drop=True)
    bars = download("SPY", 59)
    assert real["start_utc"].tolist() == bars["datetime"].tolist()
    assert real["close"].tolist() == bars["close"].tolist()
    assert real["volume"].tolist() == bars["volume"].tolist()
    assert loaded.faults == ()
    found, _ = sources.resolve(data_params(source="auto"), Path("data/raw"))
    assert (found.symbol, found.files) == ("SPY", ["SPY_5min.csv"])


def test_a_later_download_adds_and_changes_nothing(yahoo, workspace, capsys):
    yahoo.later("2025-11-26T21:00:00Z")
    path = workspace / "spy.csv"
    assert cli.main(["download", "--out", "spy.csv"]) == 0
    before = path.read_bytes()
    yahoo.later("2025-12-01T15:37:12Z")
    for values in (yahoo.result["timestamp"], *yahoo.quote.values()):
        del values[:10]  # the service no longer has the first bars
    assert cli.main(["download", "--out", "spy.csv"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "spy.csv: 77 bars, 77 of them new; dates: 1; 2025-11-26T14:30:00Z to 2025-11-26T20:55:00Z",
        "spy.csv: 119 bars, 42 of them new; dates: 2; 2025-11-26T14:30:00Z to 2025-11-28T17:55:00Z",
    ]
    assert path.read_bytes().startswith(before)
    after = path.read_bytes()
    assert cli.main(["download", "--out", "spy.csv"]) == 0
    assert path.read_bytes() == after
    assert [entry.name for entry in workspace.iterdir()] == ["spy.csv"]


def test_an_earlier_or_a_missing_bar_finds_its_place(yahoo, tmp_path):
    bars = download("SPY", 59)
    keep(tmp_path / "all.csv", bars)
    keep(tmp_path / "parts.csv", bars[40:].drop(60))
    assert keep(tmp_path / "parts.csv", bars).new == 41
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()


@pytest.mark.parametrize("column", ["open", "volume"])
def test_a_bar_that_differs_is_refused_with_its_line(yahoo, workspace, capsys, column):
    assert cli.main(["download", "--out", "spy.csv"]) == 0
    capsys.readouterr()
    before = (workspace / "spy.csv").read_bytes()
    yahoo.quote[column][3] += 1
    refused(capsys, ["--out", "spy.csv"], "spy.csv:5: expected the bar that was downloaded before", "found 2025-11-26T")
    assert (workspace / "spy.csv").read_bytes() == before


HEADER = "datetime,open,high,low,close,volume\n"
ROW = "2025-11-26T14:30:00Z,1.0,1.0,1.0,1.0,5\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "spy.csv:1: expected the header of an earlier download"),
        ("Date,Open\n", "spy.csv:1: expected the header of an earlier download"),
        (HEADER + ROW + "2025-11-26T14:35:00Z,1.0,1.0\n", "spy.csv:3: expected a later bar as a download writes it"),
        (HEADER + ROW.removesuffix("\n"), "spy.csv:2: expected a whole line"),
        (HEADER + ROW + ROW, "spy.csv:3: expected a later bar"),
        (HEADER + ROW.replace("\n", "\r\n"), "spy.csv:2: expected a later bar"),
        (HEADER + "\n" + ROW, "spy.csv:2: expected a later bar"),
        ("\xff", "spy.csv: expected the CSV of an earlier download, found UnicodeDecodeError"),
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(yahoo, workspace, capsys, content, words):
    (workspace / "spy.csv").write_bytes(content.encode("latin-1"))
    refused(capsys, ["--out", "spy.csv"], words)
    assert (workspace / "spy.csv").read_bytes() == content.encode("latin-1")


def test_bars_that_dvc_tracks_are_not_begun_anew(yahoo, workspace, capsys):
    (workspace / "spy.csv.dvc").touch()
    refused(capsys, ["--out", "spy.csv"], "spy.csv: expected the bars that spy.csv.dvc tracks", "dvc pull spy.csv.dvc")
    assert not (workspace / "spy.csv").exists()


def test_a_place_that_cannot_be_written(yahoo, workspace, capsys):
    (workspace / "a").touch()
    refused(capsys, ["--out", "a/spy.csv"], "a/spy.csv: expected a place to write the bars to, found ")


@pytest.mark.parametrize(
    ("status", "description"),
    [
        (404, "No data found, symbol may be delisted"),
        (422, "5m data not available. The requested range must be within the last 60 days."),
    ],
)
def test_what_the_service_refuses(yahoo, workspace, capsys, status, description):
    yahoo.refusal = status, description
    refused(capsys, [], "SPY: expected 5-minute bars from Yahoo, found YFPricesMissingError", description)
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    "result", [None, [], [{"meta": {"exchangeTimezoneName": "America/New_York"}, "indicators": {"quote": [{}]}}]]
)
def test_an_empty_answer(yahoo, workspace, capsys, result):
    yahoo.chart["chart"]["result"] = result
    refused(capsys, [], "SPY: expected 5-minute bars from Yahoo, found ")


def test_a_symbol_that_does_not_exist(yahoo, workspace, capsys):
    yahoo.unknown = True
    yahoo.chart["chart"] = {"result": None, "error": {"code": "Not Found", "description": "No data found"}}
    refused(
        capsys,
        ["--symbol", "SPYY"],
        "SPYY: expected 5-minute bars from Yahoo, found HTTPError: HTTP Error 404: Not Found",
    )


def test_an_answer_without_its_clock(yahoo, workspace, capsys):
    del yahoo.result["meta"]["regularMarketTime"]
    refused(capsys, [], "SPY: expected 5-minute bars from Yahoo, found KeyError: 'regularMarketTime'")


def test_no_session_has_ended(yahoo, workspace, capsys):
    yahoo.later("2025-11-26T20:59:00Z", last="2025-11-26T20:55:00Z")
    refused(capsys, [], "SPY: expected 5-minute bars of a session that has ended from Yahoo, found none")


def test_no_network(yahoo, workspace, capsys, caplog):
    yahoo.failure = curl_cffi.requests.exceptions.DNSError("Could not resolve host\nSee the manual", 6)
    refused(capsys, [], "SPY: expected 5-minute bars from Yahoo, found DNSError: Could not resolve host See the manual")
    assert caplog.records == []  # without a handler they would go to stderr
    assert yfinance.config.debug.hide_exceptions


def test_an_answer_that_is_no_json(yahoo, workspace, capsys):
    yahoo.chart["chart"] = "Will be right back"
    refused(capsys, [], "SPY: expected 5-minute bars from Yahoo, found ")


def test_without_yfinance(monkeypatch, workspace, capsys):
    monkeypatch.setitem(sys.modules, "yfinance", None)
    refused(
        capsys,
        [],
        "expected yfinance, found none: run "
        "`pip install -c requirements.lock -c requirements-dev.lock -e '.[download]'`",
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--days", "60"],
            "--days: expected 1 to 59, as Yahoo serves 5-minute bars of the last 60 days only; found 60",
        ),
        (["--days", "0"], "--days: expected 1 to 59"),
        (["--symbol", "../SPY"], "--symbol: expected capital letters"),
        (["--symbol", "spy"], "--symbol: expected capital letters"),
        (["--out", "spy.parquet"], "--out: expected a name that ends in .csv, found 'spy.parquet'"),
    ],
)
def test_arguments_are_checked_before_anything_is_asked(yahoo, workspace, capsys, argv, words):
    refused(capsys, argv, words)
    assert yahoo.asked == []
