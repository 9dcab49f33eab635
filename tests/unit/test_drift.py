"""References: what they count, what they say of counts, what they cost; against scipy and against counting by hand."""

import decimal
import json
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from making import dataset, signature, spec
from scipy import stats
from torch import nn

from sparkdl import drift, features
from sparkdl.bundle import Bundle
from sparkdl.columns import to_arrow
from sparkdl.data.sample import _columns, sample, with_reference
from sparkdl.drift import Counter, Reference, compare, merge_counts
from sparkdl.errors import BundleError, ColumnNotFoundError, SignatureError
from sparkdl.preprocess import Image
from sparkdl.signature import Signature, TensorSpec


def normal(rows, width=3, seed=0, shift=0.0):
    values = np.random.default_rng(seed).standard_normal((rows, width)) + shift
    return pa.table({"x": to_arrow(values.astype(np.float32))})


def batch(table):
    return table.combine_chunks().to_batches()[0]


@pytest.fixture(scope="module")
def bundle():
    torch.manual_seed(0)
    return Bundle.from_module(nn.Linear(3, 4), signature(spec("x", shape=(3,))), task="multiclass")


@pytest.fixture(scope="module")
def reference(bundle):
    return Reference.of(normal(5000), bundle)


def counted(reference, bundle, table, outputs=None):
    counter = reference.counter(bundle.signature)
    counter.add(batch(table), {} if outputs is None else outputs)
    return counter.counts


def predicted(bundle, table):
    x = np.array(table.column("x").combine_chunks().flatten(), np.float32).reshape(-1, 3)
    return {name: to_arrow(values) for name, values in bundle.predict({"x": x}).items()}


def test_features_are_each_element_each_class_and_the_prediction(reference):
    names = ["x[0]", "x[1]", "x[2]", "prediction", *(f"probability[{i}]" for i in range(4))]
    assert list(reference.features) == names
    assert reference.rows == 5000
    assert all(one.rows == 5000 for one in reference.features.values())


def test_the_training_rows_themselves_do_not_drift(reference, bundle):
    table = normal(5000)
    found = compare(reference, counted(reference, bundle, table, predicted(bundle, table)))
    assert {d.feature for d in found} == set(reference.features)
    assert all(d.psi == 0 and d.ks == 0 and d.p == 1 and d.rows == 5000 for d in found)


def test_a_shift_is_seen_where_it_is_and_only_there(reference, bundle):
    table = normal(4000, seed=1)
    x = np.array(table.column("x").combine_chunks().flatten()).reshape(-1, 3)
    x[:, 1] += 1
    table = pa.table({"x": to_arrow(x.astype(np.float32))})
    worst, *others = compare(reference, counted(reference, bundle, table))
    assert worst.feature == "x[1]"
    assert worst.psi == pytest.approx(1.0, rel=0.15)  # of two normals a deviation apart it is 1, binned a little less
    assert worst.p < 1e-6
    assert all(d.psi < 0.02 for d in others if d.rows)


def test_ks_is_nearly_that_of_the_rows_and_not_above_it(reference, bundle):
    then, now = normal(5000), normal(3000, seed=2, shift=0.1)
    first = [np.array(t.column("x").combine_chunks().flatten())[::3] for t in (then, now)]
    exact = stats.ks_2samp(*first, method="asymp")
    found = {d.feature: d for d in compare(reference, counted(reference, bundle, now))}["x[0]"]
    assert exact.statistic - 0.011 <= found.ks <= exact.statistic + 1e-12
    assert found.p == pytest.approx(float(stats.kstwo.sf(found.ks, round(5000 * 3000 / 8000))), rel=0.1)


def test_psi_is_the_formula_s(reference, bundle):
    counts = counted(reference, bundle, normal(3000, seed=3, shift=0.2))
    one = reference.features["x[0]"]
    q = np.maximum(one.coarse(np.array(counts["x[0]"])) / 3000, drift.FLOOR)
    p = np.maximum(one.coarse(one.counts) / 5000, drift.FLOOR)
    assert len(p) == 11
    assert p[:-1] == pytest.approx(np.full(10, 0.1), abs=0.001)
    found = {d.feature: d for d in compare(reference, counts)}["x[0]"]
    assert found.psi == pytest.approx(float(((p - q) * np.log(p / q)).sum()))


def test_two_samples_of_one_distribution_have_the_psi_that_theory_says(bundle):
    """(bins - 1)(1/n + 1/m), over many samples."""
    reference = Reference.of(normal(2000, seed=10), bundle)
    found = [
        d.psi for seed in range(60) for d in compare(reference, counted(reference, bundle, normal(1000, seed=20 + seed)))
        if d.feature.startswith("x")
    ]  # fmt: skip
    assert np.mean(found) == pytest.approx(9 * (1 / 2000 + 1 / 1000), rel=0.35)


