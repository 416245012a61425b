"""Damaged bar files: each must be refused in one line that names it, or read into bars that satisfy every invariant."""

import argparse
import gzip
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import yaml

from algospace.data import contracts, sources
from algospace.data.params import DataParams
from algospace.data.sessions import MINUTE_MS
from algospace.errors import InputError

CONTRACT = contracts.resolve("SPY", None)
NAME = "a.csv"
# Each is 14:30 UTC or 09:30 New York, the first bar of a session: plain days, both clock changes, a half day.
DAYS = (("2018-01-02", 14), ("2018-03-09", 14), ("2018-03-12", 13), ("2018-11-02", 13), ("2018-11-23", 14))
RARE = 0.05
LONGEST = 1.0  # seconds of a core that a file may take
TOKENS = (
    "", " ", "nan", "NaN", "inf", "-inf", "1e400", "1e-400", "5e-324", "1.7e308", "0x10", "1,234.5", '"1,234.5"', "1_0",
    "-1", "0", "-0.0", "+5", ".5", "5.", "1e", "--1", "١٢", "12\u00a0", "1\n2", '"1\n2"', '"', '""', "9" * 400, "true",
    "2018-01-02", "02/01/2018 14:30", "1/2/2018 2:30 PM", "2018-03-11 02:30:00", "2018-11-04 01:30:00",
    "2018-13-01 10:00",    "9999-12-31 23:59", "1970-01-01 00:00", "2099-12-31 21:00:00", "2018-01-02T14:30:00Z", 
    "2018-01-02 09:30-05:00",     "2018-01-02 25:00", "1514903400", "24:00", "\0", "\ufeff", "é", "#N/A", "=A1",
)  # fmt: skip


def section(**changes: object) -> DataParams:
    """Make the data section of params.yaml with some keys changed."""
    path = Path(__file__).parents[1] / "params.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]
    fixed = {"source": "csv", "files": [NAME], "symbol": "SPY", "min_quality": 0.0}
    return DataParams(**{**content, **fixed, **changes})


SECTIONS = (
    section(),
    section(on_invalid="drop"),
    section(on_invalid="drop", date_order="iso", rolls="column"),
    section(on_invalid="drop", timezone="America/New_York", stamp="last_minute"),
    section(on_invalid="drop", date_order="day_first", bar_minutes=1),
)


def valid(rng: random.Random, params: DataParams) -> list[list[str]]:
    """Make a header and a few good rows."""
    day, hour = rng.choice(DAYS)
    zone = params.timezone != "UTC"
    start = (9 if zone else hour) * 60 + 30
    late = {"start": 0, "end": params.bar_minutes, "last_minute": params.bar_minutes - 1}[params.stamp]
    year, month, date = day.split("-")
    form = f"{date}/{month}/{year}" if params.date_order == "day_first" else day
    split = rng.random() < 0.3
    header = [*(("Date", "Time") if split else ("datetime",)), "open", "high", "low", "close", "volume"]
    rows = [header + (["roll"] if params.rolls == "column" else [])]
    price = 100.0
    for i in range(rng.randint(2, 24)):
        minute = start + i * params.bar_minutes + late
        stamp = [form, f"{minute // 60:02d}:{minute % 60:02d}:00"]
        close = price + rng.randint(-3, 3) / 100
        values = [price, max(price, close) + 0.01, min(price, close) - 0.02, close, rng.randint(0, 999)]
        rows.append((stamp if split else [" ".join(stamp)]) + [f"{value:.6g}" for value in values])
        if params.rolls == "column":
            rows[-1].append(rng.choice(["0", "false"]) if i else rng.choice(["0", "1"]))
        price = close
    return rows


