"""Parquet, for pandas, Polars and DuckDB: a file per table, and one of all samples; raw SI units, null if unmeasured.

Each column has its unit, direction and meaning as metadata. The samples are those of the records, in order and none
left out: of each measurement its metric, unit, tags, remarks and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnperf.errors import UsageError
from cnnperf.record import Record, replacing
from cnnperf.tables.table import Column, Report, Table

_SAMPLES = "samples"
"""Name of the file of samples."""
_WHOLE = ("count", "bytes")
"""Units of columns that hold whole numbers unless a value is none, such as a median of two counts."""


def store(report: Report, out: Path) -> None:
    """Write `<table>.parquet` for each table, and `samples.parquet`. Raises UsageError without pyarrow, and OSError."""
    try:
        import pyarrow as arrow
    except ModuleNotFoundError as error:
        raise UsageError(f"the store 'parquet' needs {error.name}; pip install 'cnnperf[parquet]'") from error
    for table in report.tables:
        _keep(arrow.table(_columns(arrow, table), schema=_schema(arrow, table)), out, table.name)
    rows = list(_samples(report.records))
    _keep(arrow.Table.from_pylist(rows, schema=_schema_of_samples(arrow)), out, _SAMPLES)


def _columns(arrow: Any, table: Table[Any]) -> list[Any]:
    return [arrow.array([row[c.name] for row in table.rows], type=_type(arrow, c, table)) for c in table.columns]


def _schema(arrow: Any, table: Table[Any]) -> Any:
    return arrow.schema([arrow.field(c.name, _type(arrow, c, table), metadata=_described(c)) for c in table.columns])


def _type(arrow: Any, column: Column, table: Table[Any]) -> Any:
    """Return the type of a column, which does not depend on whether anything was measured."""
    if column.unit is None:
        return arrow.string()
    values = (row[column.name] for row in table.rows)
    is_whole = column.unit in _WHOLE and all(value is None or isinstance(value, int) for value in values)
    return arrow.int64() if is_whole else arrow.float64()


def _described(column: Column) -> dict[str, str]:
    facts = {"unit": column.unit, "better": column.better, "meaning": column.meaning}
    return {name: fact for name, fact in facts.items() if fact}


def _schema_of_samples(arrow: Any) -> Any:
    text, number, words = arrow.string(), arrow.int64(), arrow.map_(arrow.string(), arrow.string())
    types = dict.fromkeys(("run", "task", "dataset", "model", "device", "stage"), text)
    types |= {"variant": words, "repeat": number, "seed": number, "status": text, "metric": text, "unit": text}
    types |= {"better": text, "tags": words, "remarks": words, "values": arrow.list_(arrow.float64())}
    return arrow.schema(types)


def _samples(records: Mapping[str, Sequence[Record]]) -> Iterator[dict[str, Any]]:
    """Yield a row per measurement of the records, those of tasks that failed later included."""
    for run, of_run in records.items():
        for r in of_run:
            task = r.task
            cell = {"dataset": task.cell.dataset, "model": task.cell.model, "device": task.cell.device}
            told: dict[str, Any] = {"run": run, "task": r.key, **{name: str(choice) for name, choice in cell.items()}}
            told |= {"stage": task.stage, "repeat": task.repeat, "seed": task.seed, "status": r.status}
            for m in r.measurements:
                facts = {"variant": _words(task.variant), "tags": _words(m.tags), "remarks": _words(m.remarks)}
                yield {**told, **facts, "metric": m.metric, "unit": m.unit, "better": m.better, "values": m.values}


def _words(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in facts.items()]


def _keep(table: Any, folder: Path, name: str) -> None:
    """Write a file, in place of an earlier one only once it is whole."""
    from pyarrow import BufferOutputStream, parquet

    sink = BufferOutputStream()
    parquet.write_table(table, sink)
    with replacing(folder / f"{name}.parquet") as file:
        file.buffer.write(sink.getvalue())