def test_counts_add_up(reference, bundle):
    parts = [counted(reference, bundle, normal(500, seed=s)) for s in range(4)]
    whole = counted(reference, bundle, pa.concat_tables([normal(500, seed=s) for s in range(4)]))
    assert merge_counts(parts) == whole
    assert merge_counts([]) == {}


def test_counts_are_those_by_hand(reference, bundle):
    edges = reference.features["x[2]"].edges
    values = np.array([edges[0], np.nextafter(edges[0], np.float32(np.inf)), edges[-1], 1e9, -1e9, np.inf, np.nan])
    table = pa.table({"x": to_arrow(np.repeat(values.astype(np.float32)[:, None], 3, axis=1))})
    counts = np.array(counted(reference, bundle, table)["x[2]"])
    assert counts[0] == 2  # the first edge and what is below
    assert counts[1] == 1
    assert counts[-2] == 2  # above all
    assert counts[-1] == 1
    assert counts.sum() == len(values)


def test_nulls_and_other_lengths_are_missing_and_move_nothing_else(reference, bundle):
    rows = [[0.0, 1.0, 2.0], None, [0.0], [0.0, None, 2.0], [0.0, 1.0, 2.0]]
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64())):
        column = pa.array([[9.0] * 3, *rows], kind).slice(1)
        counts = counted(reference, bundle, pa.table({"x": column}))
        assert [counts[f"x[{i}]"][-1] for i in range(3)] == [2, 3, 2]
        one = reference.features["x[1]"].edges
        assert counts["x[1]"][int(np.searchsorted(one, 1.0))] == 2


def test_few_values_are_counted_by_value_and_new_ones_are_seen():
    x = np.random.default_rng(0).choice([0, 2, 5], 1000)
    one = drift._edges(x.astype(np.float64), 100, None)
    assert one.by_value
    assert one.edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 4.5, 5.5]
    reference = Reference(1000, {"k": one})
    told = signature(spec("k", "int64", (), "long"))
    counter = Counter(reference, told)
    counter.add(batch(pa.table({"k": pa.array([0, 1, 2, 5, 7, None], pa.int64())})), {})
    assert counter.counts["k"] == [0, 1, 1, 1, 0, 1, 1, 1]
    assert compare(reference, counter.counts)[0].psi > 1


def test_values_that_are_no_whole_numbers_have_bins_too():
    one = drift._edges(np.repeat(np.float32([0.1, 0.7]), 50), 100, None)
    assert one.by_value
    assert drift._counted(np.float32([0.1, 0.5, 0.7, 0.71]), one.edges).tolist() == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("numbers", [[], [np.nan] * 30, [np.inf] * 30, [1.0] * 30, [-np.inf, 1.0] * 20])
def test_odd_samples_make_a_reference_that_says_no_drift_of_itself(numbers):
    values = np.array(numbers, dtype=np.float32)
    one = drift._edges(values, 100, None)
    assert one.rows == len(values)
    again = Reference.from_json(json.loads(json.dumps(Reference(30, {"x": one}).to_json())))
    assert all(d.psi == 0 for d in compare(again, {"x": one.counts.tolist()}))


def test_json_gives_the_same_back(reference, bundle):
    told = json.loads(json.dumps(reference.to_json()))
    again = Reference.from_json(told)
    assert again.rows == reference.rows
    for name, one in reference.features.items():
        other = again.features[name]
        assert (other.edges == one.edges).all()
        assert other.edges.dtype == one.edges.dtype
        assert (other.counts == one.counts).all()
        assert other.by_value == one.by_value


def test_a_bundle_keeps_it(bundle, tmp_path, reference):
    kept = bundle.with_reference(normal(5000))
    kept.save(str(tmp_path / "b"))
    again = Reference.in_bundle(Bundle.load(str(tmp_path / "b")))
    assert again.to_json() == reference.to_json()
    assert Reference.in_bundle(bundle) is None


def test_size_in_the_manifest_is_small():
    for width, most in ((50, 100_000), (250, 150_000)):
        module = Bundle.from_module(nn.Linear(width, 1), signature(spec("x", shape=(width,))), task="regression")
        told = Reference.of(normal(10_000, width), module).to_json()
        assert len(json.dumps(told, indent=2)) < most


