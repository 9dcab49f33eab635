"""However a bundle is mutated, loading and running it ends in an error of ours or in a bundle that works: the process
lives, no file is touched, no code runs but what torch makes of a checked graph. See fuzzing.py for the guard.

One seed again: ``python tests/unit/fuzzing.py SEED 1``.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from itertools import chain

import fuzzing
import pytest
from mutations import mutated

pytestmark = pytest.mark.lane("spark35")

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
SECONDS = 120  # for one seed; the first waits for the imports too


def outcomes(first, count, folder):
    """``{seed: (what was done, how it ended)}``, by child processes: another when one ends before its time."""
    found = {}
    while len(found) < count:
        start = first + len(found)
        for seed, what, ends in lines(start, first + count - start, folder):
            found[seed] = (what, ends)
    return found


def lines(first, count, folder):
    command = [sys.executable, fuzzing.__file__, str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        said: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=lambda: [said.put(line) for line in chain(child.stdout, [None])], daemon=True).start()
        seed = first
        for _ in range(2 * count):
            try:
                line = said.get(timeout=SECONDS)
            except queue.Empty:
                child.kill()
                yield seed, "", f"TIME: more than {SECONDS} s"
                return
            if line is None:
                yield seed, "", f"CRASH: exit status {child.wait()}: {child.stderr.read()[-500:]}"
                return
            seed, what, ends = json.loads(line)
            if what != "begins":
                yield seed, what, ends


def check(first, count, folder):
    found = outcomes(first, count, folder)
    counts = Counter(ends.split()[0] for _, ends in found.values())
    print(f"seeds {first} to {first + count - 1}: {dict(counts.most_common())}")
    wrong = {seed: told for seed, told in found.items() if told[1].startswith(("WRONG", "CRASH", "TIME"))}
    assert not wrong
    assert not list(folder.iterdir())
    return counts


def test_three_hundred_mutated_bundles(tmp_path):
    counts = check(0, 300, tmp_path)
    assert counts["BundleIntegrityError"] > 150
    assert counts["works"] > 5  # the mutations reach what lies behind the digests


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_thousand_mutated_bundles(tmp_path):
    check(0, 10_000, tmp_path)


def test_a_seed_always_gives_the_same_bundle():
    for seed in range(20):
        assert mutated(seed) == mutated(seed)


# --- the guard itself: it would see what it is there for

CODE = """
import sys; sys.argv = ["x"]
import fuzzing, os, pickle, subprocess, socket, ctypes
guard = fuzzing.Guard()
deeds = {
    "write": lambda: open("touched", "w").close(),
    "read": lambda: open("/etc/hostname").close(),
    "mkdir": lambda: os.mkdir("touched2"),
    "process": lambda: subprocess.run(["true"]),
    "system": lambda: os.system("true"),
    "socket": lambda: socket.socket().close(),
    "library": lambda: ctypes.CDLL(None),
    "pickle": lambda: pickle.loads(b"cos\\ngetcwd\\n."),
    "eval": lambda: eval("os.getcwd()"),
    "generated": lambda: compile("def forward(self, x):\\n    return os.getcwd()", "<eval_with_key>.1", "exec"),
    "method": lambda: compile("def forward(self, x):\\n    return x.share_memory_()", "<eval_with_key>.1", "exec"),
}
for name, deed in deeds.items():
    with guard(learning=False):
        try:
            deed()
        except OSError as error:  # no descriptor is free
            assert error.errno == 24, error
    print(name, bool(guard.found))
with guard(learning=False):
    compile("def forward(self, x):\\n    add = torch.ops.aten.add.Tensor(x, 1);  x = None\\n    return (add,)",
            "<eval_with_key>.2", "exec")
    compile("Mul(Integer(2), Symbol('s0', positive=True))", "<string>", "eval")
    try:
        open(os.__file__)
        guard.found = ["a descriptor was free"]
    except OSError:
        pass
print("harmless", bool(guard.found))
"""


def test_the_guard_sees_what_it_is_there_for(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    told = dict(line.split() for line in done.stdout.splitlines())
    assert told.pop("harmless") == "False", done.stderr
    assert told, done.stderr
    assert set(told.values()) == {"True"}, told
