"""What a module takes and returns, found by running it once on made-up rows.

Shapes: B rows, L the length to which inputs that vary are padded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sparkdl import tasks
from sparkdl.errors import SignatureError
from sparkdl.signature import Signature, TensorSpec

LENGTH = 12


def float_dtype(module: nn.Module) -> str | None:
    """The dtype of the module's floating parameters, ``"float32"`` say; None if it has none."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return _numpy_name(parameter.dtype)
    return None


def ragged_inputs(signature: Signature) -> tuple[int, ...]:
    """The positions of the inputs, masks among them, whose length varies."""
    return tuple(i for i, spec in enumerate(signature.inputs) if spec.is_ragged)


def example_inputs(signature: Signature, rows: int = 3) -> list[Tensor]:
    """Arguments that fit the signature: random floats, zeros for all else.

    Where the length varies, the first row is 12 long (13 in the next such input, for none to be tied to another), each
    further one two shorter, padded with zeros, and masks say so; what is no float is 1 there, for padding to differ.
    """
    generator = torch.Generator().manual_seed(0)
    varying = [spec.name for spec in signature.inputs if spec.is_ragged and not spec.mask_of]
    filled = {name: _filled(rows, LENGTH + place) for place, name in enumerate(varying)}
    return [_example(spec, rows, filled.get(spec.mask_of or spec.name), generator) for spec in signature.inputs]


def _filled(rows: int, length: int) -> Tensor:
    lengths = torch.tensor([max(1, length - 2 * row) for row in range(rows)])
    return torch.arange(length) < lengths[:, None]


def _example(spec: TensorSpec, rows: int, filled: Tensor | None, generator: torch.Generator) -> Tensor:
    dtype = getattr(torch, spec.dtype)
    if spec.mask_of and filled is not None:
        return filled.to(dtype)
    shape = (rows, *spec.shape) if filled is None else (*filled.shape, *spec.shape[1:])
    if spec.dtype.startswith("float"):
        values = torch.randn(shape, generator=generator).to(dtype)
    else:
        values = torch.zeros(shape, dtype=dtype) if filled is None else torch.ones(shape, dtype=dtype)
    return values if filled is None else values * filled.reshape(*filled.shape, *(1 for _ in shape[2:]))


def shortened(arguments: Sequence[Tensor], ragged: Collection[int]) -> list[Tensor]:
    """The arguments with ragged ones cut to three quarters of their length."""
    return [value[:, : max(1, value.shape[1] * 3 // 4)] if i in ragged else value for i, value in enumerate(arguments)]


def lengthened(arguments: Sequence[Tensor], ragged: Collection[int], by: int = 3) -> list[Tensor]:
    """The arguments with ragged ones padded with further zeros, as beside a longer row."""
    return [
        torch.cat([value, value.new_zeros(len(value), by, *value.shape[2:])], dim=1) if i in ragged else value
        for i, value in enumerate(arguments)
    ]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, each of its parts as it was thereafter; exported parts, which have no ``eval()``,
    too."""
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def describe_outputs(
    module: nn.Module, signature: Signature, arguments: Sequence[Tensor], task: str | None
) -> tuple[TensorSpec, ...]:
    """The output specs, from a forward pass.

    Raises SignatureError: showing both sides if the module refuses; if an output's first dimension is not the rows;
    if an output of a row changes with the rows beside it, or with the padding that a longer one of them brings.
    """
    shown = _returned(module, signature, arguments, task)
    rows = len(arguments[0])
    for name, value in shown.items():
        if value.ndim == 0 or value.shape[0] != rows:
            raise SignatureError(
                f"the model's output {name!r} has shape {tuple(value.shape)} for {rows} rows; its first dimension "
                "must be the rows",
                column=None,
                expected=(rows, "..."),
                got=tuple(value.shape),
            )
    _check_alone(shown, _returned(module, signature, [value[:1] for value in arguments], task))
    if signature.is_ragged:
        longer = lengthened(arguments, ragged_inputs(signature))
        _check_padding(shown, _returned(module, signature, longer, task))
    return tuple(TensorSpec(name, _numpy_name(value.dtype), tuple(value.shape[1:])) for name, value in shown.items())


def _returned(
    module: nn.Module, signature: Signature, arguments: Sequence[Tensor], task: str | None
) -> dict[str, Tensor]:
    try:
        with evaluating(module), torch.no_grad():
            outputs = module(*(value.clone() for value in arguments))  # it may work in place
    except Exception as error:  # whatever forward raises for these inputs is the finding
        raise SignatureError(
            f"the model does not take these inputs.\n  columns give: {signature}\n  model says:   "
            f"{type(error).__name__}: {error}\n  model:        {_first_layers(module)}",
            column=None,
            expected=str(error),
            got=str(signature),
        ) from error
    return tasks.predictions(task, outputs)


def _check_alone(shown: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    """A row's outputs are its own: those of the first row are the same without the others."""
    for name, value in shown.items():
        decided = name == "prediction" and "probability" in shown  # a near tie may fall either way
        first = alone[name]
        same = value[:1].shape == first.shape and _alike(value, torch.cat([first, value[1:]]))
        if value.is_floating_point() and not decided and not same:
            raise SignatureError(
                f"the model's output {name!r} for a row changes with the rows beside it, which are others in each batch; "
                "compute it from that row only: no mean, norm or sort over dimension 0, which is the rows",
                column=None,
                expected="the same outputs for a row alone",
                got="others",
            )


def _alike(a: Tensor, b: Tensor) -> bool:
    """The same but for rounding, as of another batch size."""
    a, b = a.double(), b.double()
    scale = a[a.isfinite()].abs().amax().item() if a.isfinite().any() else 0.0
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)


def _check_padding(shown: dict[str, Tensor], longer: dict[str, Tensor]) -> None:
    """A row's outputs are its own: neither their shape nor their values tell how long its neighbours are."""
    for name, value in shown.items():
        other = longer[name]
        if value.shape != other.shape:
            raise SignatureError(
                f"the shape of the model's output {name!r} depends on the length its inputs are padded to "
                f"({tuple(value.shape)}, and {tuple(other.shape)} when that is longer), which changes from batch to "
                "batch; return something a row: the mean over its steps, or its last step",
                column=None,
                expected=tuple(value.shape),
                got=tuple(other.shape),
            )
        if not _alike(value, other):
            raise SignatureError(
                f"the model's output {name!r} changes when a row is padded further, so it would depend on the rows "
                "beside it; make the model leave padding out, with a mask: "
                "TensorSpec('mask', 'bool', (-1,), mask_of=…) as one more input",
                column=None,
                expected="the same outputs whatever the padding",
                got=f"a difference of {(value.double() - other.double()).abs().max().item():.3g}",
            )


def _numpy_name(dtype: torch.dtype) -> str:
    return "float32" if dtype == torch.bfloat16 else str(dtype).removeprefix("torch.")


def _first_layers(module: nn.Module, limit: int = 300) -> str:
    text = " ".join(repr(module).split())
    return text if len(text) <= limit else text[:limit] + " …"
