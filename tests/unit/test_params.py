"""A bad value is refused when it is set, by an error that names the Param, the rule and the value. No JVM needed."""

import inspect
import math

import numpy as np
import pytest
from torch import nn

from sparkdl.errors import InvalidParamError
from sparkdl.estimator import TorchEstimator
from sparkdl.params import DEFAULTS
from sparkdl.preprocess import Hashed, Numbers
from sparkdl.train.callbacks import Callback
from sparkdl.train.loggers import Logger

WHOLE = ["3", 1.5, True, [1], math.nan]
GOOD = {
    "model": [nn.Linear(2, 1), lambda: nn.Linear(2, 1), nn.ReLU],
    "loss": ["mse_loss", "CrossEntropyLoss", nn.functional.mse_loss, lambda outputs, label: outputs.sum()],
    "optimizer": ["adam", "SGD", lambda parameters: None],
    "optimizerParams": [{}, {"momentum": 0.9}],
    "learningRate": [1, 0.1, 1e-9, np.float32(0.5)],
    "task": ["regression", "binary", "multiclass"],
    "shapes": [{}, {"x": (2, 3)}, {"x": [2, 3]}, {"x": ()}],
    "batchSize": [1, 256, np.int64(8), 8.0],
    "epochs": [1, 100],
    "numProc": [0, 1, 8],
    "seed": [0, 2**31],
    "storePath": ["/tmp/x", "hdfs:///tmp", "s3://bucket/x"],
    "collective": ["auto", "horovod", "torch"],
    "trusted": [True, False],
    "verbose": [True, False],
    "probabilityAsVector": [True, False],
    "inputCols": [["a"], ["a", "b"]],
    "predictionCol": ["p"],
    "probabilityCol": ["p", ""],
    "frozen": [[], ["encoder.*", "*.bias"], "encoder.*"],
    "parameterGroups": [[], [{"params": "head.*", "lr": 0.1}], [{"params": ["a", "b"]}]],
    "weightCol": ["w"],
    "validationIndicatorCol": ["held_out"],
    "validationFraction": [0, 0.5, 0.999],
    "metrics": ["f1", ["f1", "auroc"], {"mine": "f1"}],
    "monitor": ["val_loss"],
    "patience": [0, 3],
    "minDelta": [0, 0.1],
    "callbacks": [[], [Callback(), Logger()]],
    "dropLast": [True, False],
    "accumulationSteps": [1, 8],
    "clipNorm": [0.1, 5],
    "precision": ["float32", "bfloat16", "float16"],
    "gradientCompression": ["float16", "bfloat16"],
    "compileModel": [True, False],
    "syncBatchNorm": [True, False],
    "scheduler": ["cosineannealing", "StepLR", lambda optimizer: None],
    "schedulerParams": [{}, {"gamma": 0.5}],
    "schedulerInterval": ["epoch", "step"],
    "learningRateScaling": ["none", "linear", "sqrt"],
    "minProc": [0, 2],
    "maxRetries": [0, 5],
    "stallTimeout": [0.5, 600],
    "checkpointDir": ["/tmp/x", "s3://bucket/x"],
    "checkpointEvery": ["1 epoch", "3 epochs", "500 steps"],
    "checkpointKeep": [1, 3],
    "resume": [True, False],
    "reader": ["arrow", "petastorm"],
    "memoryBudget": [1, 1 << 30],
}
BAD = {
    "model": [3, "resnet50", []],
    "loss": ["mse", 3, "relu"],
    "optimizer": ["adamm", 3, "Optimizer"],
    "optimizerParams": [3, [("lr", 1)], {1: 2}],
    "learningRate": [0, -1, math.nan, math.inf, "0.1", True, [0.1]],
    "task": ["classification", 3, True],
    "shapes": [3, {"x": 3}, {"x": (0,)}, {"x": (-1, 2)}, {"x": (1.5,)}, {"x": "ab"}, {1: (2,)}, {"x": (True,)}],
    "batchSize": [*WHOLE, 0, -1],
    "epochs": [*WHOLE, 0],
    "numProc": [*WHOLE, -1],
    "seed": [*WHOLE, -1],
    "storePath": ["", 3],
    "collective": ["mpi", "nccl", 3],
    "trusted": ["yes", 1, 0],
    "verbose": [2, "no"],
    "probabilityAsVector": ["yes", 1],
    "frozen": [3, [1], [""]],
    "parameterGroups": [3, [{}], [{"lr": 0.1}], {"params": "a"}, [{"params": 3}]],
    "weightCol": ["", 3],
    "validationIndicatorCol": ["", True],
    "validationFraction": [-0.1, 1, 1.5, math.nan, "0.1", True],
    "monitor": ["", 3],
    "patience": [*WHOLE, -1],
    "minDelta": [-1, math.nan, "0"],
    "callbacks": [3, [print], [Callback]],
    "dropLast": ["yes", 1],
    "accumulationSteps": [*WHOLE, 0],
    "clipNorm": [0, -1, math.nan, math.inf, True],
    "precision": ["half", "fp16", 16],
    "gradientCompression": ["int8", 16],
    "compileModel": [1],
    "syncBatchNorm": [1],
    "scheduler": ["cosin", 3],
    "schedulerParams": [3, [("gamma", 1)]],
    "schedulerInterval": ["batch", 3],
    "learningRateScaling": ["cubic", 2],
    "minProc": [*WHOLE, -1],
    "maxRetries": [*WHOLE, -1],
    "stallTimeout": [0, -1, math.nan, math.inf],
    "checkpointDir": ["", 3],
    "checkpointEvery": ["epoch", "0 epochs", "1 hour", 5, "1.5 epochs"],
    "checkpointKeep": [*WHOLE, 0],
    "resume": ["yes", 1],
    "reader": ["parquet", 3],
    "memoryBudget": [0, -1, "much", 1.5, True, "1 x"],
}


