"""Parquet tables from bytes."""

from collections.abc import Sequence
from typing import Any


def read_table(data: bytes, columns: Sequence[str] | None = None) -> Any:
    """The pyarrow Table in a Parquet file's bytes; with these columns only, where they are given.

    All is read in this thread. A thread of Arrow's that still holds an object of Python's when the program ends aborts
    it: `pyarrow.parquet.read_table` of a Python file leaves such ones behind. Raises pyarrow's own errors, and
    ValueError where a column is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    if lacking := set(columns or ()) - set(file.schema_arrow.names):
        raise ValueError(
            f"a table with the columns {', '.join(sorted(lacking))} was wanted, it has none such"
        )
    return file.read(None if columns is None else list(columns), use_threads=False)
