"""Bar files of Parquet, read in blocks of rows."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from algospace.data.bars import VALUES, FloatArray
from algospace.data.columns import BLOCK_ROWS, TIMES, Block, match
from algospace.data.params import DataParams
from algospace.errors import InputError


def blocks(path: Path, name: str, params: DataParams) -> Iterator[Block]:
    """Read a Parquet file as blocks of rows; parameters and errors as `algospace.data.csv_file.blocks` has them."""
    with path.open("rb") as opened:
        try:
            file = pq.ParquetFile(opened)
            schema = file.schema_arrow
            columns = match(schema.names, name, params)
            moments = [schema.field(columns[ours]).type for ours in columns if ours in TIMES]
            for kind in moments:
                if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                    raise InputError(f"{name}: expected stamps in a time column, found {kind}")
            iso = all(pa.types.is_temporal(kind) for kind in moments)
            row = 1
            for batch in file.iter_batches(BLOCK_ROWS, columns=[schema.names[i] for i in columns.values()]):
                cells, values = _read(batch, {ours: schema.names[i] for ours, i in columns.items()}, name)
                lines = range(row, row + batch.num_rows)
                yield Block(lines, cells, values, [len(schema.names)] * batch.num_rows, len(schema.names), iso)
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            found = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{name}: expected a Parquet file, found: {found}") from None


def _read(
    batch: pa.RecordBatch, titles: dict[str, str], name: str
) -> tuple[dict[str, list[str]], dict[str, FloatArray]]:
    """Split a batch into columns of text and columns of numbers."""
    cells: dict[str, list[str]] = {}
    values: dict[str, FloatArray] = {}
    for ours, title in titles.items():
        column = batch.column(title)
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if ours in VALUES and not text:
            try:
                values[ours] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            except pa.ArrowException as error:
                found = str(error).splitlines()[0] if pa.types.is_integer(column.type) else column.type
                raise InputError(f"{name}: expected numbers in column {ours}, found {found}") from None
        else:
            cells[ours] = [cell or "" for cell in column.cast(pa.string()).to_pylist()]
    return cells, values
