"""Building Horovod: what is decided, what is refused, and that a cache is never half-written."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from sparkdl import build_horovod as build
from sparkdl import horovod_source as source
from sparkdl import horovod_target as target
from sparkdl import system
from sparkdl.errors import SparkdlError

NCCL = Path("/py/nvidia/nccl")
CPU = target.Target("2.15.0+cu132", "cp311", "linux_x86_64", cuda_home=None, nccl=None)
CUDA = target.Target("2.15.0+cu132", "cp311", "linux_x86_64", cuda_home=Path("/cuda"), nccl=NCCL)


@pytest.mark.parametrize(
    ("forced", "torch_cuda", "gpu", "nvcc", "nccl", "expected"),
    [
        # everything there
        (None, "13.2", True, "/cuda/bin/nvcc", NCCL, "cuda"),
        # one thing missing each
        (None, None, True, "/cuda/bin/nvcc", NCCL, "cpu"),
        (None, "13.2", False, "/cuda/bin/nvcc", NCCL, "cpu"),
        (None, "13.2", True, None, NCCL, "cpu"),
        (None, "13.2", True, "/cuda/bin/nvcc", None, "cpu"),
        # asked for: an image is built for GPUs on a machine without one
        ("cuda", "13.2", False, "/cuda/bin/nvcc", NCCL, "cuda"),
        ("cpu", "13.2", True, "/cuda/bin/nvcc", NCCL, "cpu"),
        ("", "13.2", True, "/cuda/bin/nvcc", NCCL, "cuda"),
    ],
)
def test_variant(forced, torch_cuda, gpu, nvcc, nccl, expected):
    variant, why = target.choose_variant(forced=forced, torch_cuda=torch_cuda, gpu=gpu, nvcc=nvcc, nccl=nccl)
    assert variant == expected
    assert why


@pytest.mark.parametrize(
    ("forced", "nvcc", "message"),
    [
        ("gpu", "/cuda/bin/nvcc", "SPARKDL_HOROVOD must be one of 'cpu', 'cuda' (got 'gpu')"),
        ("cuda", None, "no nvcc"),
    ],
)
def test_variant_that_cannot_be_is_refused(forced, nvcc, message):
    with pytest.raises(target.BuildError) as error:
        target.choose_variant(forced=forced, torch_cuda="13.2", gpu=True, nvcc=nvcc, nccl=NCCL)
    assert message in str(error.value)
    assert isinstance(error.value, SparkdlError)


def test_the_key_changes_with_everything_a_wheel_depends_on():
    keys = [
        target.wheel_key(CPU, b"patch"),
        target.wheel_key(CPU, b"another patch"),
        target.wheel_key(CUDA, b"patch"),
        target.wheel_key(target.Target("2.14.0", "cp311", "linux_x86_64", None, None), b"patch"),
        target.wheel_key(target.Target("2.15.0+cu132", "cp312", "linux_x86_64", None, None), b"patch"),
        target.wheel_key(target.Target("2.15.0+cu132", "cp311", "linux_aarch64", None, None), b"patch"),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == target.wheel_key(CPU, b"patch")
    assert all("/" not in key for key in keys)


def test_the_environment_of_the_cpu_build():
    env = target.build_env(CPU, {"PATH": "/bin", "HOROVOD_WITH_MPI": "1"}, cores=2)
    assert env["HOROVOD_WITHOUT_MPI"] == env["HOROVOD_WITH_GLOO"] == env["HOROVOD_WITH_PYTORCH"] == "1"
    assert env["HOROVOD_WITHOUT_CUDA"] == "1"
    assert "HOROVOD_WITH_MPI" not in env  # of the user's shell; it contradicts ours
    assert "HOROVOD_GPU_OPERATIONS" not in env
    assert (env["MAKEFLAGS"], env["CMAKE_BUILD_PARALLEL_LEVEL"]) == ("-j2", "2")


def test_the_environment_of_the_cuda_build():
    env = target.build_env(CUDA, {}, cores=8, nccl_lib=Path("/tmp/link"))
    assert env["CUDAToolkit_ROOT"] == env["HOROVOD_CUDA_HOME"] == "/cuda"
    assert (env["HOROVOD_GPU_OPERATIONS"], env["HOROVOD_NCCL_LINK"]) == ("NCCL", "shared")
    assert (env["HOROVOD_NCCL_INCLUDE"], env["HOROVOD_NCCL_LIB"]) == ("/py/nvidia/nccl/include", "/tmp/link")
    assert "HOROVOD_WITHOUT_CUDA" not in env


def test_nccl_is_linked_under_the_name_the_linker_wants(tmp_path):
    folder = target.link_nccl(CUDA, tmp_path)
    assert os.readlink(folder / "libnccl.so") == "/py/nvidia/nccl/lib/libnccl.so.2"
    assert target.link_nccl(CPU, tmp_path) is None


PATCH = """Words before the diff are skipped.

--- a/one.txt
+++ b/one.txt
@@ -1,3 +1,3 @@
 first
-second
+2nd
 third
--- a/sub/two.txt
+++ b/sub/two.txt
@@ -2,2 +2,3 @@
 b