NO_REFERENCES = (
    {}, [], "x", {"rows": 1}, {"rows": 1, "features": {"x": {}}}, {"rows": "x", "features": {}},
    {"rows": float("inf"), "features": {}},
    {"rows": 1, "features": {"x": {"edges": "2 1", "dtype": "float32", "counts": "0 0 0 1", "by_value": False}}},
    {"rows": 1, "features": {"x": {"edges": "1 2", "dtype": "object", "counts": "0 0 0 1", "by_value": False}}},
    {"rows": 1, "features": {"x": {"edges": "1 2", "dtype": "float32", "counts": "0 0 1", "by_value": False}}},
    {"rows": 1, "features": {"x": {"edges": "1", "dtype": "float32", "counts": f"0 0 {10**30}", "by_value": False}}},
)  # fmt: skip


@pytest.mark.parametrize("told", [None, *NO_REFERENCES])
def test_what_is_no_reference_is_refused(told):
    with pytest.raises(BundleError, match="drift reference"):
        Reference.from_json(told)


@pytest.mark.parametrize("told", NO_REFERENCES)
def test_a_bundle_with_what_is_no_reference_has_none_and_says_so_once(bundle, told, caplog):
    broken = replace(bundle, training={"reference": told})
    assert broken.reference is None
    assert broken.reference is None
    assert Reference.in_bundle(bundle) is bundle.reference is None
    assert caplog.text.count("drift is not told: the bundle's drift reference cannot be understood") == 1


def test_bad_rows_for_a_reference(bundle):
    with pytest.raises(ColumnNotFoundError, match="'x'"):
        Reference.of(pa.table({"y": [1.0]}), bundle)
    with pytest.raises(SignatureError, match="needs rows"):
        Reference.of(normal(0), bundle)
    with pytest.raises(SignatureError):
        Reference.of(pa.table({"x": ["a", "b"]}), bundle)


def test_rows_the_model_cannot_take_count_with_their_inputs(bundle):
    table = pa.table({"x": pa.array([[1.0, 2.0, 3.0], None, [1.0, 2.0, 3.0]], pa.list_(pa.float32()))})
    made = Reference.of(table, bundle)
    assert made.features["x[0]"].counts[-1] == 1
    assert made.features["prediction"].rows == 2


def test_counts_of_another_reference_are_left_out(reference):
    assert compare(reference, {"x[0]": [1, 2, 3], "other": [1, 2]}) == []


COLUMNS = {
    "scalar": (TensorSpec("a", "float32", (), ("a",), ("double",)), [1.5, None, 2.5], {"a": [1.5, np.nan, 2.5]}),
    "decimal": (
        TensorSpec("a", "float64", (), ("a",), ("decimal",)), [decimal.Decimal("1.5"), None], {"a": [1.5, np.nan]},
    ),
    "bool": (TensorSpec("a", "bool", (), ("a",), ("boolean",)), [True, None, False], {"a": [1, np.nan, 0]}),
    "nested": (
        TensorSpec("a", "float32", (1, 2), ("a",), ("array<array<float>>",)), [[[1.0, 2.0]], None],
        {"a[0,0]": [1, np.nan], "a[0,1]": [2, np.nan]},
    ),
    "string": (TensorSpec("a", "uint8", (9,), ("a",), ("string",)), ["é", None, ""], {"a.length": [2, np.nan, 0]}),
    "image": (
        TensorSpec("a", "uint8", (3, 8, 8), ("a",), ("binary",), preprocess=Image(height=8, width=8)), [b"abc", None],
        {"a.length": [3, np.nan]},
    ),
    "raw": (
        TensorSpec("a", "float32", (2,), ("a",), ("binary",)),
        [np.float32([1, 2]).tobytes(), None, b"12345", np.float32([3, 4]).tobytes()],
        {"a[0]": [1, np.nan, np.nan, 3], "a[1]": [2, np.nan, np.nan, 4]},
    ),
    "ragged": (
        TensorSpec("a", "int64", (-1,), ("a",), ("array<bigint>",)), [[1, 2, 6], None, []],
        {"a.length": [3, np.nan, 0], "a.mean": [3, np.nan, np.nan]},
    ),
    "wide": (
        TensorSpec("a", "float32", (300,), ("a",), ("array<float>",)), [[1.0] * 150 + [3.0] * 150, None],
        {"a.mean": [2, np.nan], "a.std": [1, np.nan]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COLUMNS)
def test_what_is_watched_of_a_column(kind):
    told, values, expected = COLUMNS[kind]
    (one,) = features.watched(Signature((told,)))
    column = pa.array([values[0], *values])
    for given in (pa.array(values), column.slice(1)):  # a slice begins elsewhere in its buffers
        found = dict(zip(one.names, one.values(given), strict=True))
        assert list(found) == list(expected)
        for name, numbers in expected.items():
            np.testing.assert_array_equal(found[name], numbers)


def test_a_slice_of_whole_rows_is_watched_where_it_is():
    column = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32()))
    (one,) = features.watched(Signature((TensorSpec("a", "float32", (2,), ("a",), ("array<float>",)),)))
    assert one.values(column.slice(1)).tolist() == [[3, 5], [4, 6]]
    assert one.values(column.slice(0, 1)).tolist() == [[1], [2]]


