"""A dataset is what its manifest says: it comes back as it was saved, in other dtypes when asked, and only if it is sane."""

import json
import re
from dataclasses import replace

import pytest
from making import dataset, signature, spec

from sparkdl.data.manifest import KIND, LABEL, WEIGHT, DataFile, Dataset, LabelFacts, Layout, merged
from sparkdl.errors import DataError, InvalidParamError, SignatureError, StoreError

X, KEY, Y, W = spec("x", shape=(3,)), spec("key", "int64", type="long"), spec("y", type="float"), spec("w")
FILES, HELD = (DataFile("data-1/a", (4, 5)), DataFile("data-1/b", (1,))), (DataFile("data-1/v", (2,)),)


def made(uri="/d", **changed):
    facts = LabelFacts(0.0, 9.0, True)
    return replace(Dataset(str(uri), FILES, signature(X, KEY), Y, W, HELD, "0" * 16 + "f" * 16, facts), **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"weight": None, "validation_files": (), "digest": None, "label_facts": None},
        {"label_facts": LabelFacts(-(2**63), 2**63 - 1, True)},
        {"label_facts": LabelFacts(float("-inf"), 0.5, False)},
    ],
)
def test_it_comes_back_as_it_was_saved(tmp_path, changed):
    data = made(tmp_path, **changed)
    data.save()
    assert Dataset.load(str(tmp_path)) == data


def test_rows_tensors_and_sides():
    data = made()
    assert (data.rows, data.validation.rows, data.validation.validation) == (10, 2, None)
    assert [t.name for t in data.tensors] == ["x", "key", LABEL, WEIGHT]
    assert [t.name for t in replace(data, weight=None).tensors] == ["x", "key", LABEL]
    assert made(validation_files=()).validation is None


def test_reading_in_other_dtypes():
    def dtypes(data):
        return [t.dtype for t in data.tensors]

    data = made()
    assert dtypes(data) == ["float32", "int64", "float32", "float32"]
    assert dtypes(data.cast("float64", "int64")) == ["float64", "int64", "int64", "float64"]
    assert dtypes(data.cast(None, "float64")) == ["float32", "int64", "float64", "float32"]
    assert dtypes(data.cast("float16", "float16")) == ["float16", "int64", "float16", "float32"]
    assert data.cast("float64", "float32").files == data.files
    fractions = made(label_facts=LabelFacts(0, 1.5, False))
    assert dtypes(fractions.cast(None, "float64"))[2] == "float64"
    with pytest.raises(SignatureError, match=r"label column 'y' of '/d' holds numbers that are not whole, and int64"):
        fractions.cast(None, "int64")


def test_stacking_takes_scalars_only():
    scalars = made(signature=signature(KEY, W))
    (stacked,) = scalars.stacked("features").signature.inputs
    assert (stacked.columns, stacked.shape, stacked.dtype) == (("key", "w"), (2,), "float64")
    with pytest.raises(SignatureError, match="cannot be stacked"):
        made().stacked("features")


@pytest.mark.parametrize(
    ("facts", "classes", "got"),
    [
        (LabelFacts(0, 9, True), 10, None),
        (None, 2, None),
        (LabelFacts(0, 9, True), 9, "labels from 0 to 9"),
        (LabelFacts(-1, 2, True), 3, "labels from -1 to 2"),
        (LabelFacts(0, 1.5, False), 3, "labels from 0 to 1.5, not all of them whole numbers"),
    ],
)
def test_classes_are_checked_without_reading(facts, classes, got):
    data = made(label_facts=facts)
    if got is None:
        data.check_classes(classes)
        return
    with pytest.raises(DataError, match=re.escape(f"from 0 to {classes - 1}, got {got}")) as caught:
        data.check_classes(classes)
    assert (caught.value.column, caught.value.got) == ("y", got)


def test_what_is_known_of_parts_is_known_of_all():
    assert merged([]) is None
    assert merged([LabelFacts(0, 3, True), LabelFacts(-1, 2.5, False)]) == LabelFacts(-1, 3, False)


def test_deleting_takes_what_the_manifest_lists_and_nothing_else(tmp_path):
    data = dataset(tmp_path, [(4,), (2,)])
    data.save()
    (tmp_path / "data" / "more").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("")
    data.delete()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "notes.txt"]
    data.delete()  # nothing there is no error


# Manifests that cannot be used


def test_a_data_set_without_a_manifest_is_none(tmp_path):
    data = dataset(tmp_path, [(4,), (2, 3)])
    with pytest.raises(StoreError, match=r"no \(finished\) dataset"):
        Dataset.load(str(tmp_path))
    data.save()
    assert Dataset.load(str(tmp_path)) == data
    assert data.rows == 9
    assert data.files[1] == DataFile("part-1.parquet", (2, 3))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "files": 3}'])
