"""What Horovod is built for, and with what: torch, Python, platform, CPU or CUDA."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparkdl import system
from sparkdl.errors import SparkdlError

HOROVOD = "0.28.1"
BUILD_MODULES = ("setuptools", "wheel", "packaging", "cffi", "cloudpickle", "psutil", "yaml")
BUILD_PROGRAMS = ("cmake", "ninja")


class BuildError(SparkdlError, RuntimeError):
    """Horovod could not be built; the message says why and what to do."""


class CompilerMissing(BuildError):
    """There is no C++ compiler, or no Python.h, to build with."""


@dataclass(frozen=True)
class Target:
    """What a wheel is built for, and with what."""

    torch: str  # "2.15.0+cu132"
    python_tag: str  # "cp311"
    platform: str  # "linux_x86_64"
    cuda_home: Path | None  # None: the CPU build, Gloo only
    nccl: Path | None  # root of torch's nvidia-nccl wheel: include/, lib/

    @property
    def variant(self) -> str:
        """`cuda` (NCCL) or `cpu` (Gloo only)."""
        return "cuda" if self.cuda_home else "cpu"


def choose_variant(
    *, forced: str | None, torch_cuda: str | None, gpu: bool, nvcc: str | None, nccl: Path | None
) -> tuple[str, str]:
    """`("cuda" | "cpu", why)`. CUDA needs a CUDA torch, a GPU, nvcc, and torch's own NCCL.

    `forced` ($SPARKDL_HOROVOD) builds the CUDA variant on a machine without a GPU, say for an image.
    """
    if forced not in (None, "", "cpu", "cuda"):
        raise BuildError(f"SPARKDL_HOROVOD must be one of 'cpu', 'cuda' (got {forced!r})")
    if forced == "cpu":
        return "cpu", "SPARKDL_HOROVOD=cpu"
    missing = [
        what
        for what, there in (
            ("CUDA in torch", torch_cuda),
            ("GPU", gpu or forced == "cuda"),
            ("nvcc", nvcc),
            ("nvidia-nccl wheel", nccl),
        )
        if not there
    ]
    if not missing:
        return "cuda", f"torch has CUDA {torch_cuda}, nvcc is {nvcc}"
    if forced == "cuda":
        raise BuildError(f"SPARKDL_HOROVOD=cuda, but here is no {', no '.join(missing)}")
    return "cpu", "no " + ", no ".join(missing)


def find_nvcc(env: Mapping[str, str]) -> str | None:
    """nvcc under $HOROVOD_CUDA_HOME or $CUDA_HOME, on the PATH, or in /usr/local/cuda."""
    homes = [env.get("HOROVOD_CUDA_HOME"), env.get("CUDA_HOME")]
    candidates = [f"{home}/bin/nvcc" for home in homes if home]
    candidates += ["nvcc", "/usr/local/cuda/bin/nvcc"]
    which = system.which_in(env)
    return next((found for nvcc in candidates if (found := which(nvcc))), None)


def find_nccl() -> Path | None:
    """The root of the nvidia-nccl wheel that torch depends on."""
    try:
        spec = importlib.util.find_spec("nvidia.nccl")
    except ModuleNotFoundError:
        return None
    roots = list(spec.submodule_search_locations or ()) if spec else []
    return next((Path(root) for root in roots if (Path(root) / "include/nccl.h").exists()), None)


def find_target(env: Mapping[str, str]) -> tuple[Target, str]:
    """What to build for the running interpreter, and why this variant."""
    try:
        import torch
    except ImportError as error:
        raise BuildError(
            f"torch cannot be imported by {sys.executable} ({error}); Horovod is built against it: pip install torch"
        ) from error
    nvcc, nccl = find_nvcc(env), find_nccl()
    variant, why = choose_variant(
        forced=env.get("SPARKDL_HOROVOD"),
        torch_cuda=torch.version.cuda,
        gpu=torch.cuda.is_available(),
        nvcc=nvcc,
        nccl=nccl,
    )
    cuda = variant == "cuda" and nvcc is not None
    target = Target(
        torch=torch.__version__,
        python_tag=f"cp{sys.version_info.major}{sys.version_info.minor}",
        platform=re.sub(r"[^A-Za-z0-9]", "_", sysconfig.get_platform()),
        cuda_home=Path(nvcc).resolve().parent.parent if cuda and nvcc else None,
        nccl=nccl if cuda else None,
    )
    return target, why


def wheel_key(target: Target, patch: bytes) -> str:
    """The cache key: everything a wheel depends on, in a name a person can read."""
    sha = hashlib.sha256(patch).hexdigest()[:8]
    t = target
    return f"horovod-{HOROVOD}-torch{t.torch}-{t.python_tag}-{t.platform}-{t.variant}-{sha}"


def with_scripts(env: Mapping[str, str]) -> dict[str, str]:
    """`env` with this interpreter's scripts (cmake, ninja) first on the PATH."""
    path = [sysconfig.get_path("scripts"), env.get("PATH", os.defpath)]
    return {**env, "PATH": os.pathsep.join(path)}


