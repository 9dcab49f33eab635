"""Preprocessors of tables, without Spark: what they read, what they refuse, what they tell of themselves."""

import datetime as dt
import decimal
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparkdl.columns import BadRows
from sparkdl.errors import DataError, InvalidParamError
from sparkdl.export import build
from sparkdl.preprocess import Categories, DateParts, Hashed, Numbers
from sparkdl.preprocess.base import from_json
from sparkdl.preprocess.statistics import Moments, bins, quantiles
from sparkdl.ready.table_net import TableNet, embedding_width


def learnt(one, columns, parts=1):
    """As Spark puts together what it makes of so many parts of the rows."""
    moments = [Moments()] * len(columns)
    counts = [{} for _ in columns]
    rows = len(next(iter(columns.values())))
    for chosen in np.array_split(np.arange(rows), parts):
        some = {name: column.take(pa.array(chosen)) for name, column in columns.items()}
        for place, values in enumerate(one.measured(some)):
            moments[place] = Moments.merged([moments[place].as_row(), Moments.of(values).as_row()])
        for place, values in enumerate(one.counted(some)):
            for value in values.cast(pa.string()).drop_null().to_pylist():
                counts[place][value] = counts[place].get(value, 0) + 1
    frequent = [dict(sorted(each.items(), key=lambda item: (-item[1], item[0]))[: one.frequent]) for each in counts]
    return one.learnt(list(columns), moments, frequent)


def of(values, kind=None):
    return {"x": pa.array(values, kind)}


NAN, INF = math.nan, math.inf
FOUR = of([1.0, 2.0, 3.0, 10.0, None, NAN])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"scale": "none"}, [1, 2, 3, 10, 2, 2]),  # the lower of two medians
        ({"scale": "none", "impute": "mean"}, [1, 2, 3, 10, 4, 4]),
        ({"scale": "none", "impute": "constant", "fill": -1}, [1, 2, 3, 10, -1, -1]),
        ({"scale": "minmax", "impute": "constant"}, [0, 1 / 9, 2 / 9, 1, -1 / 9, -1 / 9]),
        ({"scale": "none", "clip": (0.25, 0.75), "impute": "mean"}, [1, 2, 3, 3, 4, 4]),
        (
            {"scale": "none", "log": True, "impute": "constant", "fill": -1.0},
            [*np.log1p([1, 2, 3, 10]), *[-np.log(2)] * 2],
        ),
        ({"impute": "mean"}, [*(np.array([1, 2, 3, 10]) - 4) / np.std([1, 2, 3, 10]), 0, 0]),
    ],
)
def test_what_is_made_of_numbers(settings, expected):
    made = learnt(Numbers(**settings), FOUR).read(FOUR)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[:, 0], expected, rtol=2e-3)  # a quantile is right to 0.1 %


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.float32(), pa.decimal128(20, 2), pa.bool_(), pa.uint8()])
def test_all_kinds_of_numbers_are_read(kind):
    values = (
        [decimal.Decimal(v) for v in (0, 1, 1)]
        if pa.types.is_decimal(kind)
        else [False, True, True]
        if kind == pa.bool_()
        else [0, 1, 1]
    )
    columns = {"x": pa.array([*values, None], kind)}
    one = learnt(Numbers(impute="mean", indicator=True), columns)
    assert one.shape == (2,)
    np.testing.assert_allclose(one.read(columns), [[-math.sqrt(2), 0], [0.7071, 0], [0.7071, 0], [0, 1]], rtol=1e-4)


def test_small_differences_of_large_numbers_are_kept():
    """In float32 all of these are one number."""
    columns = of([2**53 - 3, 2**53 - 2, 2**53 - 1], pa.int64())
    np.testing.assert_allclose(learnt(Numbers(), columns).read(columns)[:, 0], [-1.2247, 0, 1.2247], rtol=1e-4)


@pytest.mark.parametrize("impute", ["mean", "median"])
@pytest.mark.parametrize("scale", ["standard", "minmax"])
@pytest.mark.parametrize("around", [0.0, 1e6])
def test_the_same_is_learnt_however_the_rows_are_cut(impute, scale, around):
    columns = of((np.random.default_rng(0).normal(around, 3.7, 1_000)).tolist())
    each = {learnt(Numbers(impute=impute, scale=scale), columns, parts) for parts in (1, 2, 3, 7, 50)}
    assert len(each) == 1


