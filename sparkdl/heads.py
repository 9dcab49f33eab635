"""What modules inside a model return, given beside the model's own outputs: embeddings, mostly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sparkdl import tasks
from sparkdl.errors import SignatureError, did_you_mean


def with_inner_outputs(module: nn.Module, inner: Mapping[str, str]) -> nn.Module:
    """``module`` returning a dictionary: its own outputs (a lone tensor is ``prediction``) and those of ``inner``.

    inner: the name of each further output and of the module within that returns it, as ``named_modules`` has it.
    Raises SignatureError for a module that is not there, or an output's name that is taken.
    """
    names = dict(module.named_modules())
    for output, name in inner.items():
        if not name or name not in names:
            raise SignatureError(
                f"output {output!r} asks for the module {name!r}, which the model does not have"
                f"{did_you_mean(name, [n for n in names if n])}",
                column=None,
                expected=[n for n in names if n],
                got=name,
            )
    return _WithInnerOutputs(module, dict(inner))


class _WithInnerOutputs(nn.Module):
    def __init__(self, module: nn.Module, inner: Mapping[str, str]) -> None:
        super().__init__()
        self.module = module
        self.inner = inner

    def forward(self, *arguments: Tensor) -> dict[str, Tensor]:
        found: dict[str, Any] = {}
        hooks = [
            self.module.get_submodule(name).register_forward_hook(_keeper(found, output))
            for output, name in self.inner.items()
        ]
        try:
            own = tasks.named(self.module(*arguments))
        finally:
            for hook in hooks:
                hook.remove()
        for output, name in self.inner.items():
            if output in own:
                raise SignatureError(f"the model has an output {output!r} already", column=None, got=output)
            if not isinstance(found.get(output), Tensor):
                got = type(found[output]).__name__ if output in found else "nothing: it is not used"
                raise SignatureError(
                    f"output {output!r} is what the module {name!r} returns, which is not a tensor (got {got}); name "
                    "one whose output is",
                    column=None,
                    expected="Tensor",
                    got=got,
                )
        return {**own, **{output: found[output] for output in self.inner}}


def _keeper(found: dict[str, Any], output: str) -> Any:
    def keep(module: nn.Module, arguments: Any, returned: Any) -> None:
        found[output] = returned

    return keep
