"""What a user can get wrong. Each is an error of ours that names the place, what was expected and what was there;
whatever can be known before anything is launched, is."""

from __future__ import annotations

import os
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from sparkdl import Bundle, Signature, TensorSpec, TorchEstimator, TorchModel, materialize
from sparkdl.errors import (
    BundleError,
    BundleIntegrityError,
    BundleNotFoundError,
    ColumnNotFoundError,
    DataError,
    EmptyDatasetError,
    InvalidParamError,
    ModelNotPicklableError,
    NonFiniteLossError,
    NotEnoughSlotsError,
    RankFailedError,
    SignatureError,
    StoreError,
    TooFewRowsError,
    UntrustedBundleError,
)


def estimator(**settings) -> TorchEstimator:
    usual = {"model": nn.Linear(4, 1), "task": "regression", "labelCol": "target", "numProc": 2, "verbose": False}
    return TorchEstimator(**(usual | settings))


def refused(error, match, df, **settings):
    """The error of a fit that is refused."""
    with pytest.raises(error, match=match) as caught:
        estimator(**settings).fit(df)
    return caught.value


# Columns


def test_unknown_columns_name_the_nearest(points, jobs):
    error = refused(ColumnNotFoundError, "did you mean 'features'", points, inputCols=["featurs"])
    assert (error.column, error.available) == ("featurs", points.columns)
    assert refused(ColumnNotFoundError, "did you mean 'target'", points, labelCol="Targe").column == "Targe"
    assert refused(ColumnNotFoundError, "in shapes.*'feature' is not.*'features'", points, shapes={"feature": (2, 2)})
    assert jobs() <= 1, "a row is looked at for the shape of features, to see that the label is not there"


def test_a_string_label_is_told_how_to_become_a_number(points):
    df = points.selectExpr("features", "cast(side as string) label")
    assert refused(SignatureError, "StringIndexer", df, labelCol="label").column == "label"


@pytest.mark.parametrize(
    ("kind", "expression"),
    [("map", "map('a', id)"), ("timestamp", "current_timestamp()"), ("array", "array('a')"), ("binary", "unhex('00')")],
)
def test_types_that_no_tensor_holds(points, kind, expression):
    df = points.selectExpr("target", f"{expression} as features")
    error = refused(SignatureError, "'features'", df)
    assert error.column == "features"
    assert kind in str(error)


# Rows


@pytest.mark.parametrize(
    ("label", "task", "expected", "got"),
    [
        ("if(id = 7, null, target)", "regression", "float32", None),
        ("if(id = 7, double('NaN'), target)", "regression", "a number", "nan"),
        ("if(id = 7, 2, side)", "binary", "a class number from 0 to 1", "2.0"),
        ("if(id = 7, 4, quadrant)", "multiclass", "a class number from 0 to 3", "4"),
        ("if(id = 7, -1, quadrant)", "multiclass", "a class number from 0 to 3", "-1"),
        ("if(id = 7, 1.5d, double(quadrant))", "multiclass", "whole numbers", "1.5"),
        ("if(id = 7, null, quadrant)", "multiclass", "int64", None),
    ],
)
def test_bad_labels_are_named(points, label, task, expected, got):
    df = points.where("id > 4").selectExpr("features", f"{label} as label")
    outputs = 4 if task == "multiclass" else 1
    error = refused(DataError, "'label'", df, model=nn.Linear(4, outputs), task=task, labelCol="label")
    assert (error.column, error.row, error.file) == ("label", 2, None)
    assert expected in str(error)
    assert str(got) in str(error)


@pytest.mark.parametrize(
    ("features", "expected", "got"),
    [
        ("if(id = 300, null, features)", "float32", None),
        ("if(id = 300, slice(features, 1, 3), features)", "4 values", "3 values"),
        ("if(id = 300, array(1f, null, 1f, 1f), features)", "not null", "a null inside"),
    ],
)
def test_bad_features_are_named_also_beyond_the_sample(points, features, expected, got):
    error = refused(DataError, "'features'", points.selectExpr("target", f"{features} as features"))
    assert error.column == "features"
    assert error.row == 300 - 266  # its partition starts at 266
    assert expected in str(error)
    assert str(got) in str(error)


