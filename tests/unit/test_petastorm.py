"""Petastorm datasets, encoded by Petastorm's codecs and with its metadata, read by the ranks; no JVM.

Row i of ``petastorm_dataset`` has the label i, so that what was read can be looked up in what was written.
"""

import json
import pickle
import subprocess
import sys
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql.types import DecimalType, DoubleType, IntegerType, StringType

from sparkdl import columns, store
from sparkdl.data.manifest import LABEL, WEIGHT, DataFile, Dataset
from sparkdl.data.petastorm import (
    ConverterSource,
    PetastormDataset,
    PetastormReader,
    check_ranks,
    converter_source,
    rows_of_ranks,
)
from sparkdl.data.petastorm_compat import file_system, import_petastorm, with_petastorm
from sparkdl.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDatasetError,
    InvalidParamError,
    SignatureError,
    StoreError,
    TooFewRowsError,
)
from sparkdl.signature import Signature, TensorSpec
from sparkdl.train.world import World

codecs = import_petastorm("petastorm.codecs")
unischema = import_petastorm("petastorm.unischema")
etl = import_petastorm("petastorm.etl.dataset_metadata")

IN_MEMORY, STREAMING = 1 << 30, 1000  # a row takes 96 bytes: a pool of 5 rows
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of pyarrow 14, at each legacy call of Petastorm's
OLD_PYARROW = int(pa.__version__.split(".")[0]) < 15


def field(name, dtype, shape=(), codec=None, nullable=False):
    return unischema.UnischemaField(name, dtype, shape, codec, nullable)


FIELDS = [
    field("image", np.uint8, (4, 5, 3), codecs.CompressedImageCodec("png")),
    field("waves", np.float32, (2, 3), codecs.NdarrayCodec()),
    field("price", np.float64, (), codecs.ScalarCodec(DoubleType())),
    field("label", np.int32, (), codecs.ScalarCodec(IntegerType())),
]


def written_rows(count):
    random = np.random.default_rng(0)
    return [
        {
            "image": random.integers(0, 256, (4, 5, 3)).astype(np.uint8),
            "waves": random.random((2, 3)).astype(np.float32),
            "price": np.float64(random.random()),
            "label": np.int32(i),
        }
        for i in range(count)
    ]


def encoded(field, value):
    value = field.codec.encode(field, value)
    return bytes(value) if isinstance(value, bytearray) else value


def write(folder, layout, fields, rows):
    """As Petastorm does on Spark. layout: the rows of each row group of each file, a file's name being its key."""
    schema, rows, counts = unischema.Unischema("Test", fields), iter(rows), {}
    for path, groups in layout.items():
        (folder / path).parent.mkdir(exist_ok=True)
        writer, counts[path] = None, len(groups)
        for count in groups:
            chunk = [next(rows) for _ in range(count)]
            table = pa.table(
                {f.name: [encoded(f, row[f.name]) for row in chunk] for f in fields if f.name in chunk[0]}
                if chunk
                else writer.schema.empty_table()
            )
            writer = writer or pq.ParquetWriter(folder / path, table.schema)
            writer.write_table(table.cast(writer.schema), row_group_size=max(count, 1))
        writer.close()
    sealed(folder, schema, counts)
    return str(folder)


def sealed(folder, schema, counts):
    """Petastorm's ``_common_metadata``, which makes Parquet files a Petastorm dataset."""
    filesystem = file_system(store.resolve(str(folder))[0])
    dataset = etl.pq.ParquetDataset(str(folder), filesystem=filesystem, validate_schema=False)
    etl._generate_unischema_metadata(dataset, schema)
    etl.utils.add_to_dataset_metadata(dataset, etl.ROW_GROUPS_PER_FILE_KEY, json.dumps(counts))


@pytest.fixture(scope="module")
def rows():
    return written_rows(37)


