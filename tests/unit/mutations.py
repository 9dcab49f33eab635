"""Bundles with something wrong, one a seed: bytes, fields of the manifest, of the program, of the weights' header."""

import hashlib
import io
import json
import random
import zipfile
from pathlib import Path

import numpy as np

from sparkdl.columns import Ragged

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = ("bundle-v1", "bundle-v2", "bundle-v2-onnx")
EVIL = "__import__('os').mkdir('touched')"
VALUES = [None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**70, 1.5, float("inf"), float("nan"), "", "x", "../x",
          "/etc/passwd", EVIL, f"Symbol('{EVIL}')", "torch.ops.aten.from_file.default", "os.system", "models:mlp",
          [], {}, ["a"], {"a": 1}, [[[]]]]  # fmt: skip


def inputs_of(name):
    """The answer file's inputs, as ``Bundle.predict`` takes them."""
    told = json.loads((GOLDEN / f"{name}-answer.json").read_bytes())["inputs"]
    return {key: Ragged.of(v, "int64", (-1,)) if key == "tokens" else np.array(v, np.float32 if key == "x" else None)
            for key, v in told.items()}  # fmt: skip


ORIGINALS = {name: {file.name: file.read_bytes() for file in (GOLDEN / name).iterdir()} for name in NAMES}
INPUTS = {name: inputs_of(name) for name in NAMES}


def of_bytes(chance, content, others=()):
    """Flipped, cut, filled, said twice, or grown together with another file."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at, span = chance.randrange(len(content) or 1), chance.choice([1, 4, 16, 200, 2000])
        match chance.randrange(7):
            case 0 | 1 if content:
                content[at] ^= 1 << chance.randrange(8)
            case 2:
                del content[at : at + span]
            case 3:
                content[at:at] = chance.randbytes(min(span, 50))
            case 4:
                content[at:at] = content[at : at + span]
            case 5 if others:
                content[at : at + span] = chance.choice(others)[at : at + span]
            case _:
                content[at : at + span] = bytes([chance.choice([0, 255, 65])]) * min(span, len(content) - at)
    return bytes(content)


def of_json(chance, content):
    """A field of it somewhere gone, of another value, or with a neighbour's."""
    root = json.loads(content)
    for _ in range(chance.randint(1, 2)):
        place, above = root, None
        for _ in range(chance.randint(0, 14)):
            inner = [key for key in keys(place) if isinstance(place[key], (dict, list)) and place[key]]
            if not inner:
                break
            above, place = place, place[chance.choice(inner)]
        if not keys(place):
            continue
        key = chance.choice(keys(place))
        how = chance.random()
        if how < 0.2:
            del place[key]
        elif how < 0.4:
            place[key] = place[chance.choice(keys(place))]
        elif how < 0.5 and isinstance(place, list):
            place.insert(0, place[key])
        elif how < 0.6 and isinstance(place[key], str):
            place[key] = place[key] + chance.choice(["\n", "'", '"', " ", ".x", "0", "_", EVIL])
        elif how < 0.7 and above is not None:
            place[key] = above
            if len(json_or_none(root) or "") > 10**7:
                place[key] = None
        else:
            place[key] = chance.choice(VALUES)
    return (json_or_none(root) or "{}").encode()


def json_or_none(value):
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):  # it holds itself
        return None


def keys(place):
    return list(place) if isinstance(place, dict) else list(range(len(place)))


