"""``data.source: auto``: the first of several markets whose files are there, and why not the ones before it."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from algospace.data.params import AutoEntry, DataParams
from algospace.errors import InputError


class Resolved(NamedTuple):
    """What ``auto`` came to."""

    params: DataParams  # its source is csv, parquet or synthetic
    tried: list[dict[str, str]]  # symbol and reason of each market that comes earlier in ``data.auto``


def resolve(params: DataParams, raw_dir: Path) -> Resolved:
    """Choose the source of the bars.

    The first entry of ``data.auto`` with a file is taken, with its first pattern that any file matches. Another
    source than ``auto`` stays as it is.

    Raises
    ------
    InputError
        No entry has a file and ``data.allow_synthetic`` is false, or the files of one are of two kinds.
    """
    if params.source != "auto":
        return Resolved(params, [])
    paths = sorted(path for path in raw_dir.rglob("*") if path.is_file())
    names = [path.relative_to(raw_dir).as_posix() for path in paths]
    tried: list[dict[str, str]] = []
    for entry in params.auto:
        matches = [[name for name in names if fnmatchcase(name.lower(), p.lower())] for p in entry.files]
        files = next(filter(None, matches), None)
        if files:
            return Resolved(_with(params, entry, files), tried)
        patterns = ", ".join(entry.files)
        tried.append({"symbol": entry.symbol, "reason": f"no file matches {patterns} below {raw_dir.as_posix()}"})
    if params.allow_synthetic:
        return Resolved(params.model_copy(update={"source": "synthetic"}), tried)
    looked = "; ".join(f"{item['symbol']}: {item['reason']}" for item in tried) or "no entry"
    raise InputError(f"data.auto: expected a file of one entry, or data.allow_synthetic: true; found none ({looked})")


def reading_of(params: DataParams, name: str) -> DataParams:
    """Say how a file of that name is read: under ``auto`` as the first entry it fits, else as the section stands."""
    if params.source == "auto":
        for entry in params.auto:
            if any(fnmatchcase(name.lower(), pattern.lower()) for pattern in entry.files):
                return _with(params, entry, [name])
    return params


def _with(params: DataParams, entry: AutoEntry, files: list[str]) -> DataParams:
    """Make the section that reads one entry's files; a contract or calendar for another market never comes along."""
    parquet = {name.lower().endswith(".parquet") for name in files}
    if len(parquet) > 1:
        raise InputError(f"data.auto: expected CSV or Parquet files for {entry.symbol}, found both: {', '.join(files)}")
    given = {key: value for key, value in entry if value is not None}
    return params.model_copy(
        update={
            **given,
            "source": "parquet" if parquet == {True} else "csv",
            "files": files,
            "contract": entry.contract,
            "calendar": entry.calendar,
        }
    )
