"""Draw the pictures of docs/showing.md: what the functions of sparkdl.zeppelin give for a model of scikit-learn's digits, one of
its diabetes data, and sound and text that are generated here.

    .venv/latest/bin/python docs/showing/draw.py [FOLDER]

It needs Chromium, headless, which takes a picture of the HTML; FOLDER is that of this file by default.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf
from rich.console import Console
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

import sparkdl
from sparkdl.showing import anything, display, evaluated, images, plain, sounds, streams, texts
from sparkdl.showing.pieces import Picture, Piece

WIDTH = 980
MARGIN = "body{margin:14px 18px;background:BACK;color:FORE}"
DARK = MARGIN.replace("BACK", "#1e1e1e").replace("FORE", "#e4e4e4")
LIGHT = MARGIN.replace("BACK", "#ffffff").replace("FORE", "#1a1a1a")


def main(folder: Path) -> None:
    """All pictures, in a session of their own."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    with tempfile.TemporaryDirectory() as scratch:
        draw(spark, folder, scratch)
    spark.stop()


def draw(spark: SparkSession, folder: Path, scratch: str) -> None:
    """One after the other."""
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    train, test = digits(spark).randomSplit([0.7, 0.3], seed=0)
    estimator = sparkdl.TorchEstimator(
        model=network, task="multiclass", featuresCol="image", epochs=6, batchSize=32, learningRate=0.003, numProc=2, seed=0,
        validationFraction=0.2, metrics=["accuracy"],
    )  # fmt: skip
    model = estimator.fit(train)
    scored = model.transform(test).cache()
    picture(folder / "table.png", anything.pieces_of(scored, 5), 195)
    picture(folder / "model.png", anything.pieces_of(model, 5), 370)
    picture(folder / "curves.png", anything.curves(model.summary), 285)
    picture(folder / "confusion.png", evaluated.confusion_matrix(scored, "label", "prediction"), 925)
    wrong, right = (scored.where(f"(prediction = label) = {is_right}").orderBy("id") for is_right in ("false", "true"))
    broken = scored.limit(1).withColumn("image", sf.slice("image", 1, 63))
    some = wrong.limit(5).union(right.limit(10)).union(broken).coalesce(1)
    picture(folder / "images.png", [images.tiles(some, "image", "prediction", "label", 16, None)], 275, dark=True)
    picture(folder / "roc.png", evaluated.roc(ill(spark), "label", "probability"), 470)
    picture(
        folder / "sound.png",
        [*sounds.sounds(bird(), 16_000, "", None, 1), *sounds.spectrograms(sounds.sounds(bird(), 16_000, "", None, 1))],
        375,
    )
    picture(folder / "answers.png", texts.marked(questions(spark), "text", "start", "end", None, "question", 5), 175)
    query = stream(spark, model, test, scratch)
    picture(folder / "stream.png", streams.with_pictures(query), 730)
    terminal(folder / "terminal.png", [
        *anything.pieces_of(scored.select("id", "image", "label", "prediction"), 4), *without_files(anything.curves(model.summary)),
        *without_files(evaluated.confusion_matrix(scored, "label", "prediction")),
    ])  # fmt: skip


def digits(spark: SparkSession) -> DataFrame:
    """1,797 images of 8 × 8 pixels, flat."""
    data = load_digits()
    rows = [
        (i, (pixels / 16).tolist(), int(label))
        for i, (pixels, label) in enumerate(zip(data.data, data.target, strict=True))
    ]
    return spark.createDataFrame(rows, "id int, image array<float>, label int").repartition(4)


def ill(spark: SparkSession) -> DataFrame:
    """Whether the disease of 442 patients went further than that of most, by a model of 10 figures of theirs."""
    data = load_diabetes()
    rows = [
        ([float(x) for x in row * 20], int(target > np.median(data.target)))
        for row, target in zip(data.data, data.target, strict=True)
    ]
    train, test = spark.createDataFrame(rows, "features array<float>, label int").randomSplit([0.6, 0.4], seed=1)
    network = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))
    estimator = sparkdl.TorchEstimator(
        model=network, task="binary", epochs=15, batchSize=32, learningRate=0.005, numProc=2, seed=0
    )
    return estimator.fit(train).transform(test)


def bird() -> np.ndarray:
    """A generated chirp: three tones that rise, in a little noise; 2 s at 16,000 Hz."""
    time = np.arange(32_000) / 16_000
    song = np.sin(2 * np.pi * (900 * time + 500 * (time % 0.66) ** 2 * 4)) * (time % 0.66 < 0.5)
    return (0.6 * song + 0.02 * np.random.default_rng(0).normal(size=len(time))).astype(np.float32)


def questions(spark: SparkSession) -> DataFrame:
    """Generated, no model's answers."""
    asked = [
        (
            "Where are the ranks?",
            "Each rank of a fit runs in a task of one barrier stage, on the executors.",
            "in a task of one barrier stage",
        ),
        ("How often is a row seen?", "Every row is read once an epoch, whatever the number of ranks.", "once an epoch"),
    ]
    rows = [(question, text, text.index(answer), text.index(answer) + len(answer)) for question, text, answer in asked]
    return spark.createDataFrame(
        [*rows, ("A model that fails?", "Short.", 3, 40)], "question string, text string, start int, end int"
    )


def stream(spark: SparkSession, model: sparkdl.TorchModel, test: DataFrame, scratch: str) -> sparkdl.ScoreQuery:
    """The digits as 12 files, one a micro-batch, each image 20 times."""
    many = test.drop("label").crossJoin(spark.range(20).drop("id"))
    many.repartition(12).write.parquet(f"{scratch}/in")
    events = spark.readStream.schema(many.schema).option("maxFilesPerTrigger", 1).parquet(f"{scratch}/in")
    query = sparkdl.score_stream(
        events, model=model.bundle, sink=sparkdl.sinks.Parquet(f"{scratch}/out"), checkpoint=f"{scratch}/checkpoint", name="digits",
        trigger="1 second",
    )  # fmt: skip
    query.processAllAvailable()
    query.stop()
    return query


def without_files(pieces: Sequence[Piece]) -> list[Piece]:
    """Sketches, and no paths of this machine."""
    return [part for piece in pieces for part in (piece.sketch if isinstance(piece, Picture) else (piece,))]


def picture(path: Path, pieces: Sequence[Piece], height: int, *, dark: bool = False) -> None:
    """What Jupyter would show."""
    shoot(path, f"<style>{DARK if dark else LIGHT}</style>{display.html(pieces)}", height)


def terminal(path: Path, pieces: Sequence[Piece]) -> None:
    """What rich would print."""
    console = Console(record=True, width=112, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(*plain.renderables(pieces), sep="\n")
    shoot(path, console.export_svg(title="python"), 770)


def shoot(path: Path, markup: str, height: int) -> None:
    """Of so many pixels."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f"<!doctype html><meta charset=utf-8>{markup}")
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{height}"]
        subprocess.run(
            [*command, f"--user-data-dir={folder}/profile", f"--screenshot={path.resolve()}", str(page)],
            check=True,
            capture_output=True,
        )
    print(path.name, path.stat().st_size, "bytes", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