def build_env(target: Target, base: Mapping[str, str], *, cores: int, nccl_lib: Path | None = None) -> dict[str, str]:
    """The environment of Horovod's setup.py. `nccl_lib` holds a link named libnccl.so."""
    env = {key: value for key, value in base.items() if not key.startswith("HOROVOD_")}
    env |= {
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(cores),
        "MAKEFLAGS": f"-j{cores}",
    }
    if target.cuda_home is None:
        # Our patch reads it: a CUDA toolkit on a machine without a GPU would else be compiled in.
        return env | {"HOROVOD_WITHOUT_CUDA": "1"}
    return env | {
        "CUDAToolkit_ROOT": str(target.cuda_home),
        "HOROVOD_CUDA_HOME": str(target.cuda_home),
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_NCCL_LINK": "shared",
        "HOROVOD_NCCL_INCLUDE": f"{target.nccl}/include",
        "HOROVOD_NCCL_LIB": str(nccl_lib),
    }


def check_tools(env: Mapping[str, str]) -> None:
    """Raise before anything is fetched when something to build with is missing."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if system.find_compiler(env) is None:
        there = f"CXX={env['CXX']} is not a program" if env.get("CXX") else "there is none here"
        raise CompilerMissing(f"Horovod needs a C++ compiler and {there}: {system.remedy('cxx', python=python)}")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise CompilerMissing(
            f"Horovod needs Python.h and {headers} has none: {system.remedy('python-headers', python=python)}"
        )
    env = with_scripts(env)
    missing = [name for name in BUILD_MODULES if importlib.util.find_spec(name) is None]
    missing += [name for name in BUILD_PROGRAMS if shutil.which(name, path=env["PATH"]) is None]
    if missing:
        raise BuildError(f"to build Horovod, {sys.executable} lacks {', '.join(missing)}: pip install 'sparkdl[build]'")
    out = subprocess.run(["cmake", "--version"], capture_output=True, text=True, env=env).stdout
    version = re.search(r"(\d+)\.(\d+)", out)
    if version is None or not (3, 13) <= (int(version[1]), int(version[2])) < (4, 0):
        raise BuildError(
            f"Horovod builds with CMake 3.13 to 3.31, here is {out.strip()[:40]!r}: pip install 'sparkdl[build]'"
        )


def link_nccl(target: Target, work: Path) -> Path | None:
    """A folder with `libnccl.so`, the name the linker wants; torch's wheel has libnccl.so.2 only."""
    if target.nccl is None:
        return None
    folder = work / "nccl"
    folder.mkdir()
    (folder / "libnccl.so").symlink_to(target.nccl / "lib" / "libnccl.so.2")
    return folder