+b and a half
 c
@@ -5,1 +6,0 @@
-e
"""


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.txt").write_text("first\nsecond\nthird\n")
    (tmp_path / "sub/two.txt").write_text("a\nb\nc\nd\ne\n")
    return tmp_path


def test_a_patch_applies(tree):
    source.apply_patch(PATCH, tree)
    assert (tree / "one.txt").read_text() == "first\n2nd\nthird\n"
    assert (tree / "sub/two.txt").read_text() == "a\nb\nb and a half\nc\nd\n"


def test_a_patch_that_does_not_fit_is_refused_and_changes_nothing(tree):
    (tree / "sub/two.txt").write_text("a\nb\nX\nd\ne\n")
    with pytest.raises(source.PatchRefused, match=r"sub/two\.txt:3: the patch expects 'c', here is 'X'"):
        source.apply_patch(PATCH, tree)
    assert (tree / "one.txt").read_text() == "first\nsecond\nthird\n"


@pytest.mark.parametrize(("break_it", "message"), [("shorten", "the end of the file"), ("delete", "No such file")])
def test_a_patch_for_another_tree_is_refused(tree, break_it, message):
    if break_it == "shorten":
        (tree / "one.txt").write_text("first\n")
    else:
        (tree / "one.txt").unlink()
    with pytest.raises(source.PatchRefused, match=message):
        source.apply_patch(PATCH, tree)


def test_an_empty_patch_is_refused(tree):
    with pytest.raises(source.PatchRefused, match="names no file"):
        source.apply_patch("nothing in here\n", tree)


def test_our_patch_says_what_git_would_make_of_it(tmp_path):
    """Rebuild from the patch the files it expects; our reading of it and git's must agree."""
    git = pytest.importorskip("shutil").which("git")
    if not git:
        pytest.skip("git is not installed")
    text = source.PATCH.read_text()
    for side in ("ours", "git"):
        write_what_a_patch_expects(text, tmp_path / side)
    changed = source.apply_patch(text, tmp_path / "ours")
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path)}
    subprocess.run([git, "apply", str(source.PATCH)], cwd=tmp_path / "git", env=env, check=True)
    assert len(changed) == 5
    for path in changed:
        assert path.read_text() == (tmp_path / "git" / path.relative_to(tmp_path / "ours")).read_text()


def write_what_a_patch_expects(text, root):
    lines, path = [], None
    for row in [*text.splitlines(), "--- a/end"]:
        if row.startswith("--- a/"):
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join(lines) + "\n")
            path, lines = root / row.removeprefix("--- a/"), []
        elif row.startswith("@@"):
            start = int(row.split("-")[1].split(",")[0])
            lines += [f"filler {i}" for i in range(len(lines), start - 1)]
        elif path and row[:1] in " -" and not row.startswith("---"):
            lines.append(row[1:])


def test_an_sdist_with_another_sha256_is_refused(tmp_path):
    sdist = tmp_path / "sdist" / "horovod-0.28.1.tar.gz"
    sdist.parent.mkdir()
    sdist.write_bytes(b"not horovod")
    with pytest.raises(target.BuildError) as error:
        source.fetch_sdist(tmp_path)
    message = str(error.value)
    assert str(sdist) in message
    assert hashlib.sha256(b"not horovod").hexdigest() in message
    assert source.SDIST_SHA256 in message


def test_an_sdist_that_the_patch_does_not_fit_is_refused(tmp_path):
    sdist = tmp_path / "horovod-0.28.1.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        info = tarfile.TarInfo("horovod-0.28.1/CMakeLists.txt")
        info.size = len(b"project(other)\n")
        tar.addfile(info, io.BytesIO(b"project(other)\n"))
    with pytest.raises(source.PatchRefused, match=r"CMakeLists\.txt:16"):
        source.unpack(sdist, CPU, tmp_path / "work")


@pytest.mark.parametrize("cxx", [None, "/no/such/g++ -std=c++20"])
def test_no_compiler_is_a_named_error_with_the_package(cxx, tmp_path):
    env = {"PATH": str(tmp_path)} | ({"CXX": cxx} if cxx else {})
    with pytest.raises(target.CompilerMissing) as error:
        target.check_tools(env)
    assert system.remedy("cxx") in str(error.value)
    if cxx:
        assert cxx in str(error.value)


def test_a_missing_build_tool_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(target, "BUILD_MODULES", ("wheel", "no_such_module"))
    monkeypatch.setattr(target, "BUILD_PROGRAMS", ("no-such-cmake",))
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(target.BuildError, match=r"lacks no_such_module, no-such-cmake: pip install 'sparkdl\[build\]'"):
        target.check_tools(os.environ)


@pytest.mark.parametrize(
    ("cxx", "env", "expected"),
    [
        ("g++", {}, "g++"),
        ("clang++", {}, "clang++"),
        ("my-g++", {"CXX": "my-g++ -O3"}, "my-g++"),
        ("g++", {"CXX": "icpx"}, None),  # what CMake would be told to use is not there
        ("rustc", {}, None),
    ],
)
def test_find_compiler(cxx, env, expected):
    assert system.find_compiler(env, which=lambda name: name if name == cxx else None) == expected