def test_a_wrong_length_in_row_one_million_and_one(spark, tmp_path):
    """Column, file, row of the file, expected, got."""
    rows, bad = 1_000_010, 1_000_000
    lengths = np.full(rows, 2, dtype=np.int32)
    lengths[bad] = 3
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.random.default_rng(0).random(offsets[-1], dtype=np.float32)
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    table = pa.table({"features": column, "target": pa.array(np.zeros(rows, dtype=np.float32))})
    (tmp_path / "table").mkdir()
    pq.write_table(table.slice(0, 100), tmp_path / "table" / "a-good.parquet")
    pq.write_table(table, tmp_path / "table" / "b-bad.parquet", row_group_size=100_000)
    df = spark.read.parquet(str(tmp_path / "table"))
    error = refused(DataError, "'features'", df, model=nn.Linear(2, 1))
    assert (error.column, error.row, error.expected, error.got) == ("features", bad, "2 values", "3 values")
    assert error.file.endswith("/table/b-bad.parquet")
    for told in ("'features'", "row 1000000", "b-bad.parquet", "2 values", "3 values"):
        assert told in str(error)


def test_no_rows_and_too_few(points):
    for empty in (points.where("id < 0"), points.where("id < 0").selectExpr("target", "float(id) features")):
        assert refused(EmptyDatasetError, "no rows", empty, model=nn.Linear(1, 1), shapes={})
    error = refused(TooFewRowsError, "2 ranks cannot share 1 row", points.where("id = 3"))
    assert (error.rows, error.ranks) == (1, 2)


# Model, loss, optimizer


def test_a_model_that_does_not_take_the_columns_shows_both_sides(points):
    error = refused(SignatureError, "does not take these inputs", points, model=nn.Linear(5, 1))
    for told in ("float32[B, 4]", "in_features=5", "mat1 and mat2"):
        assert told in str(error)
    two = points.selectExpr("features[0] a", "features[1] b", "target")

    class Three(nn.Module):
        def forward(self, x, y, z):
            return x + y + z

    error = refused(SignatureError, r"\['x', 'y', 'z'\].*\['a', 'b'\]", two, model=Three(), inputCols=["a", "b"])


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (nn.Linear(4, 1), {"task": None, "loss": "mse_loss"}),  # (B, 1) against (B,): torch would make it (B, B)
        (nn.Linear(4, 3), {"task": "regression"}),
        (nn.Linear(4, 3), {"task": None, "loss": "SmoothL1Loss"}),
        (nn.Linear(4, 1), {"task": None, "loss": "cross_entropy"}),
    ],
)
def test_a_loss_that_does_not_fit_outputs_and_label(points, jobs, model, settings):
    error = refused(SignatureError, "the loss does not take", points, model=model, **settings)
    assert "target: float" in str(error)


@pytest.mark.parametrize(("value", "told"), [(lambda o, y: (o - y) ** 2, r"got \(\d"), (lambda o, y: 1.0, "float")])
def test_a_loss_that_is_not_one_number(points, value, told):
    refused(SignatureError, f"one number.*{told}", points, loss=value, inputCols=["target"], model=nn.Flatten(0))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(dim=0)


@pytest.mark.parametrize(
    ("task", "label", "model", "told"),
    [
        ("multiclass", "quadrant", nn.Linear(4, 1), "C >= 2"),
        ("multiclass", "quadrant", nn.Flatten(0), "C >= 2"),
        ("binary", "side", nn.Linear(4, 2), r"\(B, 1\) logits"),
        ("regression", "target", Pair(), "returns one tensor"),
        (None, "target", Mean(), "first dimension"),
    ],
)
def test_outputs_that_do_not_fit_the_task(points, task, label, model, told):
    refused(SignatureError, told, points, task=task, labelCol=label, model=model, loss="mse_loss")


def test_models_that_are_none(points, jobs):
    refused(InvalidParamError, "must make an nn.Module", points, model=lambda: 3)
    with pytest.raises(InvalidParamError, match="'model' must be an nn"):
        estimator(model="linear")
    with pytest.raises(InvalidParamError, match="'model' must be set"):
        TorchEstimator(numProc=2).fit(points)
    assert jobs() == 0


