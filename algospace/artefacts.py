"""Files that are whole or absent: atomic writes of the formats an artefact may have, and their hashes.

Every format here gives the same bytes for the same content: JSON with sorted keys, safetensors with one metadata
key (several are written in random order), Parquet without the writer's own metadata. Nothing is pickled.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_safetensors

from algospace.errors import InputError

METADATA_KEY = "algospace"
ROW_GROUP = 100_000  # rows of a Parquet row group
_BUFFER = 1 << 20


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with named(path), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[Path]:
    """Give an `OSError` of an open file, which says no name, the file's."""
    try:
        yield path
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise


def json_bytes(content: Any) -> bytes:
    """JSON with sorted keys and no NaN, as UTF-8, ending in a newline."""
    return (json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Write ``json_bytes(content)`` atomically."""
    write_bytes(path, json_bytes(content))


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or malformed one is an `InputError` that names it."""
    if not path.is_file():  # a pipe, or a device, may have no end
        raise InputError(f"{path}: expected a JSON file, found {'another thing' if path.exists() else 'nothing there'}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, found {error}") from None


def tensor_bytes(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> bytes:
    """Arrays and a JSON header as safetensors."""
    metadata = {METADATA_KEY: json.dumps(header, sort_keys=True, allow_nan=False)}
    return save_safetensors({name: np.asarray(array, order="C") for name, array in tensors.items()}, metadata)


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write ``tensor_bytes(tensors, header)`` atomically."""
    write_bytes(path, tensor_bytes(tensors, header))


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and JSON header of a file that `write_tensors` wrote; `InputError` for any other."""
    if not path.is_file():
        raise InputError(f"{path}: expected a safetensors file, found nothing there")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        header = json.loads(metadata[METADATA_KEY])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected safetensors with a header, found {error}") from None
    if not isinstance(header, dict):
        raise InputError(f"{path}: expected safetensors with a header, found {type(header).__name__} for one")
    return tensors, header


class ParquetStream:
    """A Parquet file written in pieces, whole or absent: zstd, without pandas' own metadata and the frames' index.

    Rows are regrouped into groups of `ROW_GROUP`, so that the bytes do not depend on the pieces.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> Self:
        """Open the temporary file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = _temporary(self.path)
        self._file = self._temporary.open("wb", buffering=_BUFFER)  # Parquet comes in hundreds of small pieces
        self._writer: pq.ParquetWriter | None = None
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Append rows; every frame has the columns and the types of the first."""
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        with named(self.path):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
            self._pending.append(table)
            self._rows += table.num_rows
            while self._rows >= ROW_GROUP:
                self._flush(ROW_GROUP)

    def _flush(self, rows: int) -> None:
        assert self._writer is not None
        table = pa.concat_tables(self._pending)
        self._writer.write_table(table.slice(0, rows).combine_chunks(), row_group_size=ROW_GROUP)
        self._pending = [table.slice(rows)]
        self._rows -= rows

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Put the file in its place, or leave nothing when an error ended the block."""
        try:
            with named(self.path):
                if error is None and self._rows:
                    self._flush(self._rows)
                if self._writer is not None:
                    self._writer.close()
                if error is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
                    os.replace(self._temporary, self.path)
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as one `ParquetStream`."""
    with ParquetStream(path) as file:
        file.write(frame)


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file, or some of its columns; a missing or damaged one is an `InputError` that names it."""
    if not path.is_file():
        raise InputError(f"{path}: expected a Parquet file, found nothing there")
    try:
        return pd.read_parquet(path, columns=columns)
    except MemoryError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first_line = str(error).partition("\n")[0]
        raise InputError(
            f"{path}: expected a whole Parquet file with the columns asked for, found: {first_line}"
        ) from None


def _temporary(path: Path) -> Path:
    """Name of this process' temporary file; those that a killed process left of the same file are removed."""
    for stale in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        pid = stale.name.split(".")[-2]
        if pid.isdigit() and not _lives(int(pid)):
            stale.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
