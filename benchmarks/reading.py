"""How long 6 million 5-minute rows of CSV take to be read, checked, scored and cleaned, and how much memory."""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from algospace.data import contracts, sources
from algospace.data.params import DataParams
from algospace.data.sessions import sessions, slots

CONTRACT = contracts.resolve("ES", None)
FIRST, LAST = "1972-01-03", "2060-12-31"  # as many years as so many bars need


def write(path: Path, rows: int) -> None:
    """Write a walk on the tick grid over every slot of the calendar, one in a thousand left out."""
    start = slots(sessions(CONTRACT.calendar, FIRST, LAST), 5).start_ms[:rows]
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("datetime,open,high,low,close,volume,average\n")
        for block in np.array_split(start, max(1, start.size // 200_000)):
            opens = 4000 + 0.25 * (rng.integers(-3, 4, block.size).cumsum() % 4000)
            close = opens + 0.25 * rng.integers(-3, 4, block.size)
            table = pd.DataFrame(
                {
                    "datetime": pd.DatetimeIndex(block.astype("datetime64[ms]")).strftime("%Y-%m-%d %H:%M:%S"),
                    "open": opens,
                    "high": np.maximum(opens, close) + 0.25,
                    "low": np.minimum(opens, close) - 0.25,
                    "close": close,
                    "volume": rng.integers(1, 5000, block.size),
                    "average": (opens + close) / 2,
                }
            )
            table[rng.random(block.size) > 0.001].to_csv(file, header=False, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    arguments = parser.parse_args()
    content = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["data"]
    params = DataParams(**{**content, "source": "csv", "files": ["bars.csv"], "symbol": "ES"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.csv"
        write(path, 600_000 if arguments.quick else 6_000_000)
        megabytes = path.stat().st_size / 1e6
        begin = time.perf_counter()
        loaded = sources.load(params, CONTRACT, path.parent)
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    row = {
        "benchmark": "reading",
        "rows": loaded.source["rows"],
        "megabytes": round(megabytes),
        "seconds": round(seconds, 1),
        "peak_gib": round(peak / 2**30, 2),
    }
    print(json.dumps(row) if arguments.json else "\n".join(f"{key}: {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