@pytest.fixture(scope="module")
def petastorm_dataset(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("peta storm")
    uri = write(folder, {"a.parquet": (7, 7, 6), "b.parquet": (5, 5, 5, 2)}, FIELDS, rows)
    return PetastormDataset.open(uri, inputCols=["image", "waves", "price"], labelCol="label", trusted=True)


def plain_dataset(folder, layout, *, weight=False):
    """A dataset of our own: row i is x = [[i, i + .5], [..]], key = i, label i, weight i / 2."""
    inputs = (TensorSpec("x", "float32", (2, 2), ("x",), ("array<float>",)),
              TensorSpec("key", "int64", (), ("key",), ("long",)))  # fmt: skip
    files, first = [], 0
    for number, groups in enumerate(layout):
        path = folder / f"part-{number}.parquet"
        schema = writer = None
        for count in groups:
            key = np.arange(first, first + count)
            first += count
            x = (key[:, None, None] + np.array([[0, 0.5], [0.25, 0.75]])).astype(np.float32)
            table = {"x": columns.flat(x), "key": pa.array(key), LABEL: pa.array(key.astype(np.float32))}
            table = pa.table(table | ({WEIGHT: pa.array((key / 2).astype(np.float32))} if weight else {}))
            writer = writer or pq.ParquetWriter(path, schema or table.schema)
            writer.write_table(table, row_group_size=count)
        writer.close()
        files.append(DataFile(path.name, tuple(groups)))
    weights = TensorSpec("w", "float32", (), ("w",), ("float",)) if weight else None
    label = TensorSpec("y", "float32", (), ("y",), ("float",))
    return Dataset(str(folder), tuple(files), Signature(inputs), label, weights)


def readers(dataset, ranks, **options):
    options = {"batch_size": 4, "seed": 3, **options}
    return [PetastormReader(dataset, World(rank=rank, size=ranks), **options) for rank in range(ranks)]


def labels(batches):
    return [int(label) for batch in batches for label in batch.label[: batch.rows]]


@pytest.mark.parametrize("budget", [IN_MEMORY, STREAMING])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_every_row_once_an_epoch_and_as_it_was_written(petastorm_dataset, rows, ranks, batch_size, budget):
    of_ranks = readers(petastorm_dataset, ranks, batch_size=batch_size, memory_budget=budget)
    assert len({reader.steps_per_epoch for reader in of_ranks}) == 1
    for epoch in range(2):
        seen = []
        for rank, reader in enumerate(of_ranks):
            batches = list(reader.epoch(epoch))
            assert [b.rows for b in batches] == [reader.rows_in_step(s)[rank] for s in range(reader.steps_per_epoch)]
            for batch in batches:
                assert len(batch.label)
                assert batch.label.dtype == torch.int32
                assert batch.weight is None
                for image, waves, price, label in zip(*batch.inputs, batch.label, strict=True):
                    wanted = rows[int(label)]
                    assert torch.equal(image, torch.from_numpy(wanted["image"].copy()))
                    assert torch.equal(waves, torch.from_numpy(wanted["waves"]))
                    assert float(price) == wanted["price"]
            seen += labels(batches)
        assert sorted(seen) == list(range(37))


@pytest.mark.parametrize("budget", [IN_MEMORY, STREAMING])
def test_the_order_depends_on_seed_and_epoch_alone(petastorm_dataset, budget):
    def order(epoch, seed=3, first_step=0):
        reader = readers(petastorm_dataset, 2, seed=seed, memory_budget=budget)[0]
        return labels(reader.epoch(epoch, first_step))

    once = readers(petastorm_dataset, 2, memory_budget=budget)[0]
    epochs = [labels(once.epoch(epoch)) for epoch in range(3)]  # one reader that goes on
    assert epochs == [order(epoch) for epoch in range(3)]  # is as new ones are
    assert len({*map(tuple, epochs), tuple(order(0, seed=4)), tuple(sorted(epochs[0]))}) == 5
    assert order(1, first_step=2) == epochs[1][2 * 4 :]  # a resumed epoch


def test_a_rank_that_has_run_out_goes_on_with_rows_that_do_not_count(petastorm_dataset):
    counts = rows_of_ranks(petastorm_dataset.row_groups, 7)
    assert counts == [7, 7, 6, 5, 5, 5, 2]
    last = readers(petastorm_dataset, 7, batch_size=3)[6]
    assert [batch.rows for batch in last.epoch(0)] == [2, 0, 0]
    resumed = list(last.epoch(0, first_step=1))
    assert [batch.rows for batch in resumed] == [0, 0]
    assert len(resumed[0].label) == len(resumed[0].inputs[0]) > 0


@pytest.mark.parametrize("budget", [IN_MEMORY, STREAMING])
def test_last_batches_can_be_dropped(petastorm_dataset, budget):
    of_ranks = readers(petastorm_dataset, 2, drop_last=True, memory_budget=budget)
    assert [reader.rows for reader in of_ranks] == [20, 17]
    for reader in of_ranks:
        assert reader.steps_per_epoch == 4
        assert reader.rows_in_step(3) == [4, 4]
        seen = labels(reader.epoch(0))
        assert len(seen) == len(set(seen)) == 16
    with pytest.raises(InvalidParamError, match=r"batchSize 18 leaves no step.* only 17 rows"):
        readers(petastorm_dataset, 2, batch_size=18, drop_last=True)


@pytest.mark.parametrize("budget", [IN_MEMORY, STREAMING])
def test_a_scan_is_each_row_once_in_the_order_on_disk(petastorm_dataset, budget):
    first, second = readers(petastorm_dataset, 2, memory_budget=budget)
    assert labels(first.scan()) == labels(first.scan()) == [*range(7), *range(14, 20), *range(25, 30), *range(35, 37)]
    assert sorted(labels(first.scan()) + labels(second.scan())) == list(range(37))


def test_a_scan_reads_no_further_than_it_is_asked(tmp_path):
    uri = write(tmp_path, {"a.parquet": (300,), "b.parquet": (3,)}, FIELDS[3:], written_rows(303))
    dataset = PetastormDataset.open(uri, inputCols=["label"], labelCol="label", trusted=True)
    (tmp_path / "b.parquet").unlink()
    scan = readers(dataset, 1)[0].scan()
    assert labels([next(scan)]) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="fewer rows than the footers say"):
        list(scan)


