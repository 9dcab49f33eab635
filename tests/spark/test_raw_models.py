"""Models as a first notebook has them, in torch and in Keras: fit, transform, save, load."""

import os

import numpy as np
import pytest
from pyspark.sql import Row
from torch import nn

from sparkdl import KerasEstimator, TorchEstimator, TorchModel
from sparkdl.errors import InvalidParamError
from sparkdl.evaluate import evaluate

pytestmark = pytest.mark.lane("spark35")

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")
ROWS = 48


class LastStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, steps):
        return self.head(self.lstm(steps)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(8, 2)

    def forward(self, tokens):
        attended, _ = self.attention(tokens, tokens, tokens)
        return self.head(self.encoder(attended).mean(1))


def feed_forward():
    return nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 1))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 10),
        )  # fmt: skip

    def forward(self, image):
        return self.layers(image.float() / 255)


def keras_conv_net():
    layers = keras.layers
    return keras.Sequential([
        keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(), layers.BatchNormalization(), layers.GlobalAveragePooling2D(),
        layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def keras_lstm():
    return keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(8), keras.layers.Dense(1, activation="sigmoid")])


MODELS = {
    "feed-forward 10-5-1": (TorchEstimator, feed_forward, (10,), "y", {"task": "regression"}),
    "ConvNet": (TorchEstimator, ConvNet, (3, 32, 32), "ten", {"task": "multiclass"}),
    "LSTM": (TorchEstimator, LastStep, (6, 3), "two", {"task": "multiclass"}),
    "self-attention": (TorchEstimator, Attention, (6, 8), "two", {"task": "multiclass"}),
    "Keras ConvNet": (KerasEstimator, keras_conv_net, (32, 32, 3), "ten", {"loss": "sparse_categorical_crossentropy"}),
    "Keras LSTM": (KerasEstimator, keras_lstm, (6, 3), "two", {"loss": "binary_crossentropy", "optimizer": "rmsprop"}),
}


@pytest.fixture(scope="module")
def rows(spark):
    """Random numbers of each shape, images as bytes; labels for each task."""
    generator = np.random.default_rng(0)
    made = []
    for i in range(ROWS):
        values = {
            name: generator.integers(0, 256, shape, dtype=np.uint8).tobytes()
            if 32 in shape
            else generator.standard_normal(shape).flatten().tolist()
            for name, (_, _, shape, _, _) in MODELS.items()
        }
        x = [float(value) for value in generator.standard_normal(4)]
        made.append(Row(**values, x=x, y=sum(x), ten=i % 10, two=i % 2))
    return spark.createDataFrame(made).repartition(2).cache()


@pytest.mark.parametrize("name", MODELS)
def test_fit_transform_save_load(rows, tmp_path, name):
    cls, make, shape, label, more = MODELS[name]
    estimator = cls(
        model=make,
        inputCols=[name],
        labelCol=label,
        shapes={name: shape},
        batchSize=16,
        numProc=1,
        verbose=False,
        **more,
    )
    model = estimator.fit(rows)
    assert np.isfinite(model.summary.history["loss"]).all()
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    assert again.bundle.program.kind == "export"
    scored = again.transform(rows).select("prediction").collect()
    assert len(scored) == ROWS
    assert all(row.prediction is not None for row in scored)


@pytest.fixture(scope="module")
def line(spark):
    """Scalar columns, whose sum is the label."""
    generator = np.random.default_rng(1)
    numbers = generator.standard_normal((64, 4)).astype(np.float32)
    made = [Row(**{f"x{i}": float(x) for i, x in enumerate(row)}, y=float(row.sum())) for row in numbers]
    return spark.createDataFrame(made).coalesce(1).cache()


COLUMNS = ["x0", "x1", "x2", "x3"]
HUNDRED = {"inputCols": COLUMNS, "labelCol": "y", "epochs": 100, "batchSize": 32, "numProc": 1, "verbose": False}


def test_dense_64_32_1_in_torch(line):
    layers = [nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)]
    model = TorchEstimator(model=nn.Sequential(*layers), loss="mse_loss", task="regression", **HUNDRED).fit(line)
    assert evaluate(model, line, "y").figures["r2"] > 0.95


