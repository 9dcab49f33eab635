"""Arrow columns become arrays and back, value for value; a row that does not fit is named with what was expected."""

import decimal

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from making import spec

from sparkdl import columns
from sparkdl.columns import BadRows, arrow_type, as_tensor, ddl, flat, to_arrow, to_numpy
from sparkdl.errors import DataError, SignatureError
from sparkdl.preprocess import Numbers
from sparkdl.signature import DTYPES, TensorSpec


def read(column, dtype="float32", shape=()):
    return to_numpy({"x": column}, spec("x", dtype, shape))


@st.composite
def arrays(draw):
    """Any dtype, 0 to 4 rows, up to three further sizes, some of them 0."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = (draw(st.integers(0, 4)), *draw(st.lists(st.integers(0, 3), max_size=3)))
    return draw(hnp.arrays(dtype, shape))


@given(arrays())
def test_an_array_becomes_a_column_and_comes_back(values):
    column = to_arrow(values)
    assert len(column) == len(values)
    back = read(column, values.dtype.name, values.shape[1:])
    assert (back.dtype, back.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(read(flat(values), values.dtype.name, values.shape[1:]), values)  # as it is on disk
    assert column.type == arrow_type(spec("x", values.dtype.name, values.shape[1:]))


@given(arrays(), st.data())
def test_a_slice_of_a_column_and_chunks_of_it_are_read_as_such(values, data):
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    for column in (to_arrow(values), flat(values)):
        sliced = column.slice(start, stop - start)
        np.testing.assert_array_equal(read(sliced, values.dtype.name, values.shape[1:]), values[start:stop])
        chunked = pa.chunked_array([column.slice(0, start), column.slice(start)], type=column.type)
        np.testing.assert_array_equal(read(chunked, values.dtype.name, values.shape[1:]), values)


@pytest.mark.parametrize(
    ("column", "dtype", "shape", "values"),
    [
        (pa.array([1, 2], pa.int8()), "int8", (), [1, 2]),
        (pa.array([True, False]), "bool", (), [True, False]),
        (pa.array([True, False]), "float32", (), [1.0, 0.0]),
        (pa.array([1, 2], pa.int64()), "float32", (), [1.0, 2.0]),
        (pa.array([1.0, 2.0]), "int64", (), [1, 2]),  # labels often come as doubles that hold whole numbers
        (pa.array([decimal.Decimal("1.25")]), "float64", (), [1.25]),
        (pa.array([[decimal.Decimal("1.25"), decimal.Decimal("2.50")]]), "float32", (2,), [[1.25, 2.5]]),
        (pa.array([[1.0], [2.0]]), "float32", (), [1.0, 2.0]),  # arrays of one value as scalars
        (pa.array([[1, 2, 3, 4]]), "int64", (2, 2), [[[1, 2], [3, 4]]]),  # a flat list in a declared shape
        (pa.array([[[1, 2], [3, 4]]]), "int64", (2, 2), [[[1, 2], [3, 4]]]),
        (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), "int64", (2,), [[1, 2]]),
        (pa.array([[1, 2]], pa.large_list(pa.int64())), "int64", (2,), [[1, 2]]),
        (pa.array([b"\x01\x02\x03\x04"]), "uint8", (2, 2), [[[1, 2], [3, 4]]]),
        (pa.array([np.float32([1.5, 2.5]).tobytes()]), "float32", (2,), [[1.5, 2.5]]),  # little-endian bytes
        (pa.array([b"\x01\x02"], pa.large_binary()), "uint8", (2,), [[1, 2]]),
        (pa.array(["ab", "", "é"]), "uint8", (3,), [[97, 98, 0], [0, 0, 0], [195, 169, 0]]),  # UTF-8, zero padded
        (pa.array(["ab"], pa.large_string()), "int64", (2,), [[97, 98]]),
        (pa.array(["", ""]), "uint8", (2,), [[0, 0], [0, 0]]),
        (pa.array([], pa.float64()), "float32", (), []),
        (pa.array([], pa.null()), "float32", (), []),
    ],
)
def test_what_is_read(column, dtype, shape, values):
    array = read(column, dtype, shape)
    assert array.dtype == dtype
    assert array.shape == (len(column), *shape)
    assert array.tolist() == values


@pytest.mark.parametrize("kind", [pa.binary(), pa.string(), pa.large_binary(), pa.large_string()])
def test_bytes_and_texts_of_a_slice(kind):
    column = pa.array(["aa", "bb", "cc", "dd"], kind).slice(1, 2)
    assert read(column, "uint8", (2,)).tolist() == [[98, 98], [99, 99]]
    assert read(column.slice(0, 0), "uint8", (2,)).shape == (0, 2)


@pytest.mark.parametrize(
    ("column", "dtype", "shape", "row", "expected", "got"),
    [
        (pa.array([1.0, None]), "float32", (), 1, "float32[]", None),
        (pa.array([None, None], pa.null()), "float32", (), 0, "float32[]", None),
        (pa.array([[1.0, 2.0], None]), "float32", (2,), 1, "float32[2]", None),
        (pa.array([b"ab", None]), "uint8", (2,), 1, "uint8[2]", None),
        (pa.array([[1.0, 2.0], [1.0, 2.0], [1.0]]), "float32", (2,), 2, "2 values", "1 values"),
        (pa.array([[1.0, 2.0], []]), "float32", (2,), 1, "2 values", "0 values"),
        (pa.array([[1.0, 2.0], [1.0, None]]), "float32", (2,), 1, "values that are not null", "a null inside the array"),
        (
            pa.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], None]]), "float32", (2, 2),
            1, "values that are not null", "a null inside the array",
        ),
        (
            pa.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, None]]]), "float32", (2, 2),
            1, "values that are not null", "a null inside the array",
        ),
        (pa.array([[[1.0, 2.0]], [[1.0]]]), "float32", (1, 2), 1, "2 values", "1 values"),  # the inner length
        (pa.array([[[1.0], [2.0]], [[1.0], []]]), "float32", (2, 1), 1, "1 values", "0 values"),
        (pa.array([[[1.0, 2.0]], [[1.0, 2.0]] * 2]), "float32", (1, 2), 1, "1 values", "2 values"),  # the outer
        (pa.array([1.0, -1e300]), "float32", (), 1, "a value that float32 holds", -1e300),
        (pa.array([[1.0, 2.0], [3.0, 1e5]]), "float16", (2,), 1, "a value that float16 holds", 1e5),
        (pa.array([b"abc", b"ab"]), "uint8", (3,), 1, "3 bytes (uint8[3])", "2 bytes"),
        (pa.array([b"abcd", b"abcde"]), "float32", (1,), 1, "4 bytes (float32[1])", "5 bytes"),
        (pa.array(["ab", "aé"]), "uint8", (2,), 1, "at most 2 UTF-8 bytes", "3 bytes"),
        (pa.array([1.0, 2.5]), "int64", (), 1, "whole numbers (int64)", 2.5),
        (pa.array([1.0, float("nan")]), "int64", (), 1, "whole numbers (int64)", None),
        (pa.array([[1.0, 2.0], [3.0, 4.5]]), "int64", (2,), 1, "whole numbers (int64)", 4.5),
        (pa.array([0, 128]), "int8", (), 1, "a value that int8 holds", 128),
        (pa.array([0, -1]), "uint8", (), 1, "a value that uint8 holds", -1),
        (pa.array([0.0, 2.0**31]), "int32", (), 1, "a value that int32 holds", 2.0**31),
        (pa.array([0.0, 2.0**63]), "int64", (), 1, "a value that int64 holds", 2.0**63),
        (pa.array([0.0, -(2.0**64)]), "int64", (), 1, "a value that int64 holds", -(2.0**64)),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named(column, dtype, shape, row, expected, got):
    # once more behind two good rows that a slice cuts off: rows count from the slice's start
    good = {"binary": b"\0\0\0\0", "string": ""}.get(str(column.type))
    columns = [column] if column.type == pa.null() else [column, with_two_more(column, good).slice(2)]
    for each in columns:
        with pytest.raises(DataError) as caught:
            read(each, dtype, shape)
        error = caught.value
        assert (error.column, error.row, error.expected) == ("x", row, expected)
        assert error.got == got or (got is None and np.isnan(error.got))
        assert str(error).startswith(f"column 'x', row {row}: expected {expected}, got ")


def with_two_more(column, value):
    first = column[0].as_py() if value is None else value
    return pa.concat_arrays([pa.array([first, first], column.type), column])


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(2.0**31 - 1, "int32"), (-(2.0**31), "int32"), (-(2.0**63), "int64"), (255.0, "uint8"), (2.0**62, "int64")],
)
def test_the_largest_numbers_are_held(value, dtype):
    assert read(pa.array([value]), dtype).tolist() == [int(value)]


def test_the_largest_integer_stays_exact():
    assert read(pa.array([2**63 - 1, -(2**63)]), "int64").tolist() == [2**63 - 1, -(2**63)]


def test_stacked_columns_come_in_the_order_of_the_spec():
    stacked = TensorSpec("features", "float64", (3,), ("b", "a", "c"), ("float", "long", "boolean"))
    columns = {"a": pa.array([1, 2]), "b": pa.array([0.5, 1.5]), "c": pa.array([True, False])}
    assert to_numpy(columns, stacked).tolist() == [[0.5, 1.0, 1.0], [1.5, 2.0, 0.0]]
    with pytest.raises(DataError) as caught:
        to_numpy({**columns, "a": pa.array([1, None])}, stacked)
    assert (caught.value.column, caught.value.row) == ("a", 1)  # the column, not the tensor


@pytest.mark.parametrize(
    ("dtype", "shape", "told", "arrow"),
    [
        ("float64", (), "double", pa.float64()),
        ("bool", (), "boolean", pa.bool_()),
        ("int64", (3,), "array<bigint>", pa.list_(pa.int64())),
        ("uint8", (2, 3), "array<array<smallint>>", pa.list_(pa.list_(pa.int16()))),  # Spark has no unsigned bytes
        ("float16", (2,), "array<float>", pa.list_(pa.float32())),  # nor half floats
    ],
)
def test_the_types_of_an_output_column(dtype, shape, told, arrow):
    assert arrow_type(spec("y", dtype, shape)) == arrow
    assert ddl(arrow) == told


def test_a_list_column_becomes_a_tensor_without_a_copy():
    column = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32()))
    tensor = as_tensor(read(column, "float32", (2,)))
    assert tensor.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert tensor.data_ptr() == column.flatten().buffers()[1].address


def test_read_only_memory_gives_no_warning(recwarn):
    array = np.zeros(2)
    array.flags.writeable = False
    assert torch.equal(as_tensor(array), torch.zeros(2, dtype=torch.float64))
    assert not recwarn.list


# Rows whose length varies

lengths = st.lists(st.integers(0, 4), max_size=6)


@given(lengths, st.sampled_from(["int64", "float32", "uint8"]), st.data())
def test_lists_of_any_length_are_read_one_after_the_other(counts, dtype, data):
    rows = [list(range(i, i + count)) for i, count in enumerate(counts)]
    start = data.draw(st.integers(0, len(rows)))
    column = pa.array(rows, pa.list_(pa.int32())).slice(start)
    got = columns.read({"x": column}, spec("x", dtype, (-1,)))
    assert got.values.dtype == dtype
    assert got.lengths.tolist() == counts[start:]
    assert [got[i : i + 1].values.tolist() for i in range(len(got))] == rows[start:]
    order = np.array(data.draw(st.permutations(range(len(got)))), dtype=np.int64)
    taken = got.take(order)
    assert [taken[i : i + 1].values.tolist() for i in range(len(taken))] == [rows[start:][i] for i in order]
    longest = max(counts, default=0)
    padded, is_value = got.padded(np.arange(len(got)), longest)
    assert padded.tolist() == [row + [0] * (longest - len(row)) for row in rows[start:]]
    assert is_value.tolist() == [[True] * len(row) + [False] * (longest - len(row)) for row in rows[start:]]


def test_steps_of_a_varying_length_may_have_sizes_of_their_own():
    column = pa.array([[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]])
    got = columns.read({"x": column}, spec("x", "float32", (-1, 2)))
    assert (got.lengths.tolist(), got.values.tolist()) == ([1, 0, 2], [[1, 2], [3, 4], [5, 6]])
    with pytest.raises(DataError, match="row 2: expected 2 values, got 1 values") as caught:
        columns.read({"x": pa.array([[[1.0, 2.0]], [], [[3.0, 4.0], [5.0]]])}, spec("x", "float32", (-1, 2)))
    assert caught.value.rows == [2]


def test_texts_and_bytes_of_any_length():
    got = columns.read({"x": pa.array(["né", "", "a"])}, spec("x", "int64", (-1,), type="string"))
    assert (got.lengths.tolist(), got.values.tolist()) == ([3, 0, 1], [*"né".encode(), 97])
    values = [np.int16([1, 2]).tobytes(), b"", np.int16([3]).tobytes()]
    got = columns.read({"x": pa.array(values, pa.binary())}, spec("x", "int16", (-1,), type="binary"))
    assert (got.lengths.tolist(), got.values.tolist()) == ([2, 0, 1], [1, 2, 3])
    with pytest.raises(DataError, match="row 1: expected a multiple of 2 bytes"):
        columns.read({"x": pa.array([b"ab", b"abc"], pa.binary())}, spec("x", "int16", (-1,), type="binary"))


def test_all_bad_rows_of_a_check_are_told():
    column = pa.array([[1.0], [1.5, 2.0], None, [2.5], [3.0, 4.5, 0.0]])
    with pytest.raises(BadRows) as caught:
        columns.read({"x": column}, spec("x", "int64", (-1,)))
    assert (caught.value.rows, caught.value.row) == ([2], 2)
    with pytest.raises(BadRows) as caught:
        columns.read({"x": column.drop_null()}, spec("x", "int64", (-1,)))
    assert caught.value.rows == [1, 2, 3]
    assert caught.value.reasons == [
        f"value: column 'x': expected whole numbers (int64), got {value}" for value in (1.5, 2.5, 4.5)
    ]
    with pytest.raises(BadRows) as caught:
        columns.read({"x": column.drop_null()}, spec("x", "float32", (1,)))
    assert caught.value.rows == [1, 3]


@pytest.mark.parametrize("column", [pa.array([1.0]), pa.array([[[1.0]]])])
def test_a_column_of_another_type_is_no_matter_of_its_rows(column):
    with pytest.raises(SignatureError, match=r"column 'x' is .*double.*, which is no x: float32\[B, 1\]"):
        read(column, shape=(1,))


@pytest.mark.parametrize("column", [pa.nulls(0), pa.array([], pa.list_(pa.float32())), pa.array([], pa.string())])
def test_no_rows_are_no_rows_whatever_their_type(column):
    assert read(column, shape=(2, 3)).shape == (0, 2, 3)
    assert len(columns.read({"x": column}, spec("x", "int64", (-1, 2)))) == 0


def test_steps_in_one_flat_list():
    column = pa.array([[1.0, 2.0, 3.0, 4.0], [], [5.0, 6.0]])
    got = columns.read({"x": column}, spec("x", "float32", (-1, 2)))
    assert (got.lengths.tolist(), got.values.tolist()) == ([2, 0, 1], [[1, 2], [3, 4], [5, 6]])
    with pytest.raises(BadRows, match="row 1: expected a multiple of 2 values, got 3"):
        columns.read({"x": pa.array([[1.0, 2.0], [1.0] * 3])}, spec("x", "float32", (-1, 2)))
    with pytest.raises(BadRows, match="row 2: expected values that are not null"):
        columns.read({"x": pa.array([[1.0, 2.0], [], [1.0, None]])}, spec("x", "float32", (-1, 2)))


def test_a_varying_length_is_no_array():
    with pytest.raises(SignatureError, match="can be scored and not trained on"):
        read(pa.array([[1.0]]), shape=(-1,))


def test_a_preprocessed_number_that_a_narrower_dtype_does_not_hold_is_a_bad_row():
    as_it_is = Numbers(scale="none", **dict.fromkeys(("fills", "lows", "highs", "shifts"), (0.0,)), scales=(1.0,))
    narrow = TensorSpec("x", "float16", (1,), ("x",), ("double",), preprocess=as_it_is)
    with pytest.raises(BadRows, match="'x', row 1: expected a value that float16 holds") as caught:
        columns.read({"x": pa.array([1.0, 1e6])}, narrow)
    assert caught.value.rows == [1]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("string", pa.string()),
        ("array<array<float>>", pa.list_(pa.list_(pa.float32()))),
        ("vector", pa.list_(pa.float64())),
        ("timestamp", pa.int64()),  # microseconds, as it is handed over
        ("decimal", None),
        ("array<struct>", None),
    ],
)
def test_the_arrow_type_of_a_kind(kind, expected):
    assert columns.arrow_of_kind(kind) == expected
