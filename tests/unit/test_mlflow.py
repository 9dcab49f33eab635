"""MLflow models in and out, without Spark: its own client runs what we write, and we take what it wrote."""

import shutil

import models
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from making import signature, spec
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, BundleNotFoundError, ColumnNotFoundError, SignatureError, UntrustedBundleError
from sparkdl.signature import Signature, TensorSpec

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("mlflow.pyfunc")

INPUTS = Signature((
    TensorSpec("x", "float32", (4,), ("features",), ("array<double>",)),
    TensorSpec("key", "int64", (), ("key",), ("long",)),
    TensorSpec("pair", "float32", (2,), ("a", "b"), ("short", "decimal")),
))  # fmt: skip
FRAME = pd.DataFrame({
    "features": [[0.5, 1.0, -1.0, 2.0], [1.0, 2.0, 3.0, 4.0]], "key": [1, 2], "a": np.array([1, 2], np.int32), "b": [0.5, 0.25],
})  # fmt: skip


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.embedding = nn.Embedding(5, 3)

    def forward(self, x, key, pair):
        return self.linear(torch.cat([x, pair], dim=1)) + self.embedding(key)


@pytest.fixture(scope="module")
def bundle():
    torch.manual_seed(0)
    return Bundle.from_module(Mixed(), INPUTS, task="multiclass")


@pytest.fixture(scope="module")
def written(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    bundle.to_mlflow(str(folder))
    return str(folder)


def test_mlflow_s_own_client_runs_it(bundle, written):
    predicted = mlflow.pyfunc.load_model(written).predict(FRAME)
    expected = bundle.predict({
        "x": np.array(FRAME["features"].tolist(), np.float32), "key": FRAME["key"].to_numpy(),
        "pair": FRAME[["a", "b"]].to_numpy(np.float32),
    })  # fmt: skip
    assert list(predicted) == ["prediction", "probability"]
    np.testing.assert_array_equal(predicted["prediction"], expected["prediction"])
    np.testing.assert_allclose(predicted["probability"].tolist(), expected["probability"], rtol=1e-6)


def test_it_tells_its_columns_by_mlflow_s_types(written):
    described = mlflow.models.get_model_info(written).signature
    assert [(c.name, str(c.type)) for c in described.inputs] == [
        ("features", "Array(double)"), ("key", "DataType.long"), ("a", "DataType.integer"), ("b", "DataType.double"),
    ]  # fmt: skip
    assert [(c.name, str(c.type)) for c in described.outputs] == [
        ("prediction", "DataType.double"), ("probability", "Array(float)"),
    ]  # fmt: skip


def test_it_holds_the_bundle_and_comes_back_to_the_bit(bundle, written, tmp_path):
    assert Bundle.from_mlflow(written).digest == bundle.digest
    for uri in (f"file://{written}", f"file:{written}"):
        assert Bundle.from_mlflow(uri).digest == bundle.digest
    spaced = tmp_path / "with space"
    shutil.copytree(written, spaced)
    assert Bundle.from_mlflow(spaced.as_uri()).digest == Bundle.from_mlflow(str(spaced)).digest == bundle.digest


def test_a_folder_that_is_not_empty_is_left_alone(bundle, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(BundleError, match="there is something at"):
        bundle.to_mlflow(str(tmp_path))


def test_a_missing_column_is_named(written):
    from sparkdl.interop.mlflow import _load_pyfunc

    with pytest.raises(ColumnNotFoundError, match="'key' is not in the DataFrame"):
        _load_pyfunc(f"{written}/bundle").predict(FRAME.drop(columns="key"))


def test_code_is_not_written_since_nobody_could_trust_it(tmp_path):
    code = Bundle.from_module(models.Choosing(), signature(spec(shape=(4,))), trusted=True)
    with pytest.raises(UntrustedBundleError):
        code.to_mlflow(str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def pytorch(tmp_path_factory):
    """A model of MLflow's own pytorch flavour."""
    import mlflow.pytorch

    module = models.mlp().eval()
    folder = tmp_path_factory.mktemp("pytorch") / "model"
    mlflow.pytorch.save_model(module, str(folder), pip_requirements=["torch"], serialization_format="pickle")
    return module, str(folder)


def test_a_pytorch_model_is_a_pickle_and_needs_trust(pytorch):
    module, folder = pytorch
    with pytest.raises(UntrustedBundleError, match="is a pickle"):
        Bundle.from_mlflow(folder, signature(spec(shape=(4,))))
    bundle = Bundle.from_mlflow(folder, signature(spec(shape=(4,))), trusted=True)
    assert bundle.program.kind == "export"  # once it is here nobody has to trust it again
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(
        Bundle.from_files(bundle.files).predict({"x": x})["prediction"],
        module(torch.from_numpy(x)).detach().numpy(), rtol=1e-5,
    )  # fmt: skip
    with pytest.raises(SignatureError, match="give a signature"):
        Bundle.from_mlflow(folder, trusted=True)


def test_other_flavours_and_nothing_are_said_so(tmp_path):
    with pytest.raises(BundleNotFoundError, match="no MLflow model"):
        Bundle.from_mlflow(str(tmp_path))
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": {}}, "model_uuid": "1" * 32}))
    with pytest.raises(BundleError, match=r"flavours \['sklearn'\], not pytorch"):
        Bundle.from_mlflow(str(tmp_path))
