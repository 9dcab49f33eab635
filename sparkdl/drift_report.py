"""How far a table is from what a model was trained on, and a page about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sparkdl.drift import Drift, Reference, compare, merge_counts
from sparkdl.errors import ColumnNotFoundError, EmptyDatasetError, InvalidParamError
from sparkdl.signature import Signature, column_kinds, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.model import TorchModel

FEATURES = 20  # of a page, those with the largest PSI
PICTURES = 9


@dataclass(frozen=True)
class TableDrift:
    """rows: of the table. counts: of them, by feature and bin of the reference; see ``sparkdl.drift``."""

    reference: Reference
    rows: int
    counts: Mapping[str, list[int]]

    @cached_property
    def features(self) -> list[Drift]:
        """By falling PSI."""
        return compare(self.reference, self.counts)

    def above(self, psi: float) -> list[Drift]:
        """The features whose PSI is above this."""
        return [one for one in self.features if one.psi > psi]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        told = [asdict(one) for one in self.features]
        return {"rows": self.rows, "training_rows": self.reference.rows, "features": told}

    def html(self, name: str, source: str, model: str) -> str:
        """A page with the histograms of the features that moved most. Raises SparkdlError if jinja2 or matplotlib is
        missing."""
        from sparkdl.interop.common import needed

        needed("jinja2", "monitor")
        needed("matplotlib", "monitor")
        from sparkdl.stream import plots, report

        worst = self.features[:FEATURES]
        told = {one.feature: self.reference.features[one.feature].histogram(self.counts[one.feature]) for one in worst}
        facts = [
            ("rows", f"{self.rows:,}", f"{self.reference.rows:,} of the training data"),
            ("features", f"{len(self.features):,}", f"{len(worst)} shown"),
            ("much changed", f"{len(self.above(plots.PSI_MUCH)):,}", f"PSI above {plots.PSI_MUCH:g}"),
            ("largest PSI", f"{worst[0].psi:.3f}" if worst else "–", worst[0].feature if worst else ""),
        ]
        images = report.inline({"histograms": plots.histograms(told, PICTURES)} if told else {})
        return report.page("drift.html", name=name, source=source, model=model, facts=facts, images=images, drift=worst)


def table_drift(model: TorchModel, df: DataFrame) -> TableDrift:
    """Count the rows of ``df``, columns that the model reads and what it says to them, between the edges of its reference.

    A table that has the model's outputs, by their names, was scored already: they are taken as they are, and columns that
    it no longer has are not counted. Any other is scored; rows that the model does not take count as missing.

    Raises InvalidParamError if the bundle has no reference, EmptyDatasetError, and as ``transform`` does.
    """
    reference = reference_of(model)
    scored, outputs = _with_outputs(model, df)
    counting = _Counting(reference, model.signature, outputs)
    told = [json.loads(row[0]) for row in scored.mapInArrow(counting, "told string").collect()]
    rows = sum(one["rows"] for one in told)
    if not rows:
        raise EmptyDatasetError()
    return TableDrift(reference, rows, merge_counts(one["counts"] for one in told))


def reference_of(model: TorchModel) -> Reference:
    """That of the model's bundle. Raises InvalidParamError if it has none."""
    reference = model.bundle.reference
    if reference is None:
        raise InvalidParamError(
            "the bundle has no reference of its training data, or one that cannot be understood; fit makes one, and "
            "Bundle.with_reference(rows) for a model from elsewhere",
            param="model",
            value=None,
        )
    return reference


def is_scored(model: TorchModel, df: DataFrame) -> bool:
    """True if the table has columns of the names of all the model's outputs."""
    return set(model.output_columns([]).values()) <= set(df.columns)


@dataclass(frozen=True)
class _Counting:
    """In the workers: a partition's batches to one row, the JSON of its counts."""

    reference: Reference
    signature: Signature
    outputs: Mapping[str, str]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counter, rows = self.reference.counter(self.signature), 0
        for batch in batches:
            counter.add(batch, {name: batch.column(column) for name, column in self.outputs.items()})
            rows += len(batch)
        yield pa.RecordBatch.from_pydict({"told": [json.dumps({"rows": rows, "counts": counter.counts})]})


def _with_outputs(model: TorchModel, df: DataFrame) -> tuple[DataFrame, dict[str, str]]:
    """The columns that are counted, and which of them is which output."""
    from sparkdl.data.materialize import plain

    made = model.output_columns([])
    if is_scored(model, df):
        names = [name for name in model.signature.columns if name in df.columns]
        if not names and model.signature.columns:
            raise ColumnNotFoundError(model.signature.columns[0], df.columns, role="the scored table's input")
        scored = df
    else:
        names = list(model.input_kinds(df))
        scored = model.copy({model.handleInvalid: "keep", model.errorCol: ""}).transform(df.select(*map(quoted, names)))
    kinds = column_kinds(scored, [*names, *made.values()])
    return scored.select(*(plain(scored, name, kind) for name, kind in kinds.items())), made