def test_a_constant_column_is_zeros():
    assert learnt(Numbers(), of([0.1] * 7)).read(of([0.1, 0.1])).tolist() == [[0], [0]]


def test_a_column_without_a_number_is_refused_or_constant():
    empty = of([None, NAN, INF], pa.float64())
    with pytest.raises(
        DataError, match=r"column 'x' holds no number to learn from.*leave it out, or impute='constant'"
    ):
        learnt(Numbers(), empty)
    assert learnt(Numbers(impute="constant", fill=3), empty).read(of([None, 4.0])).tolist() == [[3], [4]]


def test_numbers_too_large_to_add_are_refused():
    with pytest.raises(DataError, match=r"column 'x' holds numbers as large as 1.7e\+308.*set log=True"):
        learnt(Numbers(impute="mean"), of([1.7e308, -1.7e308, 1.7e308]))
    assert np.isfinite(learnt(Numbers(log=True), of([1.7e308, 1.0])).read(of([1.7e308, 1.0]))).all()


@pytest.mark.parametrize(
    ("settings", "values", "rows", "kind"),
    [
        ({}, [1.0, INF, -INF], [1, 2], "non-finite"),
        ({"impute": "error"}, [None, 1.0, NAN], [0, 2], "null"),
        ({"scale": "none"}, [1e300, 1.0], [0], "value"),
    ],
)
def test_all_bad_numbers_of_a_batch_are_told(settings, values, rows, kind):
    one = learnt(Numbers(**settings), of([1.0, 2.0]))
    with pytest.raises(BadRows) as error:
        one.read(of(values))
    assert error.value.rows == rows
    assert all(reason.startswith(f"{kind}: column 'x'") for reason in error.value.reasons)


def test_bad_rows_of_several_columns_are_told_together():
    good = {"x": pa.array([1.0, 2.0, 3.0]), "y": pa.array([1.0, 2.0, 3.0])}
    with pytest.raises(BadRows) as error:
        learnt(Numbers(), good).read({"x": pa.array([1.0, 2.0, INF]), "y": pa.array([INF, 1.0, INF])})
    assert error.value.rows == [0, 2]
    assert error.value.column == "y"
    assert ["'y'" in error.value.reasons[0], "'x'" in error.value.reasons[1]] == [True, True]


def test_infinity_is_clipped_if_so_said():
    assert learnt(Numbers(infinite="clip", scale="none"), of([1.0, 5.0])).read(of([INF, -INF])).tolist() == [[5], [1]]


@pytest.mark.parametrize("seed", range(5))
def test_moments_and_quantiles_of_parts_are_those_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0, 3, 5000) * rng.choice([-1, 1, 0], 5000) + rng.choice([0, 1e6])
    parts = np.split(values, np.sort(rng.integers(0, 5000, 7)))
    whole = Moments.merged(Moments.of(part).as_row() for part in parts)
    np.testing.assert_allclose([whole.mean, whole.deviation], [values.mean(), values.std()], rtol=1e-9)
    assert (whole.count, whole.smallest, whole.largest) == (5000, values.min(), values.max())
    found, counts = np.unique(bins(values).to_numpy(zero_copy_only=False), return_counts=True)
    asked = [0.0, 0.01, 0.25, 0.5, 0.9, 1.0]
    got = quantiles(dict(zip(found.tolist(), counts.tolist(), strict=True)), asked)
    np.testing.assert_allclose(got, np.quantile(values, asked, method="inverted_cdf"), rtol=1.01e-3)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["a", "b", "a", None, "new"], pa.string(), [1, 2, 1, 0, 0]),
        (["a", "b", "a", None, ""], pa.large_string(), [1, 2, 1, 0, 0]),
        ([True, False, True, None], pa.bool_(), [0, 0, 0, 0]),
    ],
)
def test_what_is_made_of_categories(values, kind, expected):
    one = Categories(vocabularies=(("a", "b"),))
    assert one.read(of(values, kind))[:, 0].tolist() == expected
    assert one.shape == (1,)
    assert one.sizes == (3,)


