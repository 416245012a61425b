"""Every byte of a small bundle, changed: `bundle.verify` must refuse each by the file's name.

Each byte of the manifest meets all of its 8 single-bit flips (some give equal JSON), each byte of the other files one
value drawn at random.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _fire
from _workspace import workspace

from algospace.errors import BundleError
from algospace.pipeline.status import STAGES
from algospace.policy import bundle

QUICK = 1_000  # bytes drawn


def flips(path: Path, quick: bool, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Positions in a file, and what to change there (to be added by exclusive or)."""
    size = path.stat().st_size
    for at in sorted(rng.sample(range(size), min(QUICK, size))) if quick else range(size):
        if path.name == bundle.MANIFEST:
            yield from ((at, 1 << bit) for bit in range(8))
        else:
            yield at, rng.randrange(1, 256)


def refused(directory: Path, path: Path) -> bool:
    """Whether `bundle.verify` refuses the bundle in a line that names the file."""
    try:
        bundle.verify(directory)
    except BundleError as error:
        return str(path) in str(error) and "\n" not in str(error)
    return False


def examine(directory: Path, path: Path, quick: bool) -> dict[str, Any]:
    """Change bytes of one file of a bundle, one at a time, and count those that were not refused."""
    rng, tried, passed = random.Random(path.name), 0, []
    with path.open("r+b", buffering=0) as file:
        content = path.read_bytes()
        for at, change in flips(path, quick, rng):
            file.seek(at)
            file.write(bytes([content[at] ^ change]))
            if not refused(directory, path):
                passed.append([at, change])
            file.seek(at)
            file.write(content[at : at + 1])
            tried += 1
    bundle.verify(directory)
    return {"benchmark": "flips", "file": path.name, "bytes": len(content), "tried": tried, "not_refused": passed}


def make_bundle(folder: Path) -> Path:
    """Run the small pipeline and return its bundle."""
    with _fire.Furnace(workspace(folder, _fire.TINY)) as furnace:
        for stage in STAGES:
            ended = furnace.run(stage)
            if ended.code:
                raise SystemExit(f"{stage}: {ended.stderr}")
    return folder / "models/bundle"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} bytes of each file instead of all")
    parser.add_argument("--out", type=Path, help="JSON lines of files; those that are there are not examined again")
    arguments = parser.parse_args()
    out: Path | None = arguments.out
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []
    with tempfile.TemporaryDirectory() as place:
        directory = make_bundle(Path(place) / "small")
        for path in sorted(directory.iterdir()):
            if path.name in {row["file"] for row in rows}:
                continue
            row = examine(directory, path, arguments.quick)
            rows.append(row)
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            print(json.dumps(row) if arguments.json else ", ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
    sys.exit(int(any(row["not_refused"] for row in rows)))


if __name__ == "__main__":
    main()
