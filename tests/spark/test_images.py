"""ImageClassifier on Spark: image files, their paths, Spark's own image rows; and rows that are none of these."""

import io

import numpy as np
import pytest
import torch
from PIL import Image as pillow
from pyspark.sql import Row
from torch import nn

from sparkdl import Bundle, ImageClassifier, Signature, TorchModel
from sparkdl.decode.labels import LabelDecoder
from sparkdl.errors import ColumnNotFoundError, DataError, InvalidParamError, SignatureError
from sparkdl.evaluate import evaluate
from sparkdl.preprocess import Image
from sparkdl.ready.backbones import SmallConvNet


def stripes(number):
    """A PNG of 8 × 10 pixels, its stripes lying or upright, and which."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 90, (8, 10, 3))
    lying = number % 2 == 0
    image[(slice(number % 3, None, 3),) if lying else (slice(None), slice(number % 3, None, 3))] += 120
    file = io.BytesIO()
    pillow.fromarray(image.astype(np.uint8)).save(file, "PNG")
    return file.getvalue(), "lying" if lying else "upright"


@pytest.fixture(scope="module")
def photos(spark):
    rows = [Row(id=i, photo=stripes(i)[0], kind=stripes(i)[1]) for i in range(96)]
    return spark.createDataFrame(rows, "id long, photo binary, kind string").repartition(2)


def classifier(**more):
    given = {
        "imageCol": "photo", "labelCol": "kind", "height": 8, "width": 8, "epochs": 6, "learningRate": 0.005,
        "batchSize": 16, "numProc": 1, "verbose": False, "seed": 3,
    }  # fmt: skip
    return ImageClassifier(**{**given, **more})


@pytest.fixture(scope="module")
def model(photos):
    return classifier(augment=["vertical_flip", {"random_crop": {"padding": 1}}]).fit(photos)


def test_fit_transform_evaluate(model, photos):
    scored = model.transform(photos)
    assert [kind for name, kind in scored.dtypes if name in ("prediction", "probability")] == ["string", "array<float>"]
    figures = evaluate(model, photos, "kind").figures
    assert figures["accuracy"] >= 0.95
    assert scored.where("prediction = kind").count() == round(96 * figures["accuracy"])


def test_save_load_and_the_bundle_alone(model, photos, tmp_path):
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    assert again.signature.inputs[0].preprocess == Image(height=8, width=8)
    expected = [row.probability for row in model.transform(photos.orderBy("id")).collect()]
    assert [row.probability for row in again.transform(photos.orderBy("id")).collect()] == expected
    assert Bundle.load(str(tmp_path / "model" / "bundle")).program.kind == "export"


BAD = [stripes(0)[0], b"", stripes(1)[0][:60], b"%PDF-1.4 no image", None, stripes(2)[0]]


def test_bad_rows_are_kept_with_a_reason_left_out_or_an_error(model, spark):
    df = spark.createDataFrame([Row(id=i, photo=file) for i, file in enumerate(BAD)], "id long, photo binary").coalesce(
        1
    )
    kept = model.copy().setParams(handleInvalid="keep", errorCol="why").transform(df).orderBy("id").collect()
    reasons = [row.why and row.why.partition(":")[0] for row in kept]
    assert reasons == [None, "undecodable", "undecodable", "undecodable", "null", None]
    assert [row.prediction is None for row in kept] == [why is not None for why in reasons]
    good = [row.prediction for row in kept if row.why is None]
    skipped = model.copy().setParams(handleInvalid="skip").transform(df).orderBy("id").collect()
    assert [(row.id, row.prediction) for row in skipped] == list(zip([0, 5], good, strict=True))
    with pytest.raises(Exception, match="'photo', row 1: expected a file, got an empty one"):
        model.transform(df).collect()


class Mean(nn.Module):
    """Of each channel, with no weights."""

    def forward(self, image):
        return image.float().mean(dim=(2, 3))


def test_files_their_paths_and_sparks_image_rows_are_one_and_the_same(spark, tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(stripes(number)[0])
    frames = {
        "content": spark.read.format("binaryFile").load(str(tmp_path)),
        "path": spark.read.format("binaryFile").load(str(tmp_path)),
        "image": spark.read.format("image").load(str(tmp_path)),
    }
    made = {}
    for column, df in frames.items():
        signature = Signature.from_dataframe(df, [column], preprocess={column: Image(height=4, width=4, resize="pad")})
        model = TorchModel(Bundle.from_module(Mean(), signature))
        made[column] = sorted(row.prediction for row in model.transform(df).collect())
    assert made["content"] == made["path"] == made["image"]
    assert len({tuple(one) for one in made["content"]}) == 5


def test_training_of_the_head_alone_on_sparks_image_rows(spark, tmp_path):
    for number in range(16):
        (tmp_path / f"{number:02d}.png").write_bytes(stripes(number)[0])
    torch.manual_seed(9)
    given = SmallConvNet(3, 10).state_dict()
    torch.save(given, tmp_path / "weights.pth")
    df = spark.read.format("image").option("pathGlobFilter", "*.png").load(str(tmp_path))
    df = df.selectExpr("image", "int(regexp_extract(image.origin, '([0-9]+).png', 1)) % 2 AS upright").coalesce(1)
    made = classifier(
        imageCol="image", labelCol="upright", freeze=True, weights=str(tmp_path / "weights.pth"), epochs=1
    ).fit(df)
    weights = made.bundle.weights
    assert torch.equal(weights["backbone.17.weight"], given["17.weight"])
    assert weights["backbone.23.weight"].shape == (2, 128)
    assert dict(made.transform(df).dtypes)["prediction"] == "bigint"


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"height": 0}, InvalidParamError, "'height' must be a whole number"),
        ({"channels": 2}, InvalidParamError, "'channels' must be 3, or 1"),
        ({"resize": "squash"}, InvalidParamError, "'resize' must be one of"),
        ({"augment": 3}, InvalidParamError, "'augment' must be a list"),
        ({"imageColumn": "photo"}, InvalidParamError, "did you mean 'imageCol'"),
        ({"augment": ["horizontal_flp"]}, InvalidParamError, "did you mean 'RandomHorizontalFlip'"),
        ({"backbone": "resnet81"}, InvalidParamError, "did you mean 'resnet18'"),
        ({"mean": [0.5]}, InvalidParamError, "'mean' must be a list of 3 numbers"),
        ({"std": [0.5, 0.0, 0.5]}, InvalidParamError, "'std' must be a list of 3 numbers above 0"),
        ({"mean": "gray"}, InvalidParamError, "'mean' must be a list of numbers"),
        ({"decoder": LabelDecoder(values=("a", "b"))}, InvalidParamError, "ImageClassifier sets 'decoder' itself"),
        ({"imageCol": "picture"}, ColumnNotFoundError, "picture"),
        ({"imageCol": "id"}, SignatureError, "column 'id' is long; Image takes binary or string or struct"),
        ({"labelCol": "same"}, DataError, "column 'same' holds one class only, 1"),
    ],
)
def test_what_is_refused_before_anything_is_trained(photos, params, error, message):
    with pytest.raises(error, match=message):
        classifier(**params).fit(photos.selectExpr("*", "1 AS same"))
