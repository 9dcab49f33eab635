"""Preprocessors and decoders through a fit, a bundle, transform and evaluate."""

import pytest
import torch
from pyspark.sql import Row

from sparkdl import Bundle, TorchEstimator, TorchModel
from sparkdl.decode.labels import LabelDecoder
from sparkdl.errors import ColumnNotFoundError, DataError, InvalidParamError, SignatureError
from sparkdl.evaluate import evaluate
from sparkdl.preprocess import Labels


@pytest.fixture(scope="module")
def flowers(spark):
    """Two features; the label is a text that they tell."""
    rows = []
    for i in range(120):
        kind = ("iris", "rose", "tulip")[i % 3]
        rows.append(Row(id=i, x=float(i % 3) + (i % 7) / 100, y=float(-(i % 3)) + (i % 5) / 100, kind=kind))
    return spark.createDataFrame(rows).repartition(2)


def estimator(**more):
    return TorchEstimator(
        model=lambda: torch.nn.Linear(2, 3), inputCols=["x", "y"], labelCol="kind", task="multiclass",
        preprocess={"kind": Labels()}, decoder=LabelDecoder(values=("iris", "rose", "tulip")),
        epochs=30, learningRate=0.1, batchSize=16, numProc=2, verbose=False, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(flowers):
    return estimator().fit(flowers)


def test_labels_of_text_are_learnt_and_predicted(model, flowers):
    scored = model.transform(flowers)
    assert dict(scored.dtypes)["prediction"] == "string"
    assert scored.where("prediction = kind").count() == 120
    assert evaluate(model, flowers, "kind").figures["accuracy"] == 1.0


def test_the_decoder_is_in_the_bundle(model, flowers, tmp_path):
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    assert again.signature == model.signature
    assert again.transform(flowers).where("prediction = kind").count() == 120
    assert Bundle.load(str(tmp_path / "model" / "bundle")).signature.decoder == model.signature.decoder


def test_the_label_that_nobody_knows_is_told_with_its_row(flowers):
    bad = estimator().setParams(preprocess={"kind": {"kind": "labels", "values": ["iris", "rose", "lily"]}})
    with pytest.raises(DataError, match=r"'kind'.*expected one of the 3 labels 'iris', 'rose', 'lily', got 'tulip'"):
        bad.fit(flowers)


@pytest.mark.parametrize(
    ("preprocess", "error", "message"),
    [
        ({"kind": {"kind": "label"}}, InvalidParamError, "did you mean 'labels'"),
        ({"kind": 3}, InvalidParamError, "must have a 'kind'"),
        ([Labels()], InvalidParamError, "a dictionary from columns"),
        ({"sort": Labels()}, ColumnNotFoundError, "sort"),
        ({"x": Labels()}, DataError, "'x' holds numbers that are not whole"),
        ({("x", "y"): Labels()}, SignatureError, "Labels takes 1 column "),
    ],
)
def test_what_does_not_fit_is_refused(flowers, preprocess, error, message):
    with pytest.raises(error, match=message):
        estimator().setParams(preprocess=preprocess).fit(flowers)


def test_labels_that_are_not_the_models_classes_are_refused(flowers):
    with pytest.raises(SignatureError, match="there are 2 labels, and the model tells 3 classes apart"):
        estimator().setParams(decoder=LabelDecoder(values=("iris", "rose"))).fit(flowers)


def test_a_setting_that_is_not_there_is_named():
    with pytest.raises(InvalidParamError, match=r"'value' of Labels.*did you mean 'values'"):
        Labels(value=("a",))
