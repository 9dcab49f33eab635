"""What materialising leaves on disk: each row once, on its side of the split, as tensors; or nothing that counts."""

from __future__ import annotations

import os

import numpy as np
import pytest

from sparkdl.data.manifest import Dataset, Layout
from sparkdl.data.materialize import write
from sparkdl.data.reader import ArrowReader
from sparkdl.signature import Signature, TensorSpec
from sparkdl.train.world import World

WEIGHT = TensorSpec("w", "float32", (), ("w",), ("double",))


@pytest.fixture(scope="module")
def table(spark):
    """300 rows: ``id`` (long), ``x`` array<float>[3] and the label ``y`` (double) made of it, ``w`` and ``held``."""
    return spark.range(0, 300, 1, 3).selectExpr(
        "id", "array(float(id), id + 0.25f, id + 0.5f) x", "id * 2d y", "id / 4d w", "id % 5 = 0 held"
    )


def layout(df, inputs=("x", "id"), label="y", **settings):
    spec = Signature.from_dataframe(df, [label]).inputs[0]
    return Layout(Signature.from_dataframe(df, list(inputs), shapes={"x": (3,)}), spec, **settings)


def rows_of(data):
    """Each row of the dataset as (id, label, weight), sorted; x is checked against id."""
    found = []
    for batch in ArrowReader(data, World(), batch_size=64, seed=0).scan():
        x, key = batch.inputs
        assert np.array_equal(x.numpy(), key.numpy()[:, None] + np.float32([0, 0.25, 0.5]))
        found += zip(key.tolist(), batch.label.tolist(), strict=True)
    return sorted(found)


def everything_under(folder):
    return sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)


def test_every_row_is_there_and_nothing_else(table, tmp_path):
    data = write(table, str(tmp_path / "data"), layout(table))
    assert rows_of(data) == [(i, 2.0 * i) for i in range(300)]
    assert Dataset.load(data.uri) == data
    listed = [os.path.join(data.uri, file.path) for file in data.files]
    assert everything_under(data.uri) == sorted([*listed, os.path.join(data.uri, "manifest.json")])


@pytest.mark.parametrize("settings", [{"indicator": "held"}, {"fraction": 0.3, "seed": 3}])
def test_each_row_is_on_one_side(table, tmp_path, settings):
    data = write(table, str(tmp_path / "data"), layout(table, **settings), digest=False)
    train, held = rows_of(data), rows_of(data.validation)
    assert sorted(train + held) == [(i, 2.0 * i) for i in range(300)]
    if "indicator" in settings:
        assert [i for i, _ in held] == list(range(0, 300, 5))
    else:
        assert 60 < len(held) < 120
    assert (data.rows, data.validation.rows) == (len(train), len(held))