def test_a_number_is_one_category_whatever_holds_it():
    one = learnt(Categories(), of([7, 7, 2**40, -1], pa.int64()))
    assert one.vocabularies == (("7", "-1", "1099511627776"),)
    for column in (of([7.0, 2.0**40, NAN, 7.5, INF]), of([7, 2**40, None, 8, 9], pa.int64())):
        assert one.read(column)[:, 0].tolist() == [1, 3, 0, 0, 0]
    assert one.read(of([decimal.Decimal("7.00"), None]))[:, 0].tolist() == [1, 0]
    assert one.read(of(["7", "7.0"]))[:, 0].tolist() == [1, 0]


def test_the_vocabulary_is_of_the_frequent():
    column = of(["a"] * 3 + ["c", "c", "b", "b", "d"])
    assert learnt(Categories(), column).vocabularies == (("a", "b", "c", "d"),)
    assert learnt(Categories(minCount=2), column).vocabularies == (("a", "b", "c"),)
    assert learnt(Categories(vocabSize=1), column).vocabularies == (("a",),)
    assert learnt(Categories(), of([None, None], pa.string())).read(of(["a"])).tolist() == [[0]]


def test_the_unknown_is_a_bad_row_if_so_said():
    with pytest.raises(BadRows) as error:
        Categories(unknown="error", vocabularies=(("a",),)).read(of(["a", "b", None]))
    assert error.value.rows == [1, 2]
    assert error.value.reasons[0] == "value: column 'x': expected one of the 1 known values, got 'b'"


def siphash(text, key):
    """SipHash-2-4 as its paper has it, of 16 bytes of key."""
    mask = 2**64 - 1

    def turned(x, b):
        return ((x << b) | (x >> (64 - b))) & mask

    def rounds(v, count):
        a, b, c, d = v
        for _ in range(count):
            a, c = (a + b) & mask, (c + d) & mask
            b, d = turned(b, 13) ^ a, turned(d, 16) ^ c
            a = turned(a, 32)
            c, a = (c + b) & mask, (a + d) & mask
            b, d = turned(b, 17) ^ c, turned(d, 21) ^ a
            c = turned(c, 32)
        return [a, b, c, d]

    first, second = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [
        first ^ 0x736F6D6570736575,
        second ^ 0x646F72616E646F6D,
        first ^ 0x6C7967656E657261,
        second ^ 0x7465646279746573,
    ]
    padded = text + b"\0" * (7 - len(text) % 8) + bytes([len(text) % 256])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        v = rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xFF
    a, b, c, d = rounds(v, 4)
    return a ^ b ^ c ^ d


