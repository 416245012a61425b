"""Wall time and peak memory of `algospace features`, start of the process and reading of the CSV included.

58,000 five-minute bars (three years of SPY's sessions), then ten and a hundred times as many: time should grow linearly
and memory only with the bars themselves.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from _measure import main, seconds
from reading import write

ROOT = Path(__file__).parents[1]
SIZES = {"features_58k": 58_000, "features_600k": 600_000, "features_6m": 6_000_000}
GOALS = {"features_58k": "5 s", "features_600k": None, "features_6m": "480 s, 2 GiB"}


def row(name: str, folder: Path, repeats: int) -> Callable[[], dict[str, Any]]:
    def measure() -> dict[str, Any]:
        bars = folder / f"{name}.csv"
        write(bars, SIZES[name])
        peaks = []

        def run() -> None:
            paths = {"--out": folder / "out.parquet", "--params": folder / "params.yaml"}
            paths["--fitted"] = ROOT / "data/prepared"
            command = ["features", bars, *(word for pair in paths.items() for word in pair)]
            child = subprocess.run(
                [sys.executable, "-c", WATCH, *map(str, command)], stdout=subprocess.PIPE, text=True, check=False
            )
            if child.returncode:
                raise SystemExit("features failed; has `dvc repro prepare` been run?")
            peaks.append(int(child.stdout.splitlines()[-1]))

        run()  # compiles what is not compiled yet
        median = seconds(run, repeats)
        bars.unlink()
        return {
            "benchmark": name, "bars": SIZES[name], "seconds": round(median, 2),
            "bars_per_second": round(SIZES[name] / median), "peak_gib": round(max(peaks) / 2**20, 2),
            "goal": GOALS[name],
        }  # fmt: skip

    measure.__name__ = name
    return measure


# Runs the command line in a process of its own and prints the peak memory of that process in KiB.
WATCH = """
import resource, sys
from algospace.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    folder = Path(tempfile.mkdtemp())
    try:
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["data"] |= {"symbol": "ES", "timezone": "UTC", "stamp": "start"}
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        yield row("features_58k", folder, 3 if quick else 5)
        yield row("features_600k", folder, 1)
        if not quick:
            yield row("features_6m", folder, 1)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(__doc__ or "", rows)