def test_fewer_row_groups_than_ranks(petastorm_dataset):
    check_ranks(petastorm_dataset, 7)
    with pytest.raises(TooFewRowsError, match="has 7 for 8 ranks") as caught:
        check_ranks(petastorm_dataset, 8)
    assert (caught.value.rows, caught.value.ranks) == (37, 8)


def test_a_row_group_without_rows(tmp_path):
    uri = write(tmp_path, {"a.parquet": (2, 0, 2)}, FIELDS, written_rows(4))
    with pytest.raises(DataError, match=r"row group 1 .* has no rows"):
        PetastormDataset.open(uri, inputCols=["waves"], labelCol="label", trusted=True)


@pytest.mark.parametrize("budget", [IN_MEMORY, 60])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_our_own_datasets_through_petastorm(tmp_path, ranks, budget):
    dataset = plain_dataset(tmp_path, [(5, 3), (9,)], weight=True)
    (tmp_path / "part-9-left-by-a-failed-task.parquet").write_bytes(b"not Parquet")
    seen = []
    for reader in readers(dataset, ranks, memory_budget=budget):
        for batch in reader.epoch(0):
            x, key = batch.inputs
            assert torch.equal(x, key[:, None, None] + torch.tensor([[0, 0.5], [0.25, 0.75]]))
            assert torch.equal(batch.label, key.float())
            assert torch.equal(batch.weight, key / 2)
            seen += labels([batch])
    assert sorted(seen) == list(range(17))


def test_inputs_stacked_since_they_were_written(tmp_path, petastorm_dataset):
    (batch,) = readers(plain_dataset(tmp_path, [(3,)]).cast(None, "int64"), 1)[0].scan()
    assert batch.label.dtype == torch.int64
    scalars = PetastormDataset.open(
        petastorm_dataset.uri, inputCols=["price", "label"], labelCol="label", weightCol="price", trusted=True
    )
    (batch,) = readers(scalars.stacked("both").cast("float32", "int64"), 1, batch_size=40)[0].scan()
    (both,) = batch.inputs
    assert both.dtype == torch.float32
    assert torch.equal(both, torch.stack([batch.weight, batch.label.float()], dim=1))


def test_the_specs_say_what_can_be_scored(petastorm_dataset):
    image, waves, price = petastorm_dataset.signature.inputs
    assert (image.dtype, image.shape, image.types) == ("uint8", (4, 5, 3), ("binary",))
    assert (waves.dtype, waves.shape, waves.types) == ("float32", (2, 3), ("array<array<float>>",))
    assert (price.dtype, price.shape, price.types) == ("float64", (), ("double",))
    assert (petastorm_dataset.label.dtype, petastorm_dataset.label.types) == ("int32", ("integer",))
    assert petastorm_dataset.rows == 37


class Planted:
    def __reduce__(self):
        return pytest.fail, ("the schema was unpickled",)


