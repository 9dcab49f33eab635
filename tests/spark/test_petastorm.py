"""Petastorm on a real session: a dataset that it wrote itself, and its converter."""

import numpy as np
import pytest
import torch
from pyspark.sql.types import DoubleType, IntegerType
from torch import nn

from sparkdl import Bundle, TorchModel
from sparkdl.data.petastorm import PetastormDataset, PetastormReader, converter_source
from sparkdl.data.petastorm_compat import import_petastorm, with_petastorm
from sparkdl.train.world import World

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of pyarrow 14, at each legacy call of Petastorm's
ROWS = 40


def row(number):
    random = np.random.default_rng(number)
    return {
        "image": random.integers(0, 256, (6, 5, 3)).astype(np.uint8),
        "waves": random.random((2, 3)).astype(np.float32),
        "price": np.float64(number / 8),
        "label": np.int32(number),
    }


@pytest.fixture(scope="module")
def schema():
    unischema, codecs = import_petastorm("petastorm.unischema"), import_petastorm("petastorm.codecs")
    field = unischema.UnischemaField
    return unischema.Unischema(
        "Pictures",
        [
            field("image", np.uint8, (6, 5, 3), codecs.CompressedImageCodec("png"), False),
            field("waves", np.float32, (2, 3), codecs.NdarrayCodec(), False),
            field("price", np.float64, (), codecs.ScalarCodec(DoubleType()), False),
            field("label", np.int32, (), codecs.ScalarCodec(IntegerType()), False),
        ],
    )


@pytest.fixture(scope="module")
def written(spark, schema, tmp_path_factory):
    """Written by Petastorm's own materialize_dataset, in 4 files."""
    materialize_dataset = import_petastorm("petastorm.etl.dataset_metadata").materialize_dataset
    encode = import_petastorm("petastorm.unischema").dict_to_spark_row
    uri = f"file://{tmp_path_factory.mktemp('petastorm')}/pictures"
    with materialize_dataset(spark, uri, schema, row_group_size_mb=1):
        rows = spark.sparkContext.parallelize(range(ROWS), 4).map(with_petastorm(lambda i: encode(schema, row(i))))
        spark.createDataFrame(rows, schema.as_spark_schema()).write.parquet(uri)
    return PetastormDataset.open(uri, inputCols=["image", "waves", "price"], labelCol="label", trusted=True)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_dataset_written_by_petastorm_is_read_once_over_the_ranks(written, ranks):
    assert written.rows == ROWS
    assert len(written.row_groups) == 4
    seen = []
    for rank in range(ranks):
        reader = PetastormReader(written, World(rank=rank, size=ranks), batch_size=7, seed=1)
        for batch in reader.epoch(0):
            for *values, label in list(zip(*batch.inputs, batch.label, strict=True))[: batch.rows]:
                wanted = row(int(label))
                for value, name in zip(values, ("image", "waves", "price"), strict=True):
                    np.testing.assert_array_equal(value.numpy(), wanted[name])
                seen.append(int(label))
    assert sorted(seen) == list(range(ROWS))


class Sums(nn.Module):
    def forward(self, image, waves, price):
        return image.float().mean((1, 2, 3)) + waves.sum((1, 2)) + price.float()


def test_a_model_of_such_a_dataset_scores_raw_bytes_and_nested_arrays(spark, written):
    batch = next(PetastormReader(written, World(), batch_size=ROWS, seed=1).scan())
    bundle = Bundle.from_module(Sums(), written.signature, task="regression", example=[x[:2] for x in batch.inputs])
    wanted = dict(zip(batch.label.tolist(), Sums()(*batch.inputs).tolist(), strict=True))
    rows = [row(i) for i in range(4)]
    df = spark.createDataFrame(
        [(int(r["label"]), bytearray(r["image"].tobytes()), r["waves"].tolist(), float(r["price"])) for r in rows],
        "label int, image binary, waves array<array<float>>, price double",
    )
    scored = {r.label: r.prediction for r in TorchModel(bundle).transform(df).collect()}
    assert scored == {i: pytest.approx(wanted[i], rel=1e-5) for i in range(4)}


@pytest.fixture(scope="module")
def converter(spark, tmp_path_factory):
    name = "petastorm.spark.converter.parentCacheDirUrl"
    spark.conf.set(name, f"file://{tmp_path_factory.mktemp('cache')}")
    make_spark_converter = import_petastorm("petastorm.spark").make_spark_converter
    df = spark.range(0, 30, 1, 3).selectExpr("id", "array(id, id + 1) features", "id / 2 label", "cast(id as string) s")
    converter = make_spark_converter(df, dtype="float32")
    yield converter
    converter.delete()
    spark.conf.unset(name)


def test_a_converter_s_cache_is_found(spark, converter):
    source = converter_source(converter)
    assert source is not None
    assert source.rows == 30
    assert sorted(r.id for r in spark.read.parquet(source.uri).collect()) == list(range(30))


def read_by_petastorm(converter):
    with converter.make_torch_dataloader(
        batch_size=8, num_epochs=1, workers_count=1, reader_pool_type="dummy", schema_fields=["id", "features", "label"]
    ) as loader:
        batches = list(loader)
    assert all(torch.equal(batch["features"][:, 1], batch["id"] + 1) for batch in batches)
    return sorted(int(i) for batch in batches for i in batch["id"])


def test_a_converter_s_loader_reads_what_was_cached(converter):
    assert read_by_petastorm(converter) == list(range(30))


def test_a_converter_travels_to_the_workers(spark, converter):
    read = spark.sparkContext.parallelize([0], 1).map(lambda _: read_by_petastorm(converter)).collect()
    assert read == [list(range(30))]


def test_text_columns_come_through_the_batch_reader(converter):
    petastorm = import_petastorm()
    with petastorm.make_batch_reader(converter.file_urls, reader_pool_type="dummy", schema_fields=["s"]) as reader:
        assert sorted(int(text) for _ in range(3) for text in next(reader).s) == list(range(30))
