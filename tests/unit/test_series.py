"""Series, the decoders of forecasts and anomalies, and the networks between them; no JVM."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparkdl.bundle import Bundle
from sparkdl.columns import BadRows
from sparkdl.decode.base import from_json as decoder_of
from sparkdl.decode.sequences import AnomalyDecoder, ForecastDecoder
from sparkdl.errors import InvalidParamError, SignatureError
from sparkdl.preprocess.base import from_json
from sparkdl.preprocess.series import Series
from sparkdl.ready.recurrent import AUTOENCODERS, CELLS, DenseCoder, Forecaster, RecurrentCoder, Surprise
from sparkdl.signature import Signature, TensorSpec

ONE = Series(length=3, mean=(10.0,), deviation=(2.0,))
TWO = Series(length=2, mean=(0.0, 10.0), deviation=(1.0, 2.0), missing="mean")


def read(series, rows, kind=None):
    return series.read({"x": pa.array(rows, kind)})


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.list_(pa.float32()), pa.list_(pa.int64()), pa.list_(pa.int64(), 3)]
)
def test_a_series_is_standardised(kind):
    made = read(ONE, [[10, 12, 8], [10, 10, 14]], kind)
    assert made.dtype == np.float32
    assert made.tolist() == [[[0], [1], [-1]], [[0], [0], [2]]]


def test_of_several_features_each_has_its_own_mean():
    assert read(TWO, [[[1.0, 12.0], [2.0, 8.0]]]).tolist() == [[[1, 1], [2, -1]]]


def test_what_is_missing_is_the_mean_if_it_may_be():
    assert read(TWO, [[[None, 12.0], [2.0, float("nan")]]]).tolist() == [[[0, 1], [2, 0]]]


def test_no_rows():
    assert read(ONE, [], pa.list_(pa.float64())).shape == (0, 3, 1)
    assert read(TWO, [], pa.list_(pa.list_(pa.float64()))).shape == (0, 2, 2)


def test_a_slice_of_a_column():
    column = pa.array([[1.0, 2.0], [10.0, 12.0, 8.0], None])
    assert ONE.read({"x": column.slice(1, 1)}).tolist() == [[[0], [1], [-1]]]


@pytest.mark.parametrize(
    ("series", "bad", "reason"),
    [
        (ONE, None, "null: column 'x': expected 3 × 1 numbers, got None"),
        (ONE, [10.0, None, 10.0], "null: column 'x': expected values that are not null or NaN, got a step without a value"),
        (ONE, [10.0, float("nan"), 10.0], "null: "),
        (ONE, [10.0, float("inf"), 10.0], "non-finite: column 'x': expected finite values"),
        (ONE, [10.0, -1e300, 10.0], "non-finite: "),
        (ONE, [], "shape: column 'x': expected 3 steps, got 0"),
        (ONE, [1.0, 2.0, 3.0, 4.0], "shape: column 'x': expected 3 steps, got 4"),
        (TWO, [[1.0, 2.0]], "shape: column 'x': expected 2 steps, got 1"),
        (TWO, [[1.0, 2.0], [1.0]], "shape: column 'x': expected 2 features in a step, got 1"),
        (TWO, [[1.0, 2.0], None], "shape: column 'x': expected 2 features in a step, got 0"),
        (TWO, [[1.0, 2.0], [float("inf"), 1.0]], "non-finite: "),
    ],
)  # fmt: skip
def test_bad_rows_are_told_each(series, bad, reason):
    good = [10.0, 10.0, 10.0] if series is ONE else [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(BadRows) as caught:
        read(series, [bad, good, bad])
    assert caught.value.rows == [0, 2]
    assert all(one.startswith(reason) for one in caught.value.reasons), caught.value.reasons


def test_settings_travel_as_json():
    for one in (ONE, TWO):
        assert from_json(json.loads(json.dumps(one.to_json()))) == one
    for one in (ForecastDecoder(mean=1.0, deviation=2.0), AnomalyDecoder(threshold=0.5)):
        assert decoder_of(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": -1}, "'length' of Series"),
        ({"length": 1 << 40}, "'length' of Series"),
        ({"mean": (1.0,)}, "as many"),
        ({"mean": (1.0,), "deviation": (0.0,)}, "above 0"),
        ({"mean": (float("nan"),), "deviation": (1.0,)}, "finite"),
        ({"missing": "zero"}, "'missing' of Series"),
        ({"lenght": 3}, "did you mean 'length'"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InvalidParamError, match=message):
        Series(**settings)


def modules():
    yield from (Forecaster(6, 2, 3, cell, 5, 2) for cell in CELLS)
    for cell in AUTOENCODERS:
        coder = DenseCoder(6, 2, 5, 3) if cell == "dense" else RecurrentCoder(6, 2, cell, 5, 1, 3)
        yield Surprise(coder, 2)


@pytest.mark.parametrize("module", modules(), ids=str)
def test_the_networks_export_and_a_bundle_gives_what_they_give(module):
    torch.manual_seed(0)
    preprocess = Series(length=6, mean=(0.0, 0.0), deviation=(1.0, 1.0))
    signature = Signature(
        (TensorSpec("x", "float32", (6, 2), ("x",), ("array<array<double>>",), preprocess=preprocess),)
    )
    bundle = Bundle.from_module(module, signature)
    assert bundle.program.kind == "export"
    rows = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(rows)).numpy()
    again = Bundle.from_files(bundle.files).predict({"x": rows})["prediction"]
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-6)


def outputs(*shape):
    return (TensorSpec("prediction", "float32", shape),)


def test_a_forecast_is_told_in_the_units_of_the_label():
    decoder = ForecastDecoder(mean=10.0, deviation=2.0)
    kinds = decoder.columns(outputs(2, 1))
    made = decoder.decode({"prediction": np.array([[[0.0], [1.0]], [[-1.0], [2.0]]], np.float32)}, {})
    assert {name: column.type for name, column in made.items()} == kinds == {"prediction": pa.list_(pa.float32())}
    assert made["prediction"].to_pylist() == [[10.0, 12.0], [8.0, 14.0]]


def test_a_score_above_the_threshold_is_an_anomaly():
    decoder = AnomalyDecoder(threshold=0.5)
    made = decoder.decode({"prediction": np.array([0.25, 0.5, 0.75], np.float32)}, {})
    assert {name: column.type for name, column in made.items()} == decoder.columns(outputs())
    assert made["prediction"].to_pylist() == [0.0, 0.0, 1.0]
    assert made["score"].to_pylist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("decoder", "shape"),
    [(ForecastDecoder(mean=0.0, deviation=1.0), (2,)), (ForecastDecoder(mean=0.0, deviation=1.0), (2, 2)), (AnomalyDecoder(threshold=0.0), (2,))],
)  # fmt: skip
def test_outputs_that_cannot_be_decoded(decoder, shape):
    with pytest.raises(SignatureError, match="the decoder takes one output"):
        decoder.columns(outputs(*shape))


def test_an_error_counts_more_in_a_feature_that_is_given_again_well():
    class Zero(torch.nn.Module):
        def forward(self, series):
            return torch.zeros_like(series)

    module = Surprise(Zero(), 2)
    rows = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert module(rows).tolist() == [0.25, 0.25]
    with torch.no_grad():
        module.log_variance.copy_(torch.log(torch.tensor([0.25, 1.0])))
    nll = [-torch.distributions.Normal(0.0, torch.tensor([0.5, 1.0])).log_prob(row).mean() for row in rows]
    expected = torch.stack(nll) - 0.5 * np.log(2 * np.pi)
    torch.testing.assert_close(module(rows), expected)