def test_a_double_is_counted_as_the_float_that_the_model_sees():
    told = Signature((TensorSpec("a", "float32", (), ("a",), ("double",)),))
    (one,) = features.watched(told)
    values = pa.array([0.1, 0.7] * 50)
    reference = Reference(100, {"a": drift._edges(one.values(values)[0], 100, None)})
    counter = reference.counter(told)
    counter.add(batch(pa.table({"a": values})), {})
    assert counter.counts["a"] == [0, 50, 0, 50, 0, 0] == reference.features["a"].counts.tolist()


def test_stacked_columns_are_watched_each():
    told = TensorSpec("v", "float32", (2,), ("a", "b"), ("float", "double"))
    assert [one.names for one in features.watched(Signature((told,)))] == [("a",), ("b",)]


def test_a_sample_of_training_data_is_its_columns(tmp_path):
    data = dataset(tmp_path, [[300, 200], [500]], width=2)
    table = sample(data, 100, seed=1)
    assert table.num_rows == 100
    x = np.array(table.column("x").combine_chunks().flatten()).reshape(-1, 2)
    key = np.array(table.column("key"))
    assert len(set(x[:, 0])) == 100
    assert (np.diff(x[:, 0]) < 0).any(), "shuffled"
    assert (x[:, 1] == x[:, 0] + 0.25).all()
    assert key.dtype == np.int64
    assert (x[:, 0] < 300).any()
    assert (x[:, 0] >= 500).any()
    assert sample(data, 100, seed=1).equals(table)
    assert sample(data, 101).num_rows == 101
    assert sample(data, 10_000).num_rows == 1000


def test_a_sample_has_the_columns_that_tensors_were_made_of():
    stacked = TensorSpec("v", "float32", (2,), ("a", "b"), ("float", "double"))
    made = _columns(stacked, np.float32([[1, 2], [3, 4]]))
    assert {name: column.to_pylist() for name, column in made.items()} == {"a": [1, 3], "b": [2, 4]}
    text = TensorSpec("t", "uint8", (4,), ("t",), ("string",))
    assert _columns(text, np.uint8([[104, 105, 0, 0], [0, 0, 0, 0]]))["t"].to_pylist() == ["hi", ""]
    raw = TensorSpec("r", "float32", (1,), ("r",), ("binary",))
    assert _columns(raw, np.float32([[1]]))["r"].to_pylist() == [np.float32(1).tobytes()]


def test_a_fit_is_not_lost_for_want_of_a_reference(tmp_path, bundle, caplog):
    data = dataset(tmp_path, [[10]])
    (tmp_path / data.files[0].path).write_bytes(b"gone")
    assert with_reference(bundle, lambda: sample(data, 10)) is bundle
    assert "has no drift reference: DataError" in caplog.text


def test_of_large_batches_every_nth_row_is_counted(reference, bundle):
    table = normal(120_001)
    counts = counted(reference, bundle, table, predicted(bundle, table))
    step = -(-120_001 // (drift.NUMBERS_MOST // 8))
    assert step == 2
    assert all(sum(numbers) == 60_001 for numbers in counts.values())
    x = np.array(table.column("x").combine_chunks().flatten()).reshape(-1, 3)[::step, 0]
    assert counts["x[0]"] == drift._counted(np.sort(x), reference.features["x[0]"].edges).tolist()


def test_5000_rows_of_50_floats_take_less_than_3_ms(bundle):
    torch.manual_seed(0)
    wide = Bundle.from_module(nn.Linear(50, 1), signature(spec("x", shape=(50,))), task="binary")
    counter = Reference.of(normal(10_000, 50), wide).counter(wide.signature)
    rows = batch(normal(5000, 50, seed=1))
    said = {name: to_arrow(v) for name, v in wide.predict({"x": np.zeros((5000, 50), np.float32)}).items()}
    took = []
    for _ in range(30):
        started = time.perf_counter()
        counter.add(rows, said)
        took.append(time.perf_counter() - started)
    assert min(took) < 3e-3
