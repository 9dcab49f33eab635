"""Recommender: who goes for what, from what they went for before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pyspark.sql import functions as sf
from torch import nn

from sparkdl import drift
from sparkdl.bundle import Bundle
from sparkdl.decode.ranking import Ranking
from sparkdl.errors import EmptyDatasetError
from sparkdl.model import TorchModel
from sparkdl.params import _param, flag, number, text, texts, whole, with_accessors
from sparkdl.preprocess.categories import Categories
from sparkdl.preprocess.label_lists import LabelLists
from sparkdl.preprocess.labels import Labels
from sparkdl.preprocess.learn import learn
from sparkdl.ready.base import ReadyEstimator
from sparkdl.ready.towers import Pairs, TopItems, TwoTower, Vectors, in_batch_softmax
from sparkdl.signature import Signature, TensorSpec, label_spec, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MOST_USERS = 1_000_000  # with a vector of their own, the most frequent ones
_ITEM = "sparkdl_item"  # the item again, as the label


@with_accessors
class Recommender(ReadyEstimator):
    """Two towers trained on a table of who went for what; ``fit`` returns a model of users that gives each their best items,
    ``prediction`` of ``array<struct<item, score>>``, the best first. docs/recommendation.md is its guide.

    A row of the table is an interaction: ``userCol`` and ``itemCol`` (text or whole numbers), and maybe ``ratingCol``. Without
    ratings, what is there is what people went for: each user is told from the items of the batch which is theirs
    (``towers.in_batch_softmax``). With ratings, these are predicted, by their mean squared error.

    A user that training did not see gets what most people go for, by ``userFeatures`` if there are some.

    userFeatures: columns of text or whole numbers, of the user or of the moment; scoring needs them too.
    itemFeatures: such columns of the item, of which the model keeps one value an item.
    seenCol: a column, ``array`` of items, of the table that is scored: items to leave out. It need not be in this one.
    k: items to a user. pairs: give a model that scores a user and an item instead.
    embeddingSize: numbers in a vector. anybodyFraction: share of the rows whose user is not told in training, for users that
    nobody knows.
    labelCol: for ``evaluate``, the item (or array of items) that the user went for; by default ``itemCol``, with ``pairs``
    the rating.

    Raises, beside what TorchEstimator does, DataError for more than 100,000 different items.
    """

    userCol = _param("userCol", "column with the user's id, text or whole numbers", text("userCol"))
    itemCol = _param("itemCol", "column with the item's id, text or whole numbers", text("itemCol"))
    ratingCol = _param("ratingCol", "column with the user's rating of the item, a number", text("ratingCol"))
    userFeatures = _param(
        "userFeatures", "columns with categories of the user, or of the moment", texts("userFeatures")
    )
    itemFeatures = _param("itemFeatures", "columns with categories of the item", texts("itemFeatures"))
    seenCol = _param("seenCol", "column, when scoring, with an array of items to leave out", text("seenCol"))
    k = _param("k", "items to a user", whole("k", 1))
    pairs = _param("pairs", "give a model that scores pairs of a user and an item", flag("pairs"))
    embeddingSize = _param("embeddingSize", "numbers in a user's or an item's vector", whole("embeddingSize", 1))
    anybodyFraction = _param(
        "anybodyFraction", "share of the training rows whose user is not told", number("anybodyFraction", 0, 1)
    )
    own_defaults: ClassVar[Mapping[str, Any]] = {
        "userCol": "user", "itemCol": "item", "ratingCol": None, "userFeatures": [], "itemFeatures": [], "seenCol": None,
        "k": 10, "pairs": False, "embeddingSize": 16, "anybodyFraction": 0.1, "optimizer": "adamw",
        "optimizerParams": {"weight_decay": 0.5}, "learningRate": 0.01, "batchSize": 512, "epochs": 10,
    }  # fmt: skip

    heeds: ClassVar[frozenset[str]] = frozenset({"labelCol"})

    def getLabelCol(self) -> str:
        """What ``evaluate`` compares with: see ``labelCol``."""
        if self.isSet("labelCol"):
            return str(self.getOrDefault("labelCol"))
        rating = self.getOrDefault("ratingCol") if self.getOrDefault("pairs") else None
        return str(rating or self.getOrDefault("itemCol"))

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        users = (self.getOrDefault("userCol"), *self.getOrDefault("userFeatures"))
        item, features = self.getOrDefault("itemCol"), tuple(self.getOrDefault("itemFeatures"))
        of_items = {features: Categories()} if features else {}
        known: dict[Any, Any] = learn(df, {users: Categories(vocabSize=MOST_USERS), item: Labels(), **of_items})
        shares, ids = self._items(df, known[item], known.pop(features, None))
        towers = {
            "users": known[users].sizes,
            "items": ids,
            "dimension": self.getOrDefault("embeddingSize"),
            "anybody": self.getOrDefault("anybodyFraction"),
        }
        designed = {"inputCols": [*users, item], "preprocess": known}
        rating = self.getOrDefault("ratingCol")
        if rating:
            model = partial(_pairs, {**towers, "level": _mean(df, rating)})
            return df, {**designed, "model": model, "labelCol": rating, "task": "regression"}
        known[_ITEM] = known[item]
        loss = partial(in_batch_softmax, reduction=self._reduction)
        model = partial(_vectors, towers, shares)
        return df.withColumn(_ITEM, sf.col(quoted(item))), {**designed, "model": model, "labelCol": _ITEM, "loss": loss}

    def _items(
        self, df: DataFrame, items: Labels, categories: Categories | None
    ) -> tuple[list[float], list[tuple[int, ...]]]:
        """The share of each item in the rows, and its ids: its own, and those of its features; first those of none."""
        names, item = self.getOrDefault("itemFeatures"), quoted(self.getOrDefault("itemCol"))
        told = [sf.max(quoted(name)) for name in names]
        rows = df.where(f"{item} IS NOT NULL").groupBy(item).agg(sf.count("*"), *told).collect()
        by_item = {row[0]: row for row in rows}
        ordered = [by_item[value] for value in items.values]
        total = sum(row[1] for row in ordered)
        columns = {name: pa.array([row[place] for row in ordered]) for place, name in enumerate(names, start=2)}
        numbers = categories.read(columns).tolist() if categories else [[]] * len(ordered)
        ids = [(own, *of_features) for own, of_features in enumerate([[0] * len(names), *numbers])]
        return [row[1] / total for row in ordered], ids

    def _served(self, trained: TorchModel, designed: Mapping[str, Any], df: DataFrame) -> TorchModel:
        pairs = self.getOrDefault("pairs")
        if pairs and self.getOrDefault("ratingCol"):
            return trained
        module = designed["model"]()
        module.load_state_dict(dict(trained.bundle.weights))
        user, item = trained.signature.inputs
        if pairs:
            bundle = Bundle.from_module(Pairs(module.towers), Signature((user, item)))
        else:
            assert isinstance(item.preprocess, Labels)
            values = item.preprocess.values
            signature = Signature((user, *self._seen(item.types[0], values)), decoder=Ranking(values=values))
            bundle = Bundle.from_module(TopItems(module.towers, self.getOrDefault("k")), signature)
        told = {key: value for key, value in trained.bundle.training.items() if key != drift.KEY}
        model = TorchModel(replace(bundle, metrics=trained.bundle.metrics, training=told))
        return trained._copyValues(model).setParams(inputCols=list(model.signature.columns))

    def _seen(self, kind: str, items: tuple[bool | int | str, ...]) -> Iterator[TensorSpec]:
        name, lists = self.getOrDefault("seenCol"), LabelLists(values=items)
        if name:
            yield TensorSpec(name, lists.dtype, lists.shape, (name,), (f"array<{kind}>",), preprocess=lists)


def _mean(df: DataFrame, rating: str) -> float:
    label_spec(df, rating)  # raises what is wrong with the column
    (mean,) = df.select(sf.avg(sf.nanvl(sf.col(quoted(rating)).cast("double"), sf.lit(None)))).first()
    if mean is None:
        raise EmptyDatasetError(rating)
    return float(mean)


def _vectors(towers: Mapping[str, Any], shares: Sequence[float]) -> nn.Module:
    return Vectors(TwoTower(**towers), shares)


def _pairs(towers: Mapping[str, Any]) -> nn.Module:
    return Pairs(TwoTower(**towers))
