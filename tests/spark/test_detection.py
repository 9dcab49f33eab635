"""ObjectDetector on generated pictures of coloured shapes: fit, save, load, transform, evaluate, bad rows."""

import io

import numpy as np
import pytest

pytest.importorskip("torchvision")
from PIL import Image
from pyspark.sql import Row

from sparkdl import ObjectDetector, TorchModel
from sparkdl.errors import DataError, InvalidParamError
from sparkdl.evaluate import evaluate

pytestmark = pytest.mark.lane("latest")

LABELS = ("circle", "square")
COLOURS = ((220, 60, 50), (70, 90, 220))
SCHEMA = "id long, image binary, boxes array<struct<xmin:double,ymin:double,xmax:double,ymax:double,label:string>>"


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def row(number, generator):
    """A shape on gray noise, 32 pixels a side."""
    pixels = generator.integers(60, 110, (32, 32, 3)).astype(np.uint8)
    size, kind = int(generator.integers(10, 16)), number % 2
    left, top = (int(start) for start in generator.integers(0, 32 - size, 2))
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    inside = np.ones((size, size), bool) if kind else x**2 + y**2 <= size**2 / 4
    pixels[top : top + size, left : left + size][inside] = COLOURS[kind]
    box = Row(xmin=float(left), ymin=float(top), xmax=float(left + size), ymax=float(top + size), label=LABELS[kind])
    return (number, png(pixels), [box])


@pytest.fixture(scope="module")
def pictures(spark):
    generator = np.random.default_rng(0)
    return spark.createDataFrame([row(i, generator) for i in range(96)], SCHEMA).repartition(2).cache()


@pytest.fixture(scope="module")
def model(pictures):
    return ObjectDetector(
        height=32, width=32, mostBoxes=2, epochs=8, batchSize=8, learningRate=0.003, numProc=2, verbose=False
    ).fit(pictures)


def test_it_finds_them(model, pictures, tmp_path):
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    scored = again.transform(pictures)
    assert dict(scored.dtypes)["prediction"] == (
        "array<struct<xmin:double,ymin:double,xmax:double,ymax:double,score:float,label:string>>"
    )
    told = evaluate(again, pictures, "boxes")
    assert (told.task, told.rows, told.invalid) == ("boxes", 96, 0)
    assert told.figures["map_50"] > 0.6


def test_a_file_that_is_no_image_is_told(model, spark, pictures):
    bad = spark.createDataFrame([(1000, b"no image", []), (1001, None, [])], SCHEMA)
    kept = model.copy({model.handleInvalid: "keep", model.errorCol: "error"}).transform(bad.union(pictures.limit(2)))
    found = {one.id: (one.prediction, one.error) for one in kept.collect()}
    assert found[1000][0] is None
    assert found[1000][1].startswith("undecodable: column 'image'")
    assert found[1001][1].startswith("null: column 'image'")
    assert sum(error is None for _, error in found.values()) == 2


def test_a_box_outside_of_the_image_is_told(spark, pictures):
    outside = [Row(xmin=1.0, ymin=1.0, xmax=40.0, ymax=5.0, label="square")]
    bad = spark.createDataFrame([(0, pictures.first().image, outside)], SCHEMA).union(pictures.limit(8))
    with pytest.raises(DataError, match=r"'boxes'.*expected boxes with 0 <= xmin < xmax <= 32"):
        ObjectDetector(height=32, width=32, numProc=1, verbose=False).fit(bad)


def test_weights_are_refused(pictures):
    with pytest.raises(InvalidParamError, match="ObjectDetector takes no 'weightCol'"):
        ObjectDetector(height=32, width=32, weightCol="id").fit(pictures)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "resnet19"}, "did you mean 'resnet18'"),
        ({"unit": "percent"}, "'unit' must be one of"),
        ({"height": 8}, "'height' must be a whole number, at least 32"),
        ({"minScore": 1.0}, "'minScore' must be a number"),
        ({"size": 64}, "ObjectDetector has no Param 'size'"),
    ],
)
def test_a_bad_param_is_refused(params, message):
    with pytest.raises(InvalidParamError, match=message):
        ObjectDetector(**params)