class Holding(nn.Module):
    """Holds what cannot travel, one level down."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 1)
        self.inner.guard = threading.Lock()

    def forward(self, x):
        return self.inner(x)


def test_a_model_that_cannot_travel_names_the_attribute(points):
    error = refused(ModelNotPicklableError, r"inner\.guard", points, model=Holding())
    assert "inner.guard (lock)" in error.what


def test_a_loss_of_nan_names_epoch_and_step(points, tmp_path):
    """The rows are the same on both ranks, so that the step is known: the third of the second epoch."""
    df = points.selectExpr("array(1f, 1f, 1f, 1f) features", "1d target").limit(64).coalesce(1)

    class Counting:
        """The label's mean, but NaN from the seventh call on a rank on."""

        calls = 0

        def __call__(self, outputs, label):
            self.calls += outputs.requires_grad
            return nn.functional.mse_loss(outputs, label) * (float("nan") if self.calls >= 7 else 1.0)

    store = tmp_path / "store"
    settings = {"loss": Counting(), "batchSize": 8, "epochs": 3, "storePath": str(store)}
    error = refused(NonFiniteLossError, "nan in epoch 1, step 2", df, **settings)
    assert (error.epoch, error.step) == (1, 2)
    assert isinstance(error.__cause__, RankFailedError)
    assert os.listdir(store) == [], "the run's directory is gone after a failure, too"
    settings = {"optimizer": "sgd", "learningRate": 1e30, "batchSize": 16}
    assert refused(NonFiniteLossError, "lower the", points, **settings).epoch == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optimizer": "Adan"}, "'Adam'"),
        ({"loss": "mse_los"}, "'mse_loss'"),
        ({"loss": "CrossEntropy"}, "'cross_entropy'"),
        ({"task": "multi-class"}, "'multiclass'"),
        ({"collective": "horovd"}, "'horovod'"),
        ({"batchSize": 0}, "at least 1"),
        ({"batchSize": 2.5}, "whole number"),
        ({"epochs": True}, "whole number"),
        ({"numProc": -1}, "at least 0"),
        ({"learningRate": float("nan")}, "above 0"),
        ({"shapes": {"features": (0,)}}, "shapes such as"),
        ({"optimizer": 3}, "torch.optim"),
        ({"storePath": ""}, "not empty"),
        ({"verbose": "no"}, "True or False"),
    ],
)
def test_a_bad_value_is_refused_when_it_is_set(spark, settings, told):
    ((name, value),) = settings.items()
    with pytest.raises(InvalidParamError) as caught:
        TorchEstimator(**settings)
    assert (caught.value.param, told in str(caught.value)) == (name, True)
    assert caught.value.value == value or value != value
    with pytest.raises(InvalidParamError):
        getattr(TorchEstimator(), f"set{name[0].upper()}{name[1:]}")(value)


def test_an_argument_that_the_optimizer_does_not_take(points, jobs):
    refused(InvalidParamError, "did you mean 'weight_decay'", points, optimizerParams={"wieght_decay": 0.1})


# Where it runs


def test_more_ranks_than_slots(points, jobs):
    error = refused(NotEnoughSlotsError, "16 ranks.*has 2", points, numProc=16)
    assert (error.needed, error.available, jobs()) == (16, 2, 0)


def test_a_store_that_cannot_be_written(points, tmp_path, jobs):
    (tmp_path / "file").write_text("not a folder")
    place = f"{tmp_path}/file/store"
    assert refused(StoreError, "storePath", points, storePath=place).uri == place
    refused(StoreError, "no-such-scheme", points, storePath="no-such-scheme://bucket/x")
    assert jobs() == 0


# Models and bundles


@pytest.fixture(scope="module")
def bundle():
    spec = TensorSpec("features", "float32", (4,), ("features",), ("array<float>",))
    return Bundle.from_module(nn.Linear(4, 3), Signature((spec,)), task="multiclass")


def test_transform_without_its_columns(points, bundle, jobs):
    model = TorchModel(bundle)
    with pytest.raises(ColumnNotFoundError, match="did you mean 'Features_'") as caught:
        model.transform(points.withColumnRenamed("features", "Features_"))
    assert caught.value.column == "features"


