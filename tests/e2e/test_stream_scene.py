"""The rules of stream_scene.py see what they are there for: a row lost, twice, of another version, in a mixed batch."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stream_scene import SCHEMA, Scene


@pytest.fixture
def scene(tmp_path):
    """Of 40 rows, the 4 bad ones dead, in two batches of version 1 and 2; all right."""
    made = Scene(tmp_path, poison_every=10)
    for number in (1, 2):
        rows = made.feed(20)
        good, bad = ([row for row in rows if (row["id"] % 10 == 5) is poisoned] for poisoned in (False, True))
        write(made, f"out/batch={number}", scored(made, good, str(number)))
        letters = [{"kind": made._poison(row["id"]), "model_version": str(number), "row": row} for row in bad]
        kind = pa.schema([("kind", pa.string()), ("model_version", pa.string()), ("row", pa.struct(list(SCHEMA)))])
        write(made, f"dead/batch={number}", pa.Table.from_pylist(letters, kind))
    return made


def scored(scene, rows, version):
    table = pa.Table.from_pylist(rows, SCHEMA)
    inputs = {"features": [row["features"] for row in rows], "code": [row["code"] for row in rows]}
    import numpy as np

    arrays = {"features": np.array(inputs["features"], np.float32), "code": np.array(inputs["code"], np.int64)}
    table = table.append_column("prediction", pa.array(scene.bundles[version].predict(arrays)["prediction"]))
    return table.append_column("model_version", pa.array([version] * len(rows)))


def write(scene, folder, table):
    place = scene.folder / folder
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, place / "part.parquet")


def changed(scene, folder, change):
    write(scene, folder, change(pq.ParquetFile(scene.folder / folder / "part.parquet").read()))


def test_all_is_right(scene):
    assert scene.check() == {"version 1": 18, "version 2": 18, "dead, null": 1, "dead, shape": 1, "dead, non-finite": 1, "dead, failed": 1}  # fmt: skip


def version(table, name, rows=slice(None)):
    values = table["model_version"].to_pylist()
    values[rows] = [name] * len(values[rows])
    return table.set_column(table.schema.get_field_index("model_version"), "model_version", pa.array(values))


WRONG = [
    ("out/batch=1", lambda table: table.slice(1), "1 of 40 rows lost"),
    ("dead/batch=1", lambda table: table.slice(1), "1 of 40 rows lost"),
    ("out/batch=1", lambda table: pa.concat_tables([table, table.slice(3, 1)]), "1 rows more than once"),
    ("out/batch=1", lambda table: version(table, "2", slice(0, 5)), "was scored by"),
    ("dead/batch=2", lambda table: version(table, "1"), "was scored by"),
]


@pytest.mark.parametrize(("folder", "change", "said"), WRONG)
def test_what_is_wrong_is_seen(scene, folder, change, said):
    changed(scene, folder, change)
    with pytest.raises((AssertionError, ValueError), match=said):
        scene.check()


def test_predictions_of_another_version_are_seen(scene):
    changed(scene, "out/batch=1", lambda table: version(table, "2"))
    changed(scene, "dead/batch=1", lambda table: version(table, "2"))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        scene.check()


def test_a_row_that_never_came_is_seen(scene):
    scene.fed.pop(3)
    with pytest.raises(AssertionError, match="rows that never arrived"):
        scene.check()