def test_a_manifest_that_cannot_be_understood_is_a_store_error(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(StoreError):
        Dataset.load(str(tmp_path))


def damaged(**changed):
    return lambda told: told | changed


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damaged(kind="a bundle"), "its manifest is of 'a bundle', format 1; this sparkdl reads"),
        (damaged(format=2), "format 2; this sparkdl reads 'sparkdl dataset', format 1"),
        (lambda told: {k: v for k, v in told.items() if k != "files"}, "its manifest has no 'files'"),
        (damaged(files=[{"path": "../x", "row_groups": [1]}]), "'../x' is not inside the dataset"),
        (damaged(files=[{"path": "/etc/x", "row_groups": [1]}]), "'/etc/x' is not inside the dataset"),
        (damaged(validation_files=[{"path": "a//b", "row_groups": [1]}]), "'a//b' is not inside"),
        (damaged(files=[{"path": "a", "row_groups": [3, -1]}]), "has row groups of [3, -1] rows"),
        (damaged(files=[{"path": "a", "row_groups": ["3"]}]), "has row groups of ['3'] rows"),
        (damaged(files=3), "not iterable"),
        (damaged(label={"name": "y"}), "dtype"),
        (damaged(weight={"name": "w", "dtype": "text"}), "dtype of 'w' must be one of"),
        (damaged(label_facts={"min": 0}), "max"),
        (lambda told: [told], "list indices"),
    ],
)
def test_a_manifest_that_makes_no_sense(tmp_path, damage, told):
    made(tmp_path).save()
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(StoreError, match=r"there is no \(finished\) dataset at") as caught:
        Dataset.load(str(tmp_path))
    assert told in str(caught.value)
    assert caught.value.uri == str(tmp_path)


def test_the_manifest_s_format(tmp_path):
    """What is written today is read tomorrow: change FORMAT with it."""
    made(tmp_path).save()
    told = json.loads((tmp_path / "manifest.json").read_text())
    assert told["kind"] == KIND == "sparkdl dataset"
    assert told["format"] == 1
    assert sorted(told) == [
        "digest", "files", "format", "kind", "label", "label_facts", "rows", "signature", "validation_files", "weight"
    ]  # fmt: skip
    assert told["files"] == [{"path": "data-1/a", "row_groups": [4, 5]}, {"path": "data-1/b", "row_groups": [1]}]


# Layouts


@pytest.mark.parametrize("fraction", [1, 1.0, -0.1, float("nan"), float("inf"), "0.5", None, True])
def test_a_fraction_out_of_range(fraction):
    with pytest.raises(InvalidParamError, match="validationFraction") as caught:
        Layout(signature(X), Y, fraction=fraction)
    assert caught.value.param == "validationFraction"


def test_both_ways_to_validate():
    with pytest.raises(InvalidParamError, match=r"'held'\) and 'validationFraction' \(0.1\) are both set"):
        Layout(signature(X), Y, indicator="held", fraction=0.1)
    assert Layout(signature(X), Y, indicator="held").splits
    assert Layout(signature(X), Y, fraction=0.1).splits
    assert not Layout(signature(X), Y).splits


@pytest.mark.parametrize("weight", [spec("w", shape=(1,)), spec("w", "int64", type="long"), spec("w", "float16")])
def test_a_weight_is_a_floating_scalar(weight):
    with pytest.raises(SignatureError, match="a weight is a scalar of float32 or float64"):
        Layout(signature(X), Y, weight)


@pytest.mark.parametrize("name", [LABEL, WEIGHT])
def test_names_on_disk_are_taken(name):
    with pytest.raises(SignatureError, match="rename it"):
        Layout(signature(spec(name)), Y)


def test_a_layout_s_digest_is_of_what_changes_the_files():
    plain = Layout(signature(X), Y)
    assert re.fullmatch("[0-9a-f]{16}", plain.digest)
    same = [Layout(signature(X), Y, seed=5), Layout(signature(X), Y, classes=3)]
    others = [
        Layout(signature(X, KEY), Y),
        Layout(signature(X), replace(Y, dtype="float64")),
        Layout(signature(X), Y, W),
        Layout(signature(X), Y, indicator="held"),
        Layout(signature(X), Y, fraction=0.5),
        Layout(signature(X), Y, fraction=0.5, seed=5),
    ]
    assert {layout.digest for layout in same} == {plain.digest}
    assert len({layout.digest for layout in [plain, *others]}) == 7