def damaged(rng: random.Random, params: DataParams) -> bytes:
    """Make a file with up to four things wrong: in its cells, its rows or its bytes."""
    rows = valid(rng, params)
    for _ in range(rng.choice((0, 1, 1, 2))):
        at = rng.randrange(len(rows))
        what = rng.randrange(8)
        if what < 4 and rows[at]:
            rows[at][rng.randrange(len(rows[at]))] = rng.choice(TOKENS)
        elif what == 4:
            rows.insert(rng.randrange(len(rows) + 1), list(rows[at]))
        elif what == 5:
            del rows[at]
        elif what == 6:
            rows[at] = rows[at][: rng.randrange(len(rows[at]) + 1)] + ["1"] * rng.randint(0, 2)
        else:
            rows[at:] = rows[at:][::-1]
        if not rows:
            break
    end = rng.choice(("\n", "\n", "\r\n", "\r"))
    delimiter = rng.choice((";", "\t")) if rng.random() < RARE else ","
    text = end.join(delimiter.join(row) for row in rows)
    content = bytearray((("\ufeff" if rng.random() < RARE else "") + text + end).encode("utf-8"))
    if rng.random() < RARE:
        content = bytearray(bytes(content).decode().encode(rng.choice(("utf-16", "utf-16-le", "utf-32"))))
    if rng.random() < 0.3:
        content = bytearray(gzip.compress(bytes(content), mtime=0))
    for _ in range(rng.choice((0, 0, 1, 2))):
        if not content:
            break
        at, length = rng.randrange(len(content)), rng.randint(1, 40)
        what = rng.randrange(6)
        if what == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del content[at : at + length]
        elif what == 2:
            content[at:at] = content[at : at + length]
        elif what == 3:
            content[at:at] = rng.randbytes(length)
        elif what == 4:
            del content[at:]
        else:
            content[at : at + 1] = rng.choice((b"\n", b'"', b",", b"\r", b"\0", b"\xff", b"-", b"9"))
    return bytes(content)


def outcome(folder: Path, content: bytes, params: DataParams) -> str:
    """Load a file: `refused` or `bars`; anything else is an AssertionError or whatever was raised."""
    path = folder / NAME
    path.write_bytes(content)
    try:
        loaded = sources.load(params, CONTRACT, folder)
    except InputError as error:
        message = str(error)
        assert re.match(re.escape(path.as_posix()) + r"(:\d+)?: expected .*found", message), message
        assert message.isprintable(), message
        return "refused"
    bars = loaded.bars
    start, close, end = (
        bars[name].to_numpy("datetime64[ms]").astype(np.int64)
        for name in ("start_utc", "close_utc", "session_close_utc")
    )
    values = bars[["open", "high", "low", "close", "volume"]].to_numpy()
    o, h, l, c, v = values.T
    assert len(bars) > 0
    assert (np.diff(start) > 0).all()
    assert (close == np.minimum(start + 5 * MINUTE_MS, end)).all()
    assert (start % (5 * MINUTE_MS) == 0).all()
    assert np.isfinite(values).all()
    assert (l > 0).all()
    assert (v >= 0).all()
    assert ((l <= np.minimum(o, c)) & (h >= np.maximum(o, c))).all()
    assert (np.diff(bars["contract_id"]) >= 0).all()
    day = bars["start_utc"].dt.tz_convert("America/New_York")  # of New York's stock exchange, whatever else was read
    assert (day.dt.strftime("%Y%m%d").astype(int) == bars["session_id"]).all()
    minute = day.dt.hour * 60 + day.dt.minute
    assert ((minute >= 570) & (minute < 960) & (day.dt.day_of_week < 5)).all()
    return "bars"


def case(number: int) -> tuple[bytes, DataParams]:
    """Make the file of a number, always the same."""
    rng = random.Random(number)
    params = SECTIONS[number % len(SECTIONS)]
    return damaged(rng, params), params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.add_argument("--quick", action="store_true", help="5,000 files instead of 100,000")
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    slowest, which = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(5_000 if arguments.quick else 100_000):
            content, params = case(number)
            begin = time.process_time()
            try:
                outcomes[outcome(Path(folder), content, params)] += 1
            except Exception as error:
                outcomes[f"wrong: {type(error).__name__} at {number}"] += 1
            seconds = time.process_time() - begin
            if number and seconds > slowest:  # the first one pays for what is compiled
                slowest, which = seconds, number
    row = {"benchmark": "bad_files", **outcomes, "slowest_s": round(slowest, 3), "slowest_file": which}
    print(json.dumps(row) if arguments.json else "\n".join(f"{key}: {value}" for key, value in row.items()))
    sys.exit(int(slowest > LONGEST or any(name.startswith("wrong") for name in outcomes)))


if __name__ == "__main__":
    main()
