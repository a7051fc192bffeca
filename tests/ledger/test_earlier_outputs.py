"""Outputs of versions that recorded less are well; a column that every version wrote is missed."""

import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_run import finish_run, picture

from pipeline.ledger.output import open_run
from pipeline.records.seal import sealed
from pipeline.verify.audit import Audit


def without_column(output, column: str) -> None:
    """Take a column out of the only record table, and let its marker know."""
    [records] = (output / "records").glob("*.parquet")
    [marker] = (output / "_ledger/done").rglob("*.json")
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(records).drop_columns([column]), buffer)
    records.write_bytes(buffer.getvalue())
    values = json.loads(marker.read_bytes())
    [written] = [o for o in values["outputs"] if o["path"].startswith("records/")]
    written |= {"size": len(buffer.getvalue()), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    marker.write_text(json.dumps(sealed(values)))


@pytest.mark.parametrize(("column", "found"), [("recoded", []), ("reason", ["columns reason are missing"])])
def test_only_a_column_that_was_added_later_may_be_absent(tmp_path, column, found):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(picture(90))
    output = finish_run(tmp_path / "in", tmp_path / "out", lambda level, number: (level + 9, {}))
    [records] = (output / "records").glob("*.parquet")
    assert pq.read_schema(records).field(column).type == pa.string()
    without_column(output, column)
    audit = Audit(open_run(str(output))[0])
    audit.read_plan()
    said = [f.sentence for unit in audit.units(1) for f in unit.findings]
    assert len(said) == len(found) and all(part in s for part, s in zip(found, said, strict=True))