@pytest.fixture(scope="module")
def dense(line):
    """In Keras: unbuilt, compiled, trained; with what it was before."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    given = keras.Sequential(
        [layers.Dense(64, "relu", name="first"), layers.Dense(32, "relu", name="second"), layers.Dense(1, name="third")]
    )
    given.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return given, KerasEstimator(model=given, **HUNDRED).fit(line)


def test_dense_64_32_1_in_keras(dense, line):
    given, model = dense
    assert not given.built  # the user's is as it was
    assert evaluate(model, line, "y").figures["r2"] > 0.95
    assert {"loss", "mae", "lr"} <= set(model.summary.history)
    names = [f"{layer}/{part}" for layer in ("first", "second", "third") for part in ("kernel", "bias")]
    assert list(model.bundle.weights) == names


def test_what_was_trained_is_in_the_bundle(dense, line, tmp_path):
    _, model = dense
    model.save(str(tmp_path / "model"))
    loaded = TorchModel.load(str(tmp_path / "model")).bundle.weights
    layers = keras.layers
    again = keras.Sequential([keras.Input((4,)), layers.Dense(64, "relu"), layers.Dense(32, "relu"), layers.Dense(1)])
    again.set_weights([loaded[name].numpy() for name in model.bundle.weights])
    found = model.transform(line).toPandas()
    expected = again.predict(found[COLUMNS].to_numpy(np.float32), verbose=0)[:, 0]
    np.testing.assert_allclose(found["prediction"], expected, rtol=1e-4, atol=1e-5)


def test_two_ranks_update_as_keras_fit_does(line):
    """Statistics of batch norm are each rank's own, so none here; whole batches of all rows."""
    keras.utils.set_random_seed(0)
    given = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    model = KerasEstimator(
        model=given, loss="mse", optimizer=keras.optimizers.SGD(0.1, momentum=0.9), inputCols=COLUMNS, labelCol="y",
        epochs=5, batchSize=32, numProc=2, verbose=False,
    ).fit(line)  # fmt: skip
    table = line.toPandas()
    given.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    x, y = table[COLUMNS].to_numpy(np.float32), table[["y"]].to_numpy(np.float32)
    given.fit(x, y, batch_size=64, epochs=5, shuffle=False, verbose=0)
    for ours, theirs in zip(model.bundle.weights.values(), given.get_weights(), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5)


def test_probabilities_are_what_keras_predicts(rows):
    keras.utils.set_random_seed(0)
    given = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    model = KerasEstimator(
        model=given, loss="binary_crossentropy", optimizer=keras.optimizers.SGD(1e-9), inputCols=["x"], labelCol="two",
        numProc=1, verbose=False,
    ).fit(rows)  # fmt: skip
    found = model.transform(rows).select("x", "prediction", "probability").toPandas()
    expected = given.predict(np.stack(found["x"].to_numpy()).astype(np.float32), verbose=0)[:, 0]
    np.testing.assert_allclose(np.stack(found["probability"].to_numpy())[:, 1], expected, atol=1e-5)
    assert (found["prediction"] == (expected > 0.5)).all()


def dense_of(*outputs, **more):
    x = keras.Input((4,))
    return keras.Model(x, [keras.layers.Dense(n, **more)(x) for n in outputs])


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (lambda: nn.Linear(4, 1), {"loss": "mse"}, "must be a keras.Model, or a function that makes one .got Linear"),
        (lambda: dense_of(1), {}, "'loss' must be set, or the model be compiled with one"),
        (lambda: dense_of(1, 1), {"loss": "mse"}, "the model has 2 outputs"),
        (lambda: dense_of(1), {"loss": "binary_crossentropy"}, "takes probabilities, and the model ends in 'linear'"),
        (lambda: dense_of(3, activation="softmax"),
         {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}, "takes logits .from_logits=True."),
        (lambda: dense_of(1, kernel_constraint="max_norm"), {"loss": "mse"}, "has a constraint"),
        (lambda: dense_of(1, activity_regularizer="l2"), {"loss": "mse"}, "has an activity_regularizer"),
        (lambda: dense_of(1), {"loss": "mse", "syncBatchNorm": True}, "'syncBatchNorm' does not go with this"),
        (lambda: dense_of(1), {"loss": "mse", "optimizer": "adm"}, "did you mean 'adam'"),
        (lambda: None, {"layers": [{"Dens": {"units": 1}}], "loss": "mse"}, "did you mean 'Dense'"),
        (lambda: None, {"layers": [{"Dense": {"unit": 1}}], "loss": "mse"}, "layer 0, Dense, does not take"),
        (lambda: None, {"layers": ["Dense"], "loss": "mse"}, "'layers' must be a list such as"),
        (lambda: dense_of(1), {"layers": [{"Dense": {"units": 1}}], "loss": "mse"}, "'model' does not go with this"),
        (lambda: dense_of(1), {"loss": "mes"}, "'loss' must be a name or an object of keras.losses"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(line, make, params, message):
    with pytest.raises(InvalidParamError, match=message):
        KerasEstimator(model=make(), inputCols=["x"], labelCol="y", **params).fit(line)