def mixed(h):
    """The last steps of SplitMix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        h = ((h ^ (h >> shift)) * factor) % 2**64
    return h


def test_buckets_are_those_of_the_hash_that_is_documented():
    values = ["", "a", "café", "device-0123456789", "7"]
    expected = [1 + mixed(siphash(value.encode(), b"0000000000000003")) % 99 for value in values]
    one = Hashed(buckets=100, seed=3)
    assert one.read(of([*values, None])).tolist() == [*expected, 0]
    assert one.read(of([7, 7])).tolist() == one.read(of([7.0, 7.0])).tolist() == [expected[-1]] * 2
    assert one.read(of([NAN, 7.5])).tolist() == [0, 0]
    assert Hashed(buckets=100, seed=4).read(of(values)).tolist() != expected
    assert one.read(of([], pa.string())).shape == (0,)


NOON = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.timezone.utc)  # a Thursday


@pytest.mark.parametrize(
    "column",
    [
        pa.array([NOON, None], pa.timestamp("us", "UTC")),
        pa.array([NOON, None], pa.timestamp("ns", "America/New_York")),  # the same instant, shown elsewhere
        pa.array([NOON.replace(tzinfo=None), None], pa.timestamp("us")),
        pa.array([int(NOON.timestamp() * 1e6), None], pa.int64()),
        pa.array([NOON.timestamp() * 1e6, None], pa.float64()),  # as pandas has whole numbers with nulls
    ],
)
def test_parts_of_a_time_are_those_in_utc(column):
    one = DateParts(cyclic=False, years=(2000, 2100))
    expected = [0.24, 1 / 12, 28 / 31, 3 / 7, 12.5 / 24]
    np.testing.assert_allclose(one.read({"x": column}), [expected, [0] * 5], rtol=1e-6)


def test_parts_of_a_date_go_round():
    one = DateParts(parts=("month", "year"))
    assert one.shape == (3,)
    december, january, july = one.read(of([dt.date(2000, 12, 1), dt.date(2001, 1, 1), dt.date(2000, 7, 1)]))[:, :2]
    np.testing.assert_allclose([january, july], [[0, 1], [0, -1]], atol=1e-6)
    assert np.linalg.norm(december - january) < 0.6


@pytest.mark.parametrize("year", [1, 1969, 2101, 9999])
def test_a_clock_that_was_never_set_is_a_bad_row(year):
    column = of([dt.date(2000, 1, 1), dt.date(year, 1, 1)])
    with pytest.raises(BadRows) as error:
        DateParts().read(column)
    assert error.value.rows == [1]
    assert error.value.reasons == [f"value: column 'x': expected a year from 1970 to 2100, got {year}"]
    made = DateParts(outside="clip").read(column)
    assert made[1, 0] == (0 if year < 2000 else 1)
    assert (
        DateParts(outside="clip").read(of([dt.datetime(year, 1, 1)], pa.timestamp("us"))).tolist() == made[1:].tolist()
    )


def test_a_missing_date_is_a_bad_row_if_so_said():
    with pytest.raises(BadRows, match="row 1: expected a date, got a null"):
        DateParts(missing="error").read(of([dt.date(2000, 1, 1), None]))


@pytest.mark.parametrize(
    "one",
    [
        Numbers(log=True, clip=(0.1, 0.9), fills=(1.5,), lows=(0.0,), highs=(2.0,), shifts=(1.0,), scales=(0.5,)),
        Categories(minCount=3, vocabularies=(("a", "b"), ())),
        Hashed(buckets=7, seed=1),
        DateParts(parts=("hour",), years=(2000, 2030)),
    ],
)
def test_json_tells_all(one):
    assert from_json(one.to_json()) == one


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Numbers(impute="mode"), "'impute' of Numbers"),
        (lambda: Numbers(clip=(0.9, 0.1)), "two quantiles, the lower first"),
        (lambda: Numbers(fills=(1.0,)), "must have a number for each column"),
        (lambda: Numbers(fill=NAN), "must be finite"),
        (lambda: Numbers(fills=(0,), lows=(0,), highs=(0,), shifts=(0,), scales=(0,)), "no scale 0"),
        (lambda: Numbers(scaling="none"), "did you mean 'scale'"),
        (lambda: Categories(minCount=0), "'minCount' of Categories"),
        (lambda: Categories(vocabSize=True), "'vocabSize' of Categories"),
        (lambda: Hashed(buckets=1), "'buckets' of Hashed"),
        (lambda: Hashed(seed=-1), "'seed' of Hashed"),
        (lambda: DateParts(parts=()), "different parts, at least one"),
        (lambda: DateParts(parts=("minute",)), "'parts.0' of DateParts"),
        (lambda: DateParts(years=(2000, 2000)), "the earlier first"),
    ],
)
def test_a_bad_setting_is_refused(make, message):
    with pytest.raises(InvalidParamError, match=message):
        make()


def test_the_net_exports_and_starts_with_the_unknown_in_the_middle():
    net = TableNet(numbers=5, categories=(4, 11), outputs=3, hidden=[8], mean=2.0, scale=3.0).eval()
    numbers, ids, bucket = torch.randn(6, 5), torch.zeros(6, 1, dtype=torch.int64), torch.arange(6)
    program = build(net, [numbers[:, :4], ids, bucket, numbers[:, 4]])
    assert program.kind == "export", program.reason
    assert not net.embeddings[0].weight[0].any()
    assert net.embeddings[1].weight[1].any()
    assert (embedding_width(2), embedding_width(1000), embedding_width(10**6)) == (2, 77, 600)
