"""Several models as one: its members lie in one bundle, and one forward pass runs them all.

Shapes: M members, B rows, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparkdl import store, tasks
from sparkdl.bundle import Bundle
from sparkdl.bundle_files import MANIFEST
from sparkdl.errors import InvalidParamError, SignatureError
from sparkdl.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from sparkdl.decode.base import Decoder
    from sparkdl.model import TorchModel

COMBINE = ("mean", "vote", "stack")


def Ensemble(
    members: Sequence[Bundle | TorchModel | str],
    combine: str | nn.Module = "mean",
    weights: Sequence[float] | None = None,
    *,
    trusted: bool | Collection[str] = False,
) -> TorchModel:
    """A TorchModel that runs several models and combines what they predict.

    members: bundles, models, or URIs of either; of one task. An input that two of them have by the same name must be
        the same; inputs are united.
    combine: ``mean`` of the predictions or, for classes, of the probabilities; ``vote`` of most members for a class
        (the lower one of a tie), the probability being the share of votes; ``stack``: one array a row for a further
        model, task None: each member's prediction, or its probabilities (of two classes the second); or a module that
        takes that array, float32 ``(B, …)``, and returns what a model of the task does.
    weights: of the members in a mean or a vote; all the same by default.
    trusted: which code may run to load members given by URI, see ``Bundle.load``; an ensemble that cannot be exported
        is kept as code with True.

    Raises InvalidParamError, UntrustedBundleError, and SignatureError if the members do not fit together.
    """
    from sparkdl.model import TorchModel

    bundles = [_bundle(member, place, trusted) for place, member in enumerate(members)]
    task = _task(bundles, combine)
    shares = _shares(weights, len(bundles), combine)
    inputs = _united(bundles)
    names = [spec.name for spec in inputs]
    takes = [[names.index(spec.name) for spec in bundle.signature.inputs] for bundle in bundles]
    module = _Members([bundle.module() for bundle in bundles], takes, task, combine, shares)
    shown = None if combine == "stack" else task
    decoder = None if combine == "stack" else _decoder(bundles)
    return TorchModel(Bundle.from_module(module, Signature(inputs, decoder=decoder), task=shown, trusted=trusted))


class _Members(nn.Module):
    shares: Tensor

    def __init__(
        self,
        members: Sequence[nn.Module],
        takes: Sequence[Sequence[int]],
        task: str,
        combine: str | nn.Module,
        shares: Sequence[float],
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.takes, self.task = takes, task
        self.combine: Any = combine
        self.register_buffer("shares", torch.tensor(shares, dtype=torch.float64))

    def forward(self, *inputs: Tensor) -> Tensor:
        shown = [
            tasks.predictions(self.task, member(*(inputs[i] for i in takes)))
            for member, takes in zip(self.members, self.takes, strict=True)
        ]
        if self.combine in ("mean", "vote"):
            return self._averaged(shown)
        stacked = torch.cat([self._row(each) for each in shown], dim=1).float()
        return self.combine(stacked) if isinstance(self.combine, nn.Module) else stacked

    def _averaged(self, shown: Sequence[dict[str, Tensor]]) -> Tensor:
        """What the task turns into the mean: itself, or for classes its logarithm, of which softmax is the inverse."""
        if self.task == "regression":
            return self._mean([each["prediction"] for each in shown])
        if self.combine == "vote":
            mean_BC = self._mean([_vote(each) for each in shown])
        else:
            mean_BC = self._mean([each["probability"] for each in shown])
        logs_BC = mean_BC.log()
        return logs_BC[:, 1] - logs_BC[:, 0] if self.task == "binary" else logs_BC

    def _mean(self, values: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack([value.double() for value in values], dim=-1)
        return (stacked * self.shares).sum(-1) / self.shares.sum()

    def _row(self, shown: dict[str, Tensor]) -> Tensor:
        if self.task == "regression":
            return shown["prediction"].flatten(1) if shown["prediction"].ndim > 1 else shown["prediction"].unsqueeze(1)
        return shown["probability"][:, 1:] if self.task == "binary" else shown["probability"]


def _vote(shown: dict[str, Tensor]) -> Tensor:
    return nn.functional.one_hot(shown["prediction"].long(), shown["probability"].shape[1])


def _bundle(member: Any, place: int, trusted: bool | Collection[str]) -> Bundle:
    from sparkdl.model import TorchModel

    if isinstance(member, str):
        uri = member if store.exists(store.join(member, MANIFEST)) else store.join(member, "bundle")
        return Bundle.load(uri, trusted=trusted)
    if isinstance(member, TorchModel):
        return member.bundle
    if isinstance(member, Bundle):
        return member
    raise InvalidParamError(
        f"'members' must be bundles, models or their URIs (got {member!r} as member {place})",
        param="members",
        value=member,
    )


def _task(bundles: Sequence[Bundle], combine: str | nn.Module) -> str:
    """The task of all. Raises InvalidParamError where they, or they and ``combine``, do not fit."""
    if not bundles:
        raise InvalidParamError("'members' must not be empty", param="members", value=[])
    if not isinstance(combine, nn.Module) and combine not in COMBINE:
        raise InvalidParamError(
            f"'combine' must be one of {list(COMBINE)} or a torch module (got {combine!r})",
            param="combine",
            value=combine,
        )
    found = [bundle.task for bundle in bundles]
    task = found[0]
    if task is None or any(other != task for other in found):
        raise InvalidParamError(
            f"'members' must be of one task (got {found}): it says what their outputs mean",
            param="members",
            value=found,
        )
    if combine == "vote" and task == "regression":
        raise InvalidParamError(
            "'combine' must not be 'vote' for a regression, which has no classes; take 'mean'",
            param="combine",
            value=combine,
        )
    shapes = [{s.name: s.shape for s in b.signature.outputs} for b in bundles]
    if combine in ("mean", "vote") and any(other != shapes[0] for other in shapes):
        raise SignatureError(
            f"members must predict the same shapes to be combined by {combine!r} (got {shapes}); 'stack' takes any",
            column=None,
            expected=shapes[0],
            got=shapes,
        )
    for place, bundle in enumerate(bundles):
        if bundle.program.kind == "onnx":
            raise InvalidParamError(
                f"'members' must be torch models; member {place} is ONNX, which torch cannot export again",
                param="members",
                value=place,
            )
    return task


def _decoder(bundles: Sequence[Bundle]) -> Decoder | None:
    """Of all members. Raises InvalidParamError if they have different ones: other labels for a class number, say."""
    decoders = [bundle.signature.decoder for bundle in bundles]
    if any(other != decoders[0] for other in decoders):
        raise InvalidParamError(
            f"'members' must mean the same by what they predict (got the decoders {[str(one) for one in decoders]})",
            param="members",
            value=decoders,
        )
    return decoders[0]


def _shares(weights: Sequence[float] | None, count: int, combine: str | nn.Module) -> list[float]:
    if weights is None:
        return [1.0] * count
    if combine not in ("mean", "vote"):
        raise InvalidParamError("'weights' are for 'mean' and 'vote' only", param="weights", value=weights)
    shares = [float(weight) for weight in weights]
    if len(shares) != count or any(not 0 <= share < float("inf") for share in shares) or not any(shares):
        raise InvalidParamError(
            f"'weights' must be {count} numbers >= 0, not all 0, one for each member (got {weights!r})",
            param="weights",
            value=weights,
        )
    return shares


def _united(bundles: Sequence[Bundle]) -> tuple[TensorSpec, ...]:
    """All inputs, each name once. Raises SignatureError if two members mean different things by a name."""
    united: dict[str, tuple[int, TensorSpec]] = {}
    for place, bundle in enumerate(bundles):
        for spec in bundle.signature.inputs:
            first, other = united.setdefault(spec.name, (place, spec))
            if spec != other:
                raise SignatureError(
                    f"members {first} and {place} take different inputs {spec.name!r}: {other} of {list(other.columns)}, "
                    f"and {spec} of {list(spec.columns)}",
                    column=spec.name,
                    expected=str(other),
                    got=str(spec),
                )
    return tuple(spec for _, spec in united.values())