@pytest.mark.parametrize("expression", ["cast(id as string)", "id", "array(features)", "unhex('00')"])
def test_transform_of_another_type(points, bundle, jobs, expression):
    with pytest.raises(SignatureError, match="the model takes array<float>") as caught:
        TorchModel(bundle).transform(points.selectExpr(f"{expression} as features"))
    assert (caught.value.column, caught.value.expected, jobs()) == ("features", "array<float>", 0)


@pytest.mark.parametrize(("there", "taken"), [("prediction", "prediction"), ("PROBABILITY", "probability")])
def test_an_output_must_not_take_a_column_s_name(points, bundle, there, taken):
    df = points.withColumnRenamed("target", there)
    with pytest.raises(SignatureError, match=f"there is '{there}' already") as caught:
        TorchModel(bundle).transform(df)
    assert (caught.value.column, caught.value.got) == (taken, there)
    renamed = TorchModel(bundle).setParams(**{f"{taken}Col": "another"}).transform(df)
    assert {there, "another"} < set(renamed.columns)


def test_two_outputs_must_not_share_a_name(points, bundle):
    with pytest.raises(SignatureError, match="'Prediction'"):
        TorchModel(bundle).setParams(probabilityCol="Prediction").transform(points)


def test_a_bad_row_stops_scoring_and_is_named(points, bundle):
    df = points.selectExpr("if(id = 399, slice(features, 1, 2), features) as features")
    with pytest.raises(Exception, match=r"DataError.*'features', row \d+: expected 4 values, got 2 values"):
        TorchModel(bundle).transform(df).collect()


def test_a_model_needs_a_bundle(spark):
    with pytest.raises(InvalidParamError, match=r"takes a Bundle.*None"):
        TorchModel(None)


def test_no_model_or_half_a_model(spark, bundle, tmp_path):
    with pytest.raises(BundleNotFoundError, match="no saved TorchModel"):
        TorchModel.load(str(tmp_path / "nothing"))
    path = tmp_path / "model"
    TorchModel(bundle).write().save(str(path))
    with pytest.raises(BundleError, match="overwrite"):
        TorchModel(bundle).write().save(str(path))
    TorchModel.load(str(path))
    (path / "bundle" / "manifest.json").unlink()  # the last file that save writes
    with pytest.raises(BundleNotFoundError):
        TorchModel.load(str(path))
    TorchModel(bundle).write().overwrite().save(str(path))
    weights = path / "bundle" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleIntegrityError, match="weights"):
        TorchModel.load(str(path))


