"""Rows of runs that took long, kept in a file: a benchmark that was stopped goes on, with the same code alone."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _workspace import ROOT

Row = dict[str, Any]


def code(*own: Path) -> list[Path]:
    """What a row is made by: the package, its lock, and a benchmark's own files."""
    return [*sorted((ROOT / "algospace").rglob("*.py")), ROOT / "requirements.lock", *own]


def digest(files: Sequence[Path]) -> str:
    """Digest of the contents of some files, one after the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def read(path: Path | None) -> list[Row]:
    """The rows that a file holds; none where there is no file."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of(rows: Sequence[Row], what: Row) -> Row | None:
    """The first row that says ``what``; None where none does."""
    return next((row for row in rows if row.items() >= what.items()), None)


def append(path: Path | None, row: Row) -> None:
    """Keep a row, where there is a file."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def kept(path: Path | None, what: Row, run: Callable[[], Row]) -> Row:
    """The row that a file holds of ``what``, else what ``run`` gives, which is kept there."""
    row = of(read(path), what)
    if row is None:
        row = what | run()
        append(path, row)
    return row
