"""Whether a new version of a model may take over from the running one: the same signature, and outputs that are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from sparkdl import columns
from sparkdl.bundle import Bundle
from sparkdl.columns import BadRows, Ragged
from sparkdl.probe import example_inputs
from sparkdl.score import failing
from sparkdl.score.inputs import Inputs
from sparkdl.score.predictor import Predictor
from sparkdl.score.scoring import Scoring
from sparkdl.signature import Signature, TensorSpec, form

CANARY_ROWS = 64  # at most: the driver has a micro-batch to run meanwhile


def objection(new: Bundle, running: Bundle, scoring: Scoring, canary: pa.RecordBatch | None) -> str | None:
    """Why ``new`` may not take over; None if it may.

    canary: rows of the columns that the model reads, which each of both reads by its own preprocessors; without one that
    both can read, made-up rows.
    The model is run on the CPU, whatever device the workers run it on, with one thread. It may fail, or give NaN or an
    infinity, only on rows on which the running one does too.
    """
    differs = difference(running, new)
    if differs:
        return differs
    local = replace(scoring, device="cpu", compile=False, invalid="keep")
    with _one_thread():
        try:
            predictor = Predictor(new, local)
        except Exception as error:  # whatever loading a program raises
            return f"it cannot be loaded: {type(error).__name__}: {error}"
        rows = len(canary) if canary is not None and len(_read(canary, new.signature)[1]) else 0
        what = f"{rows} rows of the stream" if rows else "made-up rows"
        problems = _on(predictor, canary if rows else None)
        if problems:
            try:
                known = set(_on(Predictor(running, local), canary if rows else None))
            except Exception:  # it runs elsewhere, so that it is no measure here
                known = set()
            problems = {row: why for row, why in problems.items() if row not in known}
    if problems:
        row, why = next(iter(problems.items()))
        return f"it fails on {len(problems)} of {what} that the running one scores; the first, row {row}: {why}"
    return None


def difference(running: Bundle, new: Bundle) -> str | None:
    """In what the signatures differ, or the tasks; None if in nothing that a stream would notice."""
    if running.task != new.task:
        return f"its task is {new.task!r}, and that of the running one {running.task!r}"
    for side in ("inputs", "outputs"):
        before, after = getattr(running.signature, side), getattr(new.signature, side)
        found = _different(before, after, side)
        if found:
            return found
    was, now = (columns.answers(one.signature) for one in (running, new))
    if was != now:
        return f"it adds the columns {_told(now)}, and the running one {_told(was)}"
    return None


def _told(answers: Mapping[str, pa.DataType]) -> str:
    return ", ".join(f"{name} {columns.ddl(kind)}" for name, kind in answers.items())


def _different(before: Sequence[TensorSpec], after: Sequence[TensorSpec], side: str) -> str | None:
    names, others = [spec.name for spec in before], [spec.name for spec in after]
    if set(names) != set(others):
        return f"its {side} are {others}, and those of the running one {names}"
    by_name = {spec.name: spec for spec in after}
    for spec in before:
        other = by_name[spec.name]
        for field in ("dtype", "shape", "columns", "mask_of"):
            if getattr(spec, field) != getattr(other, field):
                was, now = getattr(spec, field), getattr(other, field)
                return f"its {side[:-1]} {spec.name!r} has {field} {now!r}, and that of the running one {was!r}"
        if list(map(form, spec.types)) != list(map(form, other.types)):
            return f"its {side[:-1]} {spec.name!r} reads {other.types}, and that of the running one {spec.types}"
    if side == "outputs" and names != others:
        return f"its {side} are in the order {others}, and those of the running one {names}"
    return None


def _on(predictor: Predictor, canary: pa.RecordBatch | None) -> dict[int, str]:
    """What is wrong with the canary, or with made-up rows: with what it reads, and what it makes of that; by row."""
    if canary is None:
        return _problems(predictor, made_up(predictor.signature))
    inputs, good, unread = _read(canary, predictor.signature)
    found = _problems(predictor, inputs) if len(good) else {}
    return dict(sorted((unread | {int(good[row]): why for row, why in found.items()}).items()))


def _read(rows: pa.RecordBatch, signature: Signature) -> tuple[Inputs, np.ndarray, dict[int, str]]:
    """The inputs in the rows that are good; which these are; and what is wrong with the others, by row."""
    named = {name: rows.column(name) for name in signature.columns}
    good, unread = np.arange(len(rows)), {}
    inputs: Inputs = {}
    for spec in signature.inputs:
        while len(good) and spec.columns and spec.name not in inputs:
            try:
                inputs[spec.name] = columns.read(named, spec)
            except BadRows as error:
                unread.update({int(good[row]): why for row, why in zip(error.rows, error.reasons, strict=True)})
                rest = np.delete(np.arange(len(good)), error.rows)
                good = good[rest]
                named = {name: column.take(pa.array(rest)) for name, column in named.items()}
                inputs = failing.taken(inputs, rest)
    return inputs, good, unread


def made_up(signature: Signature, rows: int = 3) -> Inputs:
    """``example_inputs`` as a predictor takes them."""
    examples = zip(signature.inputs, example_inputs(signature, rows), strict=True)
    arrays = {spec.name: (spec, value.numpy()) for spec, value in examples if not spec.mask_of}
    return {
        name: Ragged.of(list(value), spec.dtype, spec.shape) if spec.is_ragged else value
        for name, (spec, value) in arrays.items()
    }


def _problems(predictor: Predictor, inputs: Inputs) -> dict[int, str]:
    """What is wrong with its outputs, by row."""
    rows = len(next(iter(inputs.values())))
    problems: dict[int, str] = {}
    good = np.arange(rows)
    try:
        outputs = predictor.predict(inputs)
    except Exception:  # whatever a model's operators raise
        try:
            good, outputs, problems = failing.predict_rest(predictor.predict, inputs, rows)
        except Exception as error:  # also without any rows
            return dict.fromkeys(range(rows), f"{type(error).__name__}: {error}")
    for name, values in outputs.items():
        if values.dtype.kind == "f":
            finite = np.isfinite(values.reshape(len(values), -1))
            for row in np.flatnonzero(~finite.all(axis=1)):
                got = values.reshape(len(values), -1)[row][~finite[row]][0]
                problems.setdefault(int(good[row]), f"output {name!r} is {got}")
    return dict(sorted(problems.items()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch computes with one thread within this block, in this thread and those it starts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