class Branching(nn.Module):
    """Takes a branch by its data, which torch.export cannot."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 1)

    def forward(self, x):
        return self.inner(x) if x.sum() > -1e9 else -self.inner(x)


def test_code_travels_only_when_trusted(points, tmp_path, jobs):
    refused(UntrustedBundleError, "trusted=True", points, model=Branching())
    model = estimator(model=Branching(), trusted=True).fit(points)
    assert model.bundle.program.kind == "pickle"
    path = str(tmp_path / "model")
    model.write().save(path)
    with pytest.raises(UntrustedBundleError, match="trusted=True"):
        TorchModel.load(path)
    loaded = TorchModel.load(path, trusted=True)
    linear = loaded.bundle.module().inner
    for row in loaded.transform(points.where("id < 5")).collect():
        assert row.prediction == pytest.approx(linear(torch.tensor(row.features)).item(), abs=1e-6)


# Training


def test_validation_is_told_one_way_and_by_a_boolean(points, jobs):
    df = points.selectExpr("*", "id % 2 as odd", "cast(null as boolean) as unknown")
    refused(InvalidParamError, "not both", df, validationIndicatorCol="odd", validationFraction=0.5)
    error = refused(SignatureError, r"'odd' must be boolean \(got long\)", df, validationIndicatorCol="odd")
    assert error.column == "odd"
    assert refused(ColumnNotFoundError, "did you mean 'odd'", df, validationIndicatorCol="od").column == "od"
    refused(DataError, "'unknown'", df, validationIndicatorCol="unknown")
    with pytest.raises(InvalidParamError, match="validationFraction"):
        estimator(validationFraction=1.0)


@pytest.mark.parametrize("weight", ["-1.0", "double('nan')", "double('inf')", "cast(null as double)"])
def test_a_weight_that_is_none_names_its_row(points, weight):
    df = points.selectExpr("*", f"if(id = 7, {weight}, 1.0d) as w")
    assert refused(DataError, "'w', row 7", df.coalesce(1), weightCol="w").column == "w"


def test_weights_are_numbers_and_their_loss_is_a_row_s(points):
    df = points.selectExpr("*", "cast(id as string) as text")
    assert refused(SignatureError, "weight column 'text' is string", df, weightCol="text").column == "text"
    refused(SignatureError, "'features'", df, weightCol="features")
    refused(SignatureError, "a loss a row", df, weightCol="id", loss=lambda outputs, label: outputs.mean())


def test_metrics_and_the_monitored_one_are_known(points, jobs):
    refused(InvalidParamError, "did you mean 'meansquarederror'", points, metrics=["mean_squared_eror"])
    refused(InvalidParamError, "one of task 'binary' or 'multiclass'", points, metrics=["auroc"])
    refused(InvalidParamError, "'monitor' must be one of", points, monitor="val_loss")
    refused(
        InvalidParamError, "did you mean 'val_mse'", points, metrics=["mse"], monitor="val_mze", validationFraction=0.5
    )
    assert jobs() <= 8, "rows are looked at for shapes, nothing is launched"


def test_parameters_are_named_by_patterns_that_match(points, jobs):
    refused(
        InvalidParamError,
        "no parameter of the model matches 'wieght'.*did you mean 'weight'",
        points,
        frozen=["wieght"],
    )
    refused(InvalidParamError, "no parameter to train", points, frozen=["*"])
    groups = [{"params": "head.*", "lr": 1.0}]
    refused(InvalidParamError, "'parameterGroups': no parameter.*'head", points, parameterGroups=groups)
    weights = {"weight": torch.zeros(1, 3), "bais": torch.zeros(1)}
    error = refused(
        InvalidParamError, "'bias' is missing.*'bais' is not in the model.*shape", points, initialWeights=weights
    )
    assert error.param == "initialWeights"
    refused(InvalidParamError, "a state_dict", points, initialWeights=3)
    refused(BundleNotFoundError, "nowhere", points, initialWeights="/nowhere")
    assert jobs() <= 2, "a row is looked at for its shape"


def test_recipes_that_do_not_go_together(points):
    refused(InvalidParamError, "do not go together", points, compileModel=True, syncBatchNorm=True)
    refused(InvalidParamError, "'minProc' must not be above", points, minProc=3)
    refused(TooFewRowsError, "do not fill one batch", points.where("id < 10"), dropLast=True)
    refused(InvalidParamError, "needs 'step_size'|step_size", points, scheduler="StepLR")


def test_what_is_no_training_data_is_refused(points, tmp_path):
    refused(InvalidParamError, "fit takes a DataFrame", 3)
    refused(StoreError, "no .finished. dataset", str(tmp_path))


def test_a_dataset_is_asked_for_what_it_has(points, tmp_path, jobs):
    data = materialize(points, str(tmp_path / "d"), inputCols=["features"], labelCol="quadrant")
    before = jobs()
    refused(InvalidParamError, "'validationFraction' is for a DataFrame", data, validationFraction=0.5)
    refused(InvalidParamError, "'weightCol' 'w' is not in the dataset", data, weightCol="w")
    refused(ColumnNotFoundError, "did you mean 'features'", data, inputCols=["feature"])
    refused(DataError, "class numbers from 0 to 1", data, task="binary", loss=None)
    assert jobs() == before


def test_a_corrupt_row_group_is_named(points, tmp_path):
    data = materialize(points.coalesce(1), str(tmp_path / "d"), inputCols=["features"], labelCol="target")
    path = tmp_path / "d" / data.files[0].path
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)  # the header of its first page
    path.write_bytes(content)
    error = refused(DataError, "row group 0 of", data, labelCol="target", maxRetries=2)
    assert error.file == str(path)
