"""Micro-batches' files as the workers of a stream write them, for tests of sinks: no stream runs."""

import uuid

import pyarrow as pa

from sparkdl import store
from sparkdl.score.output import PieceWriter, file_schema
from sparkdl.score.parquet import arrow_schema
from sparkdl.sinks import Staged, StagedFile

QUERY = "0123456789abcdef0123456789abcdef"


def spark_schema(**types):
    """Spark's schema as JSON values, of the columns' types."""
    fields = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in types.items()]
    return {"type": "struct", "fields": fields}


def stage(sink, schema, rows, *, query=QUERY, batch=0, scratch="/nowhere", files=1):
    """Write rows (a list of dicts) as `files` files, dealt out in turn, into the sink's staging; the Staged."""
    folder = sink.staging(str(scratch), query, batch)
    arrow = arrow_schema(schema)
    written = []
    for i in range(files if rows else 0):
        name = f"part-{i:05d}-{uuid.uuid4().hex}.parquet"
        writer = PieceWriter(folder, name, file_schema(arrow, schema, "4.3.0", sink.layout), sink.layout)
        writer.add(pa.RecordBatch.from_pylist(rows[i::files], schema=arrow))
        written += [
            StagedFile(path, writer.rows[path], store.size(store.join(folder, path))) for path in writer.close()
        ]
    return Staged(query, batch, folder, tuple(written), schema)