def test_nothing_is_unpickled_unless_trusted(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    planted = pa.schema([("x", pa.int64())], {etl.UNISCHEMA_KEY: pickle.dumps(Planted())})
    pq.write_metadata(planted, tmp_path / "_common_metadata")
    for trusted in (False, None, "yes"):
        with pytest.raises(InvalidParamError, match="trusted=True") as caught:
            PetastormDataset.open(str(tmp_path), inputCols=["x"], labelCol="x", trusted=trusted)
        assert caught.value.param == "trusted"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (field("bad", np.float32, (None, 3), codecs.NdarrayCodec()), "not fixed"),
        (field("bad", np.str_, (), codecs.ScalarCodec(StringType())), "dtype is str"),
        (field("bad", Decimal, (), codecs.ScalarCodec(DecimalType(10, 2))), "dtype is object"),
        (field("bad", np.uint16, (2,), codecs.NdarrayCodec()), "dtype is uint16"),
        (field("bad", np.float32, (2,), codecs.NdarrayCodec(), nullable=True), "may be null"),
    ],
)
def test_fields_that_no_tensor_can_hold(tmp_path, bad, told):
    pq.write_table(pa.table({"bad": [b""], "label": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
    sealed(tmp_path, unischema.Unischema("Test", [bad, FIELDS[-1]]), {"a.parquet": 1})
    with pytest.raises(SignatureError, match=f"field 'bad' .*{told}"):
        PetastormDataset.open(str(tmp_path), inputCols=["bad"], labelCol="label", trusted=True)
    assert PetastormDataset.open(str(tmp_path), inputCols=["label"], labelCol="label", trusted=True).rows == 1


def test_what_is_no_dataset_to_train_on(tmp_path, petastorm_dataset):
    def opened(uri, **columns):
        return PetastormDataset.open(uri, **{"inputCols": ["waves"], "labelCol": "label", "trusted": True, **columns})

    with pytest.raises(ColumnNotFoundError, match=r"field 'wave' .*did you mean 'waves'"):
        opened(petastorm_dataset.uri, inputCols=["wave"])
    with pytest.raises(SignatureError, match=r"weight field 'waves' has shape \(2, 3\)"):
        opened(petastorm_dataset.uri, weightCol="waves")
    with pytest.raises(StoreError, match=r"no .finished. Petastorm dataset"):
        opened(str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="it takes URLs, which end at #"):
        opened(str(tmp_path / "a#b"))
    (tmp_path / "plain").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "plain" / "a.parquet")
    with pytest.raises(StoreError, match=r"no .finished. Petastorm dataset"):
        opened(str(tmp_path / "plain"))
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"x": [1]}).slice(0, 0), tmp_path / "empty" / "a.parquet")
    sealed(tmp_path / "empty", unischema.Unischema("Test", FIELDS), {"a.parquet": 1})
    with pytest.raises(EmptyDatasetError):
        opened(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"waves": np.zeros((3, 2), np.float32)}, "field 'waves' .*shape"),
        ({"price": np.float64("nan")}, "field 'price' .*NaN"),
    ],
)
def test_rows_that_are_not_what_the_schema_says(tmp_path, change, told):
    data = written_rows(4)
    fields = [field(f.name, f.numpy_dtype, (3, 2) if f.name == "waves" else f.shape, f.codec) for f in FIELDS]
    wrong = {name: encoded(f, change[name]) for f in fields for name in change if f.name == name}
    content = [{f.name: encoded(f, row[f.name]) for f in FIELDS} for row in data]
    content[2].update(wrong)
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "a.parquet")
    sealed(tmp_path, unischema.Unischema("Test", FIELDS), {"a.parquet": 1})
    dataset = PetastormDataset.open(str(tmp_path), inputCols=["waves"], labelCol="price", trusted=True)
    with pytest.raises(DataError, match=told):
        list(readers(dataset, 1)[0].scan())


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_weights_are_not_negative(tmp_path, weight):
    data = written_rows(3)
    data[1]["price"] = np.float64(weight)
    uri = write(tmp_path, {"a.parquet": (3,)}, FIELDS, data)
    dataset = PetastormDataset.open(uri, inputCols=["waves"], labelCol="label", weightCol="price", trusted=True)
    with pytest.raises(DataError, match=r"'price' .*finite weights of at least 0"):
        list(readers(dataset, 1)[0].scan())


def test_labels_that_are_not_whole_are_not_cut(petastorm_dataset):
    dataset = PetastormDataset.open(petastorm_dataset.uri, inputCols=["waves"], labelCol="price", trusted=True)
    with pytest.raises(DataError, match=r"'price' .*values that int64 holds"):
        list(readers(dataset.cast(None, "int64"), 1)[0].scan())


