"""A schema becomes tensors: every Spark type, every shape; and what does not fit is refused with the remedy."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import Frame, spec
from pyspark.ml.linalg import DenseVector, SparseVector, VectorUDT
from pyspark.sql import types as t

from sparkdl.errors import ColumnNotFoundError, SignatureError
from sparkdl.preprocess import Categories, DateParts, Hashed, Image, Numbers
from sparkdl.signature import (
    DTYPES,
    Signature,
    TensorSpec,
    check_indicator,
    column_kinds,
    form,
    label_spec,
    preprocessed,
    stack_scalars,
    weight_spec,
)


def frame(rows=None, streaming=False, **columns):
    return Frame(t.StructType([t.StructField(name, kind) for name, kind in columns.items()]), rows, streaming)


def array(kind, depth=1):
    return kind if not depth else t.ArrayType(array(kind, depth - 1))


@pytest.mark.parametrize(
    ("kind", "dtype", "type"),
    [
        (t.BooleanType(), "bool", "boolean"),
        (t.ByteType(), "int8", "byte"),
        (t.ShortType(), "int16", "short"),
        (t.IntegerType(), "int32", "integer"),
        (t.LongType(), "int64", "long"),  # stays int64
        (t.FloatType(), "float32", "float"),
        (t.DoubleType(), "float64", "double"),
        (t.DecimalType(10, 2), "float64", "decimal"),
        (t.DecimalType(38, 18), "float64", "decimal"),
    ],
)
def test_a_scalar_and_an_array_of_it(kind, dtype, type):
    df = frame([(1, [1, 2])], one=kind, many=array(kind))
    assert Signature.from_dataframe(df).inputs == (
        TensorSpec("one", dtype, (), ("one",), (type,)),
        TensorSpec("many", dtype, (2,), ("many",), (f"array<{type}>",)),  # the length from the first row
    )


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "type"),
    [
        (t.BinaryType(), (28, 28, 3), "uint8", "binary"),
        (t.BinaryType(), (10,), "uint8", "binary"),
        (t.StringType(), (64,), "uint8", "string"),
        (array(t.FloatType()), (3, 4), "float32", "array<float>"),  # one flat list may hold any shape
        (array(t.FloatType(), 2), (3, 4), "float32", "array<array<float>>"),
        (array(t.LongType(), 3), (3, 4, 5), "int64", "array<array<array<long>>>"),
        (VectorUDT(), (7,), "float64", "vector"),
        (array(t.FloatType()), (), "float32", "array<float>"),  # one value, as a scalar
    ],
)
def test_a_declared_shape(kind, shape, dtype, type):
    for df in (frame(x=kind), frame(x=kind, streaming=True)):  # declared, so nothing is read
        (made,) = Signature.from_dataframe(df, shapes={"x": shape}).inputs
        assert made == TensorSpec("x", dtype, shape, ("x",), (type,))


@pytest.mark.parametrize(
    ("kind", "rows", "shape"),
    [
        (array(t.DoubleType()), [(None,), ([1.0, 2.0],), ([1.0],)], (2,)),  # the first that is not null
        (array(t.DoubleType(), 2), [([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],)], (2, 3)),
        (VectorUDT(), [(DenseVector([1, 2, 3]),)], (3,)),
        (VectorUDT(), [(SparseVector(9, {1: 2.0}),)], (9,)),  # as wide as it would be dense
    ],
)
def test_a_sampled_shape(kind, rows, shape):
    (made,) = Signature.from_dataframe(frame(rows, x=kind)).inputs
    assert made.shape == shape


def test_a_column_s_name_may_hold_dots_and_backticks():
    df = frame([([1.0, 2.0],)], **{"a.`b`": array(t.FloatType())})
    assert Signature.from_dataframe(df).inputs[0].shape == (2,)


def test_columns_come_in_the_order_asked_for():
    df = frame(a=t.LongType(), b=t.FloatType(), c=t.DoubleType())
    assert [made.name for made in Signature.from_dataframe(df, ["c", "a"]).inputs] == ["c", "a"]
    assert [made.name for made in Signature.from_dataframe(df).inputs] == ["a", "b", "c"]


def test_a_dtype_may_be_overridden():
    df = frame(a=t.DoubleType())
    assert Signature.from_dataframe(df, dtypes={"a": "float32"}).inputs[0].dtype == "float32"


def test_scalars_are_stacked_in_order_in_their_common_dtype():
    df = frame(a=t.LongType(), b=t.FloatType(), c=t.BooleanType())
    (made,) = Signature.from_dataframe(df, ["b", "a", "c"], stack="features").inputs
    assert made == TensorSpec("features", "float64", (3,), ("b", "a", "c"), ("float", "long", "boolean"))
    assert made.is_stacked
    (one,) = Signature.from_dataframe(df, ["a"], stack="features").inputs
    assert (one.shape, one.dtype) == ((1,), "int64")


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [
        (t.MapType(t.StringType(), t.IntegerType()), {}, "'x' has type map, which no tensor can hold"),
        (t.StructType([t.StructField("a", t.LongType())]), {}, "has type struct"),
        (t.TimestampType(), {}, "has type timestamp"),
        (t.DateType(), {}, "has type date"),
        (array(t.StringType()), {}, "has type array"),
        (array(t.BinaryType()), {}, "has type array"),
        (array(VectorUDT()), {}, "has type array"),
        (array(t.TimestampType()), {}, "has type timestamp"),
        (t.BinaryType(), {}, r"'x' is binary: declare .* shapes=\{'x': \(height, width, channels\), say\}"),
        (t.StringType(), {}, r"'x' is string: declare .* shapes=\{'x': \(length,\)\}"),
        (t.StringType(), {"shapes": {"x": (2, 3)}}, "is string"),
        (t.FloatType(), {"shapes": {"x": (3,)}}, r"is a scalar \(float\) and cannot take shape \(3,\)"),
        (array(t.FloatType(), 2), {"shapes": {"x": (6,)}}, "it needs 2 sizes"),
        (array(t.FloatType(), 2), {"shapes": {"x": (1, 2, 3)}}, "it needs 2 sizes"),
        (array(t.FloatType()), {"shapes": {"x": (-2,)}}, "must not have negative sizes"),
        (t.FloatType(), {"dtypes": {"x": "bfloat16"}}, "dtype of 'x' must be one of"),
        (array(t.FloatType()), {"stack": "all", "shapes": {"x": (2,)}}, "only scalar columns can"),
    ],
)
def test_what_does_not_fit_is_refused(kind, arguments, says):
    with pytest.raises(SignatureError, match=says) as caught:
        Signature.from_dataframe(frame(x=kind), **arguments)
    assert caught.value.column == "x"


@pytest.mark.parametrize("place", ["columns", "shapes", "dtypes"])
def test_an_unknown_column_is_named_with_the_nearest(place):
    given = {"columns": ["patc"], "shapes": {"patc": (2,)}, "dtypes": {"patc": "int64"}}[place]
    with pytest.raises(ColumnNotFoundError, match=r"'patc' is not .* did you mean 'patch'") as caught:
        Signature.from_dataframe(frame(patch=t.FloatType(), label=t.LongType()), **{place: given})
    assert caught.value.available == ["patch", "label"]


def test_a_shape_that_cannot_be_told_must_be_declared():
    with pytest.raises(SignatureError, match=r"no row has a value; declare it: shapes=\{'x'"):
        Signature.from_dataframe(frame([(None,)], x=array(t.FloatType())))
    with pytest.raises(SignatureError, match="cannot be sampled from a stream; declare it"):
        Signature.from_dataframe(frame(x=VectorUDT(), streaming=True))


def test_input_columns_are_looked_for():
    stacked = TensorSpec("s", "float32", (2,), ("b", "a"), ("float", "float"))
    signature = Signature((spec("a"), stacked))
    assert signature.columns == ("a", "b")  # each once
    signature.check_columns(["b", "c", "a"])
    with pytest.raises(ColumnNotFoundError, match="input column 'b' is not in the DataFrame") as caught:
        signature.check_columns(["a", "bb"])
    assert (caught.value.column, caught.value.available) == ("b", ["a", "bb"])


def test_the_kinds_of_columns_in_another_data_frame():
    df = frame(a=t.DecimalType(5, 1), b=array(t.FloatType(), 2), c=VectorUDT(), d=t.StringType())
    assert column_kinds(df, "abcd") == {"a": "decimal", "b": "array<array<float>>", "c": "vector", "d": "string"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": 3},
        {"dtype": "complex64"},
        {"dtype": None},
        {"shape": (-2,)},
        {"shape": (2, -1)},
        {"shape": (-1,), "mask_of": "x", "columns": ("x",), "types": ("long",)},
        {"columns": "x", "types": "x"},  # a text is a sequence of texts, and not meant
        {"columns": ("x",)},  # the type is missing
        {"columns": ("x", "y"), "types": ("long",)},
        {"columns": (1,), "types": ("long",)},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(SignatureError):
        TensorSpec(**{"name": "x", "dtype": "float32", **arguments})


def test_tensor_names_are_unique():
    with pytest.raises(SignatureError, match="must be unique"):
        Signature((spec("x"), spec("x")))
    with pytest.raises(SignatureError, match="must be unique"):
        Signature((spec("x"),), (TensorSpec("y", "int64"), TensorSpec("y", "int64")))


def test_a_signature_has_inputs():
    with pytest.raises(SignatureError, match="at least one input"):
        Signature(())
    with pytest.raises(SignatureError, match="at least one input"):
        Signature.from_dataframe(frame(x=t.LongType()), [])


def test_floats_take_the_model_s_dtype_and_nothing_else_does():
    signature = Signature((spec("a", "float64", type="double"), spec("b", "int64", type="long"), spec("c", "bool")))
    assert [s.dtype for s in signature.with_float_dtype("float32").inputs] == ["float32", "int64", "bool"]
    assert signature.with_float_dtype(None) == signature


def test_what_it_says():
    signature = Signature((spec("a"), spec("b", "int64", (2, 3))), (TensorSpec("y", "float64"),))
    assert str(signature) == "(a: float32[B], b: int64[B, 2, 3]) -> (y: float64[B])"
    assert spec(shape=(2, 3)).size == 6
    assert spec().size == 1


def test_only_scalars_stack():
    with pytest.raises(SignatureError, match=r"'b' has shape \(2,\)"):
        stack_scalars("all", [spec("a"), spec("b", shape=(2,))])


specs = st.builds(
    lambda dtype, shape, columns: (dtype, tuple(shape), tuple(columns)),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 9), max_size=4),
    st.lists(st.text(max_size=5), max_size=3),
)


@given(st.lists(specs, min_size=1, max_size=4), st.lists(specs, max_size=3))
def test_json_and_back(inputs, outputs):
    signature = Signature(
        [
            TensorSpec(f"i{n}", dtype, shape, cols, ["long"] * len(cols))
            for n, (dtype, shape, cols) in enumerate(inputs)
        ],
        [TensorSpec(f"o{n}", dtype, shape) for n, (dtype, shape, _) in enumerate(outputs)],
    )
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature


GOOD = {"inputs": [{"name": "x", "dtype": "float32", "shape": [2], "columns": [], "types": []}], "outputs": []}


@pytest.mark.parametrize(
    "value",
    [
        None, 3, [], "text", {}, {"inputs": []}, {"inputs": 3, "outputs": []}, {"inputs": [3], "outputs": []},
        {"inputs": [{}], "outputs": []}, {"inputs": [{"name": "x", "dtype": "float32", "size": 3}], "outputs": []},
        *(
            {**GOOD, "inputs": [{**GOOD["inputs"][0], key: value}]}
            for key in ("name", "dtype", "shape", "columns", "types")
            for value in (None, 3, {}, "abc", ["abc"], [None], [float("inf")], [[1]])
            if not (key == "name" and value == "abc") and not (key in ("columns", "types", "shape") and value == {})
        ),
    ],
)  # fmt: skip
def test_json_that_is_no_signature_is_refused(value):
    with pytest.raises(SignatureError):
        Signature.from_json(value)


def test_numpy_sizes_become_plain_ones():
    assert json.dumps(TensorSpec("x", "float32", np.array([2, 3])).shape) == "[2, 3]"


def test_the_label_is_numbers_of_any_shape():
    df = frame(y=t.DoubleType(), many=array(t.LongType()), text=t.StringType(), raw=t.BinaryType(), when=t.DateType())
    assert label_spec(df, "y") == TensorSpec("y", "float64", (), ("y",), ("double",))
    shapes = {"many": (2, 3), "other": (7,)}
    assert label_spec(df, "many", shapes) == TensorSpec("many", "int64", (2, 3), ("many",), ("array<long>",))
    for name in ("text", "raw"):
        with pytest.raises(SignatureError, match="StringIndexer"):
            label_spec(df, name, {name: (3,)})
    with pytest.raises(SignatureError, match="'when'"):
        label_spec(df, "when")
    with pytest.raises(ColumnNotFoundError):
        label_spec(df, "Y2")


@pytest.mark.parametrize(
    "kind", [t.FloatType(), t.DoubleType(), t.IntegerType(), t.LongType(), t.ByteType(), t.DecimalType(10, 2)]
)
def test_a_weight_is_any_number(kind):
    spec = weight_spec(frame(w=kind), "w", "float64")
    assert (spec.name, spec.dtype, spec.shape, spec.columns) == ("w", "float64", (), ("w",))


@pytest.mark.parametrize(
    "kind", [t.BooleanType(), t.StringType(), t.BinaryType(), array(t.FloatType()), VectorUDT(), t.DateType()]
)
def test_a_weight_that_is_no_number(kind):
    with pytest.raises(SignatureError, match="'w'") as caught:
        weight_spec(frame(w=kind), "w")
    assert caught.value.column == "w"


def test_a_weight_that_is_not_there():
    with pytest.raises(ColumnNotFoundError, match="did you mean 'weight'"):
        weight_spec(frame(weight=t.FloatType()), "weights")


@pytest.mark.parametrize("kind", [t.IntegerType(), t.StringType(), t.DateType(), array(t.BooleanType())])
def test_validation_rows_are_told_by_a_boolean(kind):
    check_indicator(frame(held=t.BooleanType()), "held")
    with pytest.raises(SignatureError, match=r"validation column 'held' must be boolean .*a comparison, held = 1 say"):
        check_indicator(frame(held=kind), "held")
    with pytest.raises(ColumnNotFoundError, match="did you mean 'held'"):
        check_indicator(frame(held=kind), "hold")


def test_a_preprocessor_tells_the_tensor_of_its_column():
    df = frame(photo=t.BinaryType(), x=t.DoubleType())
    image = Image(height=4, width=6)
    photo, x = Signature.from_dataframe(df, preprocess={"photo": image}).inputs
    assert photo == TensorSpec("photo", "uint8", (3, 4, 6), ("photo",), ("binary",), preprocess=image)
    assert (x.dtype, x.preprocess) == ("float64", None)
    with pytest.raises(SignatureError, match="column 'x' is double; Image takes binary or string or struct"):
        Signature.from_dataframe(df, ["x"], preprocess={"x": image})
    with pytest.raises(ColumnNotFoundError, match="photos"):
        Signature.from_dataframe(df, ["x"], preprocess={"photos": image})


def test_what_a_preprocessor_makes_is_neither_stacked_nor_given_another_shape():
    df = frame(a=t.StringType(), x=t.DoubleType())
    bucket = {"a": Hashed(buckets=10)}
    with pytest.raises(SignatureError, match=r"'a' is what Hashed makes and cannot be stacked .*one preprocessor read"):
        Signature.from_dataframe(df, preprocess=bucket, stack="features")
    for more in ({"dtypes": {"a": "float32"}}, {"shapes": {"a": (4,)}}):
        with pytest.raises(
            SignatureError, match="column 'a' are its preprocessor's; leave it out of shapes and dtypes"
        ):
            Signature.from_dataframe(df, preprocess=bucket, **more)


def test_a_tensor_is_what_its_preprocessor_makes():
    image, bucket = Image(height=4, width=6), Hashed(buckets=10)
    told = Signature((TensorSpec("photo", "uint8", (3, 4, 6), ("photo",), ("binary",), preprocess=image),)).to_json()
    told["inputs"][0]["shape"] = []
    with pytest.raises(SignatureError, match=r"cannot be what Image makes: uint8\[3, 4, 6\]"):
        Signature.from_json(told)
    with pytest.raises(SignatureError, match="cannot be what Hashed makes: int64"):
        TensorSpec("a", "int32", (), ("a",), ("string",), preprocess=bucket)
    as_label = TensorSpec("a", "float32", (), ("a",), ("string",), preprocess=bucket)  # of a binary task's loss
    assert as_label.dtype == "float32"


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "learn",
    [
        lambda n: Categories(vocabularies=(("x", "y"),) * n),
        lambda n: Numbers(**dict.fromkeys(("fills", "lows", "highs", "shifts", "scales"), (1.0,) * n)),
    ],
)
def test_a_preprocessor_reads_as_many_columns_as_it_was_learnt_for(learn, count):
    df = frame(a=t.LongType(), b=t.LongType())
    assert preprocessed(df, "t", ["a", "b"], learn(2)).columns == ("a", "b")
    with pytest.raises(SignatureError, match=rf"was learnt for {count} columns \(got \['a', 'b'\]\)"):
        preprocessed(df, "t", ["a", "b"], learn(count))


def test_a_time_without_a_zone_is_another_kind():
    df = frame(utc=t.TimestampType(), clock=t.TimestampNTZType())
    kinds = column_kinds(df, ["utc", "clock"])
    assert kinds == {"utc": "timestamp", "clock": "timestamp_ntz"}
    assert form("timestamp") != form("timestamp_ntz")
    assert preprocessed(df, "t", ["clock"], DateParts()).types == ("timestamp_ntz",)


def test_the_remedy_for_labels_that_are_texts():
    with pytest.raises(SignatureError, match=r"preprocess={'kind': sparkdl.preprocess.Labels\(\)}"):
        label_spec(frame(kind=t.StringType()), "kind")
