"""Keras models in the training loop: the same updates as Keras' own fit, and what compile is told."""

import functools
import os

import cloudpickle
import numpy as np
import pytest
import torch
from batches import Batches

from sparkdl.errors import InvalidParamError
from sparkdl.train import tree
from sparkdl.train.collective import SingleProcess
from sparkdl.train.loop import Training, train

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")
from sparkdl.interop import keras_compile as compiled  # noqa: E402
from sparkdl.interop.keras import module  # noqa: E402

pytestmark = pytest.mark.lane("latest")

ROWS, BATCH = 48, 16


def sequential(outputs, activation=None, **of_kernel):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential([
        keras.Input((4,)), layers.Dense(8, activation="tanh", **of_kernel), layers.BatchNormalization(momentum=0.7),
        layers.Dense(outputs, activation=activation),
    ])  # fmt: skip


def data(task):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((ROWS, 4)).astype(np.float32)
    y = {
        "regression": x.sum(1),
        "binary": (x[:, 0] > 0).astype(np.float32),
        "multiclass": (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0),
    }[task]
    return x, y


def ours(model, x, y, loss, optimizer, epochs=3, activation=None):
    """Trained by the loop, through the pickles that a rank gets."""
    told = compiled.loss_of(loss)
    told = compiled.Loss(told.given, told.kind, activation)
    training = Training(
        module(model, activation), told, compiled.optimizer_of(optimizer), told.task, epochs, seed=0
    )  # fmt: skip
    training = cloudpickle.loads(cloudpickle.dumps(training))
    rows = [slice(i, i + BATCH) for i in range(0, ROWS, BATCH)]
    reader = Batches([([torch.from_numpy(x[some])], torch.from_numpy(y[some])) for some in rows])
    return train(training, reader, SingleProcess())


def theirs(model, x, y, loss, optimizer, epochs=3):
    model.compile(loss=loss, optimizer=optimizer)
    return model.fit(x, y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def assert_same(result, model):
    for name, value in module(model).state_dict().items():
        torch.testing.assert_close(result.weights[name], value, rtol=1e-5, atol=1e-5)


CASES = [
    ("regression", 1, None, "mse", lambda: "sgd"),
    ("regression", 1, None, "mae", lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)),
    ("regression", 1, None, keras.losses.Huber(0.5), lambda: "adam"),
    ("regression", 1, None, "mse", lambda: keras.optimizers.Adam(0.01, clipnorm=0.1)),
    ("regression", 1, None, "mse", lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1)),
    ("regression", 1, None, "mse", lambda: keras.optimizers.SGD(0.01, clipvalue=0.01)),
    ("regression", 1, None, "mse", lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)),
    ("regression", 1, None, "mse", lambda: "rmsprop"),
    ("regression", 1, None, lambda a, b: abs(a - b), lambda: "nadam"),
    ("regression", 1, None, "mse",
     lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5))),
    ("binary", 1, "sigmoid", "binary_crossentropy", lambda: "sgd"),
    ("binary", 1, None, keras.losses.BinaryCrossentropy(from_logits=True), lambda: "sgd"),
    ("multiclass", 3, "softmax", "sparse_categorical_crossentropy", lambda: "sgd"),
    ("multiclass", 3, None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), lambda: "sgd"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "outputs", "ends", "loss", "optimizer"), CASES)
def test_it_is_the_update_that_keras_fit_does(task, outputs, ends, loss, optimizer):
    x, y = data(task)
    activation = ends if ends in ("sigmoid", "softmax") else None
    model = sequential(outputs, ends)
    before = [weights.copy() for weights in model.get_weights()]
    result = ours(model, x, y, loss, optimizer(), activation=activation)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)  # the user's model is as it was
    losses = theirs(model, x, y, loss, optimizer())
    assert_same(result, model)
    assert [entry["loss"] for entry in result.history] == pytest.approx(losses, rel=1e-4)


def test_class_numbers_are_one_hot_for_the_loss_that_wants_it():
    x, y = data("multiclass")
    model = sequential(3, "softmax")
    result = ours(model, x, y, "categorical_crossentropy", "sgd", activation="softmax")
    theirs(model, x, np.eye(3, dtype=np.float32)[y], "categorical_crossentropy", "sgd")
    assert_same(result, model)