LOG = """\
-- Build files have been written to: /build
[1/69] Building CXX object a.cc.o
a.cc:3:1: warning: unused variable 'error' [-Wunused-variable]
[2/69] Building CXX object b.cc.o
FAILED: b.cc.o
/usr/bin/c++ -DX=1 -o b.cc.o -c b.cc
b.cc:7:10: fatal error: torch/extension.h: No such file or directory
    7 | #include <torch/extension.h>
compilation terminated.
ninja: build stopped: subcommand failed.
Traceback (most recent call last):
error: command failed
"""


@pytest.mark.parametrize(
    ("log", "starts"),
    [
        (LOG, "b.cc:7:10: fatal error: torch/extension.h"),
        ("ok\nCMake Error at CMakeLists.txt:9 (find_package):\n  no torch\n", "CMake Error at CMakeLists.txt:9"),
        ("[69/69] Linking\nx.o: in function `f':\nx.cc: undefined reference to `g'\n", "x.cc: undefined reference"),
        ("a\nb\nc\nd\ne\nf\ng\n", "b\nc"),  # nothing we know: the end of it
        ("", ""),
    ],
)
def test_first_error(log, starts):
    found = build.first_error(log)
    assert found.startswith(starts)
    assert len(found.splitlines()) <= 6


def test_ninja_step():
    assert build.ninja_step(LOG) == "2 of 69"
    assert build.ninja_step("-- Configuring\n") is None


def test_a_wheel_without_the_extension_is_not_whole(tmp_path):
    """Horovod's setup.py exits 0 without it; `import horovod.torch` then only warns."""
    for name, inside in (
        ("horovod-1.whl", "horovod/torch/mpi_lib_v2.cpython-311-x86_64-linux-gnu.so"),
        ("horovod-2.whl", "root/x/horovod/torch/mpi_lib_v2.cpython-311-x86_64-linux-gnu.so"),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr(inside, "")
    (tmp_path / "horovod-3.whl").write_bytes(b"PK cut short")
    assert [build.is_whole(wheel) for wheel in sorted(tmp_path.iterdir())] == [True, False, False]
    assert build.whole_wheel(tmp_path) == tmp_path / "horovod-1.whl"
    assert build.whole_wheel(tmp_path / "nowhere") is None


def fake_source(tmp_path, setup):
    tree = tmp_path / "horovod-0.28.1"
    tree.mkdir()
    (tree / "setup.py").write_text(setup)
    return tree


def test_a_failed_build_says_the_first_error_and_where_the_log_is(tmp_path):
    tree = fake_source(tmp_path, f"import sys\nprint({LOG!r})\nprint('noise\\n' * 3000)\nsys.exit(1)")
    log = tmp_path / "logs" / "key.log"
    with pytest.raises(build.CompileFailed) as error:
        build.compile_wheel(tree, dict(os.environ), log)
    assert error.value.log == log
    assert error.value.first_error.startswith("b.cc:7:10: fatal error")
    assert str(log) in str(error.value)
    assert len(str(error.value).splitlines()) < 12
    assert log.read_text().count("noise") == 3000


def test_a_build_that_makes_no_extension_has_failed(tmp_path):
    tree = fake_source(tmp_path, "print('all is well')")
    with pytest.raises(build.CompileFailed, match="all is well"):
        build.compile_wheel(tree, dict(os.environ), tmp_path / "log")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_stopped_takes_its_compilers_with_it(tmp_path, how):
    pid_file = tmp_path / "pid"
    tree = fake_source(
        tmp_path,
        "import subprocess, pathlib\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "child.wait()\n",
    )
    code = (
        "import os, pathlib, sparkdl.build_horovod as b\n"
        f"b.compile_wheel(pathlib.Path({str(tree)!r}), dict(os.environ), pathlib.Path({str(tmp_path / 'log')!r}))"
    )
    # A shell's background job, as the tests may be, ignores SIGINT and would hand that on.
    driver = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: pid_file.exists() and pid_file.read_text())
    driver.send_signal(how)
    assert driver.wait(timeout=20) != 0
    wait_for(lambda: not is_running(int(pid_file.read_text())))


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_lock_is_exclusive_and_dies_with_its_holder(tmp_path, capfd):
    lock = tmp_path / "wheels" / "key.lock"
    code = (
        "import pathlib, time, sparkdl.build_horovod as b\n"
        f"with b.locked(pathlib.Path({str(lock)!r})): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    got = threading.Event()

    def take():
        with build.locked(lock):
            got.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not got.wait(0.5)
    holder.kill()  # as the machine's memory killer would
    assert got.wait(10)
    thread.join()
    holder.wait()
    assert "another build holds" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/sparkdl"),
        ({}, "~/.cache/sparkdl"),
        ({"XDG_CACHE_HOME": ""}, "~/.cache/sparkdl"),
    ],
)
def test_cache_dir(env, expected):
    assert build.cache_dir(env) == Path(expected).expanduser()
