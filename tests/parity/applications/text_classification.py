"""TextClassifier and plain PyTorch on the same real texts: which part of the standard library a docstring is of.

    python tests/parity/applications/text_classification.py

The docstrings are those of the Python that runs this (PSF licence), so their number differs a little between versions.
"""

from __future__ import annotations

import importlib
import inspect
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

from sparkdl.preprocess import Labels
from sparkdl.preprocess.text import Text
from sparkdl.ready.reading import Classifier

MODULES = {
    "network": "asyncio email ftplib http.client imaplib smtplib socket socketserver ssl urllib.request xmlrpc.client",
    "numbers": "cmath decimal fractions math numbers random statistics",
    "files": "glob gzip os os.path pathlib shutil tarfile tempfile zipfile fileinput",
    "code": "ast dis inspect pdb tokenize traceback types typing unittest doctest",
    "processes": "concurrent.futures multiprocessing sched signal subprocess threading queue",
}
EPOCHS, BATCH, LENGTH, VOCABULARY = 12, 64, 64, 2000


def texts() -> list[dict[str, str]]:
    """A row a docstring, each once: its text without the names, and its topic; shuffled."""
    found: dict[str, str] = {}
    for topic, names in MODULES.items():
        for name in names.split():
            module = importlib.import_module(name)
            for owner in [module, *(one for _, one in inspect.getmembers(module, inspect.isclass))]:
                if owner is not module and not str(owner.__module__).startswith(name.partition(".")[0]):
                    continue
                for _, one in [("", owner), *inspect.getmembers(owner, callable)]:
                    doc = inspect.getdoc(one)
                    if doc and len(doc) > 40 and doc != inspect.getdoc(type(one)) and hasattr(one, "__module__"):
                        found.setdefault(doc, topic)
    rows = [{"text": text, "topic": topic} for text, topic in sorted(found.items())]
    random.Random(8).shuffle(rows)
    return rows


def write(folder: Path) -> None:
    """``folder/train`` and ``folder/test``, a fifth."""
    rows = texts()
    for name, part in (("train", rows[len(rows) // 5 :]), ("test", rows[: len(rows) // 5])):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(part), folder / name / "part-0.parquet")


def figure(folder: Path, size: str = "small") -> float:
    """Accuracy of the held-out rows."""
    torch.manual_seed(0)
    train, test = (pq.read_table(folder / name).combine_chunks() for name in ("train", "test"))
    text = Text(length=LENGTH, vocabulary=VOCABULARY).trained(train["text"].to_pylist())
    labels = Labels(values=tuple(sorted(set(train["topic"].to_pylist()))))
    inputs, held_out = (torch.from_numpy(text.read({"text": one["text"].combine_chunks()})) for one in (train, test))
    label, right = (torch.from_numpy(labels.read({"topic": one["topic"].combine_chunks()})) for one in (train, test))
    model = Classifier(text.tokens, LENGTH, len(labels.values), "mean", width=64, layers=1, dropout=0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[batch]), label[batch]).backward()
            optimizer.step()
    with torch.inference_mode():
        return float((model.eval()(held_out).argmax(1) == right).float().mean())


def of_sparkdl(folder: Path) -> float:
    """Accuracy of TextClassifier on the same rows, in a Spark of its own."""
    from pyspark.sql import SparkSession

    from sparkdl import TextClassifier
    from sparkdl.evaluate import evaluate

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    train, test = (spark.read.parquet(str(folder / name)) for name in ("train", "test"))
    classifier = TextClassifier(
        labelCol="topic", length=LENGTH, vocabularySize=VOCABULARY, dropout=0.3, epochs=EPOCHS, batchSize=BATCH // 2,
        numProc=2, verbose=False,
    )  # fmt: skip
    return evaluate(classifier.fit(train), test, "topic").figures["accuracy"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write(Path(made))
        print(f"script {figure(Path(made)):.4f}, sparkdl {of_sparkdl(Path(made)):.4f}")