def of_archive(chance, content):
    """program.pt2: a file within changed, gone, there twice, under another name, compressed, swapped with another."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [(name, archive.read(name)) for name in archive.namelist()]
    at = chance.randrange(len(files))
    if chance.random() < 0.6:
        at = next(i for i, (name, _) in enumerate(files) if name.endswith("model.json"))
    name, data = files[at]
    compression = zipfile.ZIP_STORED
    match chance.choice(["json", "json", "json", "json", "bytes", "gone", "twice", "name", "compressed", "swapped"]):
        case "json" if data.lstrip()[:1] in (b"{", b"["):
            data = of_json(chance, data)
        case "gone":
            files.pop(at)
            files.append(("archive/x", b""))
            at, name, data = -1, "archive/.data/version", b"3"
        case "twice":
            files.append((name, data))
        case "name":
            name = chance.choice(["../touched", "/tmp/touched", "archive/data/weights/model.pt", name.upper(), "x"])
        case "compressed":
            compression = zipfile.ZIP_DEFLATED
        case "swapped":
            data = chance.choice(files)[1]
        case _:
            data = of_bytes(chance, data)
    files[at] = (name, data)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for entry in files:
            archive.writestr(*entry)
    return out.getvalue()


def of_weights(chance, content):
    """weights.safetensors: a field of its header."""
    length = int.from_bytes(content[:8], "little")
    header = of_json(chance, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def of_onnx(chance, content):
    """program.onnx: a field of a message somewhere within gone, there twice, or of another value."""
    import onnx

    model = onnx.load_model_from_string(content)
    for _ in range(chance.randint(1, 3)):
        message = model
        for _ in range(chance.randint(0, 6)):
            inner = [value for told, value in message.ListFields() if told.type == told.TYPE_MESSAGE]
            inner = [m for value in inner for m in ([value] if hasattr(value, "ListFields") else value)]
            if not inner:
                break
            message = chance.choice(inner)
        fields = (
            list(message.DESCRIPTOR.fields) if chance.random() < 0.3 else [told for told, _ in message.ListFields()]
        )
        if fields:
            changed_field(chance, message, chance.choice(fields))
    return model.SerializeToString()


def changed_field(chance, message, told):
    value = getattr(message, told.name)
    repeated = hasattr(value, "extend")
    if chance.random() < 0.2:
        message.ClearField(told.name)
    elif told.type == told.TYPE_MESSAGE:
        if repeated and len(value):
            value.add().CopyFrom(chance.choice(list(value)))
    else:
        texts = ["", "x", "../touched", "Loop", "Identity", "com.microsoft", "twice", "external_data"]
        numbers = [0, 1, -1, 2, 7, 16, 2**31 - 1, 2**20]
        new = {
            told.TYPE_STRING: chance.choice(texts),
            told.TYPE_BYTES: chance.choice(texts).encode() * chance.randint(1, 9),
            told.TYPE_FLOAT: chance.choice([0.0, -1.0, 1e30, float("nan")]),
            told.TYPE_DOUBLE: chance.choice([0.0, -1.0, 1e300, float("nan")]),
        }.get(told.type, chance.choice([v for v in numbers if told.type != told.TYPE_ENUM or 0 <= v < 17] or [0]))
        try:
            if repeated:
                value.append(new) if chance.random() < 0.5 or not len(value) else value.__setitem__(0, new)
            else:
                setattr(message, told.name, new)
        except (ValueError, TypeError):  # no such number in that field
            message.ClearField(told.name)


def mutated(seed):
    """``(which bundle, what was done, its files)``."""
    chance = random.Random(seed)
    which = chance.choice(NAMES)
    files = dict(ORIGINALS[which])
    program = next(name for name in files if name.startswith("program"))
    name = chance.choice([*files, program, program])
    deep = {
        "manifest.json": of_json,
        "program.pt2": of_archive,
        "program.onnx": of_onnx,
        "weights.safetensors": of_weights,
    }
    how = chance.choice(["bytes", "fields", "fields", "fields", "cut", "splice", "swap", "gone"])
    if how == "bytes":
        files[name] = of_bytes(chance, files[name])
    elif how == "fields":
        files[name] = deep[name](chance, files[name])
    elif how == "cut":
        files[name] = files[name][: chance.randrange(len(files[name]))]
    elif how == "splice":
        files[name] = of_bytes(
            chance, files[name], [content for kind in ORIGINALS.values() for content in kind.values()]
        )
    elif how == "swap":
        files[name] = chance.choice([content for kind in ORIGINALS.values() for content in kind.values()])
    else:
        del files[name]
    repaired = chance.random() < 0.8
    if repaired:
        files["manifest.json"] = with_digests(files)
    return which, f"{how} of {name}{', digests repaired' if repaired else ''}", files


def with_digests(files):
    """The manifest with the digests of the files as they are, if it still lists any."""
    try:
        manifest = json.loads(files["manifest.json"])
        for name, told in manifest["files"].items():
            told.update(sha256=hashlib.sha256(files[name]).hexdigest(), bytes=len(files[name]))
        return json.dumps(manifest).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return files.get("manifest.json", b"")
