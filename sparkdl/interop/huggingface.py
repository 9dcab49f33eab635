"""Hugging Face model folders: config.json and safetensors, by classes that the transformers library has itself.

Shapes: B texts, L tokens, D hidden size.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, BundleNotFoundError, InvalidParamError, UntrustedBundleError
from sparkdl.interop.common import needed
from sparkdl.signature import Signature, TensorSpec

OUTPUTS = ("logits", "embedding")


def bundle(folder: str | os.PathLike[str], output: str | None, task: str | None, column: str, trusted: bool) -> Bundle:
    """See ``Bundle.from_huggingface``."""
    place = Path(folder)
    architecture = _architecture(place)
    if output is None:
        output = "logits" if architecture.endswith("ForSequenceClassification") else "embedding"
    if output not in OUTPUTS:
        raise InvalidParamError(
            f"'output' must be one of {list(OUTPUTS)} (got {output!r})", param="output", value=output
        )
    if task is not None and output != "logits":
        raise InvalidParamError(
            f"'task' must be None for an embedding (got {task!r}); output='logits' has classes",
            param="task",
            value=task,
        )
    tokens = TensorSpec("input_ids", "int64", (-1,), (column,), ("array<long>",))
    mask = TensorSpec("attention_mask", "int64", (-1,), mask_of="input_ids")
    module = _model(place, architecture, output, trusted)
    wrapped: nn.Module = _Logits(module, task) if output == "logits" else _Embedding(module)
    return Bundle.from_module(wrapped, Signature((tokens, mask)), task=task)


def backbone(folder: str | os.PathLike[str], trusted: bool = False) -> tuple[nn.Module, int, int]:
    """The encoder in a local folder, without a head; the width of its hidden states; the tokens that it knows. Raises as
    ``bundle`` does."""
    place = Path(folder)
    module = _model(place, _architecture(place), "embedding", trusted)
    config: Any = module.config
    return module, int(config.hidden_size), int(config.vocab_size)


class _Logits(nn.Module):
    def __init__(self, model: nn.Module, task: str | None) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).logits
        return logits if self.task else {"logits": logits}


class _Embedding(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        hidden_BLD = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).last_hidden_state
        mask_BL1 = attention_mask.unsqueeze(-1).to(hidden_BLD.dtype)
        return {"embedding": (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)}


def _architecture(place: Path) -> str:
    """The class that config.json names. Raises BundleNotFoundError, BundleError, UntrustedBundleError."""
    try:
        config = json.loads((place / "config.json").read_bytes())
    except OSError as error:
        raise BundleNotFoundError(
            f"there is no Hugging Face model in {str(place)!r}: {error}", uri=str(place)
        ) from error
    except ValueError as error:
        raise BundleError(f"config.json in {str(place)!r} is not JSON: {error}", uri=str(place)) from error
    if isinstance(config, dict) and config.get("auto_map"):
        raise UntrustedBundleError(
            f"the model in {str(place)!r} brings its own code (auto_map in config.json), which is not run; load it by "
            "transformers yourself, and give the module to Bundle.from_module",
            uri=str(place),
        )
    names = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise BundleError(f"config.json in {str(place)!r} names no architecture", uri=str(place))
    return names[0]


def _model(place: Path, architecture: str, output: str, trusted: bool) -> nn.Module:
    transformers = needed("transformers", "huggingface")
    known = getattr(transformers, architecture, None)
    if not (isinstance(known, type) and issubclass(known, transformers.PreTrainedModel)):
        raise BundleError(
            f"transformers {transformers.__version__} has no model {architecture!r}, which config.json in "
            f"{str(place)!r} names",
            uri=str(place),
        )
    if not list(place.glob("*.safetensors")) and trusted is not True:
        raise UntrustedBundleError(
            f"the weights in {str(place)!r} are not in safetensors, and a pickle runs code when it is read; convert "
            "them (model.save_pretrained writes safetensors), or say trusted=True",
            uri=str(place),
        )
    kind: Any = known if output == "logits" else transformers.AutoModel
    model: Any = kind.from_pretrained(
        place, local_files_only=True, trust_remote_code=False, use_safetensors=None if trusted is True else True
    )
    model.config.use_cache = False
    made: nn.Module = model.eval()
    return made