def test_a_file_that_is_gone_or_spoilt(tmp_path):
    uri = write(tmp_path, {"a.parquet": (3,), "b.parquet": (3,)}, FIELDS, written_rows(6))
    dataset = PetastormDataset.open(uri, inputCols=["waves"], labelCol="label", trusted=True)
    content = bytearray((tmp_path / "b.parquet").read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"row groups of .*cannot be read by Petastorm"):
        list(readers(dataset, 1)[0].scan())
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(DataError, match="cannot be read by Petastorm"):
        list(readers(dataset, 1)[0].scan())


def test_a_partitioned_dataset(tmp_path):
    fields = [FIELDS[1], field("part", np.int64), field("place", np.str_), FIELDS[3]]
    data = [{name: row[name] for name in ("waves", "label")} for row in written_rows(9)]
    layout = {"part=7/place=b/a.parquet": (2, 2), "part=10/place=a/a.parquet": (3,), "part=10/place=b/a.parquet": (2,)}
    for path in layout:
        (tmp_path / path).parent.mkdir(parents=True)
    uri = write(tmp_path, layout, fields, data)
    dataset = PetastormDataset.open(uri, inputCols=["waves", "part"], labelCol="label", trusted=True)
    part_of = dict(enumerate([7] * 4 + [10] * 5))
    seen = {}
    for reader in readers(dataset, 2):
        for batch in reader.scan():
            seen.update(zip(batch.label.tolist(), batch.inputs[1].tolist(), strict=True))
    assert seen == part_of


def test_a_converter_is_known_without_petastorm():
    converter_class = type("SparkDatasetConverter", (), {"__module__": "petastorm.spark.spark_dataset_converter"})
    converter = converter_class()
    converter.cache_dir_url, converter.dataset_size = "file:///cache/x", 7
    assert converter_source(converter) == ConverterSource("file:///cache/x", 7)
    for other in ("file:///cache/x", None, SimpleNamespace(cache_dir_url="x", dataset_size=1), converter_class):
        assert converter_source(other) is None


LEAVES_ALL = """
import sys
import numpy, pyarrow, pyarrow.parquet, pyarrow.dataset, pyarrow.compute, pandas
def state():
    modules = [m for n, m in sys.modules.items() if n.split(".")[0] in ("pyarrow", "numpy") and m is not None]
    return {m.__name__: {k: id(v) for k, v in vars(m).items()} for m in modules}
before = state()
from sparkdl.data.petastorm_compat import import_petastorm
for name in ("petastorm", "petastorm.codecs", "petastorm.pytorch", "petastorm.spark", "petastorm.etl.rowgroup_indexing"):
    import_petastorm(name)
from petastorm import make_reader
from petastorm.spark import make_spark_converter
after = state()
for name, names in before.items():
    added = {k for k, v in after[name].items() if names.get(k) != v} - {m.split(".")[-1] for m in set(after) - set(before)}
    assert not added - {"__warningregistry__"}, (name, added)
for name in ("pyarrow.filesystem", "pyarrow.hdfs", "pyarrow.LocalFileSystem"):
    assert name not in sys.modules
for name in ("filesystem", "hdfs", "localfs", "LocalFileSystem"):
    assert not hasattr(pyarrow, name)
try:
    import pyarrow.filesystem
except ModuleNotFoundError:
    print("as it was")
"""


@pytest.mark.skipif(OLD_PYARROW, reason="pyarrow 14 has what Petastorm asks for")
def test_pyarrow_and_numpy_are_as_they_were():
    done = subprocess.run([sys.executable, "-c", LEAVES_ALL], capture_output=True, text=True)
    assert done.stdout == "as it was\n", done.stderr


@pytest.mark.skipif(not OLD_PYARROW, reason="there Petastorm's modules are given stand-ins")
def test_on_pyarrow_14_petastorm_is_untouched():
    import petastorm.reader

    assert (petastorm.reader.pq, petastorm.unischema.np) == (pq, np)


def test_a_function_that_refers_to_petastorm_travels_to_a_fresh_process():
    schema = unischema.Unischema("Test", FIELDS)
    schema_name, encode = schema._name, unischema.dict_to_spark_row

    def function(value):
        return encode.__module__, schema._name == schema_name, value

    shipped = pickle.dumps(with_petastorm(function))
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(5))"
    done = subprocess.run([sys.executable, "-c", code], input=shipped, capture_output=True)
    assert done.stdout.decode() == "('petastorm.unischema', True, 5)\n", done.stderr.decode()
