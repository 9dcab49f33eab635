"""Who may import what: data, loop and scoring know neither Spark nor Horovod; the façade imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparkdl

PACKAGE = Path(sparkdl.__file__).parent
SPARK = {"estimator.py", "evaluate.py", "model.py", "params.py", "plan.py"}  # importing them imports pyspark
SPARK_FOLDERS = ("ready/",)  # the same
SPARK_INSIDE = {
    "doctor.py", "data/materialize.py", "jobs/code.py", "jobs/signals.py", "runner.py", "score/udf.py", "score/worker.py", "score/batch.py", "score/sources.py",
    "payloads.py", "registry/uri.py", "session.py", "train/launcher.py", "zeppelin.py",
}  # only their functions do  # fmt: skip
SPARK_INSIDE_FOLDERS = ("decode/", "jvm/", "preprocess/", "realtime/", "showing/", "sinks/", "stream/")  # the same
HOROVOD = {
    "doctor.py", "build_horovod.py", "horovod_source.py", "horovod_target.py", "train/collective.py",
    "train/launcher.py", "train/local.py",
}  # fmt: skip


def sources():
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imported(path, *, at_import_only):
    """The top-level packages that a source file imports; not those under TYPE_CHECKING."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if at_import_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse((PACKAGE / path).read_text()))
    return found


@pytest.mark.parametrize("path", sources())
def test_spark_is_imported_by_its_own_files_only(path):
    if path in SPARK or path.startswith(SPARK_FOLDERS):
        return
    assert "pyspark" not in imported(path, at_import_only=True)
    if path not in SPARK_INSIDE and not path.startswith(SPARK_INSIDE_FOLDERS):
        assert "pyspark" not in imported(path, at_import_only=False)


@pytest.mark.parametrize("path", sources())
def test_horovod_is_imported_by_its_own_files_only(path):
    assert "horovod" not in imported(path, at_import_only=True)  # a missing or broken Horovod must not break imports
    if path not in HOROVOD:
        assert "horovod" not in imported(path, at_import_only=False)


def modules_after(*names):
    code = f"import sys, {', '.join(names)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_data_loop_predictor_and_bundle_know_neither_spark_nor_horovod():
    loaded = modules_after(
        "sparkdl.data.shard", "sparkdl.data.reader", "sparkdl.train.loop", "sparkdl.score.predictor", "sparkdl.bundle",
        "sparkdl.signature", "sparkdl.columns", "sparkdl.tasks", "sparkdl.train.collective",
        "sparkdl.graph.build",
    )  # fmt: skip
    assert "torch" in loaded
    assert not loaded & {"pyspark", "py4j", "horovod"}


def test_the_façade_and_the_errors_import_nothing_heavy():
    assert not modules_after("sparkdl", "sparkdl.errors") & {"torch", "pyspark", "horovod", "numpy", "pyarrow"}


def test_the_signature_needs_no_torch():
    assert "torch" not in modules_after("sparkdl.signature", "sparkdl.data.shard")
