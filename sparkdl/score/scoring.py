"""How a model is run: what TorchModel's Params say of it, as one value that travels to the workers."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
INVALID = ("error", "keep", "skip")
DEVICE = r"auto|cpu|cuda(:\d+)?"
UDF_TYPES = ("auto", "arrow", "pandas")
ENGINES = ("python", "onnx-jvm")


@dataclass(frozen=True)
class Scoring:
    """batch_size: rows to a forward pass; 0: what suits the model (see ``sizing``).

    device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    precision: ``float32`` runs the module in its own dtype; ``bfloat16`` and ``float16`` under autocast; ``int8`` with
    the weights of its Linear layers in 8 bits.
    invalid: what is done with a bad row, see ``TorchModel.handleInvalid``.
    models_per_gpu: how many processes of a machine may keep a model on the same GPU.
    """

    batch_size: int = 0
    device: str = "auto"
    precision: str = "float32"
    compile: bool = False
    invalid: str = "error"
    models_per_gpu: int = 1