def test_regularizers_are_in_the_loss():
    x, y = data("regression")
    model = sequential(1, kernel_regularizer=keras.regularizers.L2(0.1), bias_regularizer="l1")
    result = ours(model, x, y, "mse", "sgd")
    losses = theirs(model, x, y, "mse", "sgd")
    assert_same(result, model)
    assert [entry["loss"] for entry in result.history] == pytest.approx(losses, rel=1e-4)


def test_weights_make_a_loss_a_row():
    loss = compiled.Loss(compiled.loss_of("mse").given, "MeanSquaredError", rows=True)
    assert loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])).tolist() == [0.0, 4.0]
    assert compiled.loss_of("mse", [3.0])(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])).item() == 6.0


def test_the_layers_own_kind_go_along():
    class Twice(keras.layers.Layer):
        def call(self, x):
            return x * 2

    made = module(keras.Sequential([keras.Input((2,)), Twice(), keras.layers.Dense(1)]))
    again = cloudpickle.loads(cloudpickle.dumps(made))
    x = torch.ones(3, 2)
    torch.testing.assert_close(again.eval()(x), made.eval()(x))


def test_dropout_follows_torchs_generator():
    made = module(keras.Sequential([keras.Input((50,)), keras.layers.Dropout(0.5)]))
    x, drawn = torch.ones(1, 50), []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        drawn.append(made.train()(x))
    assert drawn[0].equal(drawn[2])
    assert not drawn[0].equal(drawn[1])
    assert made.eval()(x).equal(x)
    assert not made.state_dict()


def test_statistics_are_averaged_over_ranks():
    made = module(sequential(1))
    assert len(made.averaged_buffers) == 2


def test_the_optimizer_goes_on_from_its_state():
    def stepped(optimizer, parameter, times):
        for _ in range(times):
            parameter.grad = parameter.detach() * 2
            optimizer.step()

    make = compiled.optimizer_of(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.5, 10)))
    whole, parts = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    stepped(make([whole]), whole, 5)
    first = make([parts])
    stepped(first, parts, 2)
    second = make([parts])
    second.load_state_dict(tree.load(tree.dump(first.state_dict())))
    stepped(second, parts, 3)
    assert parts.equal(whole)


def test_a_rate_of_ones_own():
    optimizer = compiled.optimizer_of("adam", 0.25)([torch.nn.Parameter(torch.ones(1))])
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert compiled.optimizer_of("adam").settings["epsilon"] == 1e-7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: compiled.loss_of("mean_sqared_error"), "'loss' must be a name or an object of keras.losses.*did you mean"),
        (lambda: compiled.loss_of(["mse", "mae"]), "'loss' must be one loss"),
        (lambda: compiled.loss_of(keras.losses.MeanSquaredError(reduction="sum")), "not 'sum'"),
        (lambda: compiled.loss_of("mse", [1.0, 2.0]), "'lossWeights' must be one number"),
        (lambda: compiled.optimizer_of("adm"), "'optimizer' must be a name.*did you mean 'adam'"),
        (lambda: compiled.optimizer_of(keras.optimizers.Adam(use_ema=True)), "without 'use_ema'"),
        (lambda: compiled.optimizer_of(keras.optimizers.Adam(gradient_accumulation_steps=2)), "accumulationSteps"),
        (lambda: compiled.metrics_of(["presision"]), "'metrics' must be of .*did you mean 'precision'"),
        (lambda: compiled.metrics_of([keras.metrics.Precision(0.7)]), "Precision as it is by default"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_by_name(make, message):
    with pytest.raises(InvalidParamError, match=message):
        make()


def test_metrics_by_keras_names():
    given = ["accuracy", "mae", keras.metrics.AUC(), keras.metrics.RootMeanSquaredError(), "f1"]
    assert compiled.metrics_of(given) == ["mae", "auroc", "rmse", "f1"]


def test_what_a_loss_is_for():
    assert compiled.loss_of("mse").task == "regression"
    assert compiled.loss_of(functools.partial(keras.losses.binary_crossentropy, from_logits=True)).task == "binary"
    assert not compiled.loss_of(
        functools.partial(keras.losses.binary_crossentropy, from_logits=True)
    ).takes_probabilities
    assert compiled.loss_of("sparse_categorical_crossentropy").takes_probabilities
    assert compiled.loss_of(lambda y_true, y_pred: y_pred).task is None