LISTS = ("shapes", "frozen", "metrics")  # kept in a form of their own


def cases(table):
    return [
        pytest.param(name, value, id=f"{name}-{value!r}"[:60]) for name, values in table.items() for value in values
    ]


@pytest.mark.parametrize(("name", "value"), cases(GOOD))
def test_a_good_value_is_kept(name, value):
    kept = TorchEstimator(**{name: value}).getOrDefault(name)
    assert kept is value or kept == (pytest.approx(value) if name == "learningRate" else value) or name in LISTS


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_a_bad_value_is_refused_when_it_is_set(name, value):
    setter = f"set{name[0].upper()}{name[1:]}"
    for attempt in (
        lambda: getattr(TorchEstimator(), setter)(value),
        lambda: TorchEstimator(**{name: value}),
        lambda: TorchEstimator().setParams(**{name: value}),
    ):
        with pytest.raises(InvalidParamError) as caught:
            attempt()
        assert caught.value.param == name
        assert f"'{name}' must be" in str(caught.value)
        assert "(got " in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("inputCols", "a"), ("inputCols", [1]), ("predictionCol", 3)])
def test_pyspark_s_own_params_refuse_as_pyspark_does(name, value):
    with pytest.raises(TypeError, match=name):
        getattr(TorchEstimator(), f"set{name[0].upper()}{name[1:]}")(value)


@pytest.mark.parametrize("name", ["epochs", "task", "batchSize", "labelCol", "storePath"])
def test_none_goes_back_to_the_default(name):
    estimator = TorchEstimator(**{name: {"task": "binary", "labelCol": "y", "storePath": "/tmp"}.get(name, 7)})
    assert estimator.isSet(name)
    assert getattr(estimator, f"set{name[0].upper()}{name[1:]}")(None) is estimator
    assert not estimator.isSet(name)


def test_a_near_miss_is_named():
    for name, value, meant in [
        ("task", "multi-class", "multiclass"),
        ("collective", "horvod", "horovod"),
        ("optimizer", "adm", "Adam"),
    ]:
        with pytest.raises(InvalidParamError, match=f"did you mean '{meant}'"):
            TorchEstimator(**{name: value})


def test_whole_numbers_and_shapes_are_kept_as_plain_ones():
    estimator = TorchEstimator(batchSize=np.int64(8), shapes={"x": [2, 3]})
    assert type(estimator.getBatchSize()) is int
    assert estimator.getShapes() == {"x": (2, 3)}


@pytest.mark.parametrize(("given", "kept"), [("512m", 512 << 20), ("2g", 2 << 30), ("2 GB", 2 << 30), ("100", 100)])
def test_a_size_may_be_written_as_spark_writes_them(given, kept):
    assert TorchEstimator(memoryBudget=given).getMemoryBudget() == kept


def test_defaults():
    estimator = TorchEstimator()
    told = {param.name: estimator.getOrDefault(param) for param in estimator.params if estimator.hasDefault(param)}
    columns = {"featuresCol": "features", "labelCol": "label", "predictionCol": "prediction"}  # pyspark.ml's own
    assert told == DEFAULTS | columns


def test_every_param_is_an_argument_and_every_default_is_one_that_its_param_takes():
    estimator = TorchEstimator()
    arguments = inspect.signature(TorchEstimator.__init__).parameters
    assert {param.name for param in estimator.params} == set(arguments) - {"self"}
    for name, value in DEFAULTS.items():
        if value is not None:
            assert TorchEstimator(**{name: value}).getOrDefault(name) == value


def test_each_param_has_a_setter_that_chains_a_getter_and_a_word_of_explanation():
    estimator = TorchEstimator()
    for param in estimator.params:
        name = f"{param.name[0].upper()}{param.name[1:]}"
        assert hasattr(estimator, f"get{name}")
        assert param.doc
        if param.name in GOOD:
            assert getattr(estimator, f"set{name}")(GOOD[param.name][0]) is estimator


@pytest.mark.parametrize("name", ["LBFGS", "SparseAdam"])
def test_an_optimizer_that_ranks_cannot_use_is_refused(name):
    with pytest.raises(InvalidParamError, match=f"cannot be {name}, which"):
        TorchEstimator(optimizer=name)


def test_positional_arguments_and_unknown_names_are_refused():
    with pytest.raises(TypeError):
        TorchEstimator(nn.Linear(2, 1))
    with pytest.raises(TypeError, match="learning_rate"):
        TorchEstimator(learning_rate=0.1)


def test_a_copy_with_other_values_leaves_the_first_alone():
    first = TorchEstimator(epochs=2)
    second = first.copy({first.epochs: 5})
    assert (first.getEpochs(), second.getEpochs()) == (2, 5)


@pytest.mark.parametrize("also", ["a", ("b", "a"), ("b", "b")])
def test_a_column_has_one_preprocessor(also):
    given = {("a", "c"): Numbers(), also: Hashed()}
    with pytest.raises(InvalidParamError, match=r"one preprocessor a column, and '[ab]' is there twice"):
        TorchEstimator().setParams(preprocess=given)
