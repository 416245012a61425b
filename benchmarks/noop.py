"""How long a `dvc repro` with nothing to do takes, against a bare `dvc status`, in a finished pipeline."""

import argparse
import json
import statistics
import subprocess
import time


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.add_argument("--quick", action="store_true", help="3 runs of each instead of 11")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"status": [], "repro": []}
    for _ in range(3 if arguments.quick else 11):
        for name, runs in times.items():
            runs.append(seconds("dvc", name))
    status, repro = (statistics.median(runs) for runs in times.values())
    row = {
        "benchmark": "noop",
        "status_s": round(status, 3),
        "repro_s": round(repro, 3),
        "ratio": round(repro / status, 3),
    }
    print(json.dumps(row) if arguments.json else "\n".join(f"{key}: {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
