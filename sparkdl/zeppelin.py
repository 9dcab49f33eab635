"""To see what there is: in a paragraph of Zeppelin, a cell of Jupyter, or a terminal, by the same calls.

::

    from sparkdl import zeppelin

    zeppelin.show(df)                         # or a model, a bundle, a summary, a query, a figure, …
    zeppelin.curves(model)
    zeppelin.confusion_matrix(scored)
    zeppelin.images(scored, imageCol="image", predictionCol="prediction", labelCol="label")
    zeppelin.live(query, seconds=60)

Zeppelin gets tables that it can sort and plot, and HTML; Jupyter HTML; a terminal text, and the paths of files with the pictures.
Nothing here reads a whole table to the driver. Pictures need ``pip install 'sparkdl[plot]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkdl.errors import InvalidParamError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.sql import DataFrame

    from sparkdl.model import TorchModel
    from sparkdl.train.summary import TrainingSummary

__all__ = ["answers", "audio", "confusion_matrix", "curves", "images", "live", "roc", "show", "spectrogram"]

_ROWS, _ROWS_IN_ZEPPELIN = 20, 1_000


def show(x: Any, n: int | None = None) -> None:
    """Show a DataFrame (Spark's or pandas'), a TrainingSummary, TorchModel, Bundle, ScoredTable, a streaming query, a matplotlib
    figure, or a list of them; anything else by its own HTML or its repr.

    n: rows of a table; 20, in Zeppelin 1,000, by default. Long values are cut by Spark, so that they do not travel.
    Raises InvalidParamError for a streaming DataFrame, which has no rows before it runs, and for ``n`` below 1.
    """
    from sparkdl import notebook
    from sparkdl.showing import anything, display, tables

    if n is None:
        n = _ROWS_IN_ZEPPELIN if notebook.place() == "zeppelin" else _ROWS
    display.put(anything.pieces_of(x, tables.checked_count(n)))


def curves(x: TorchModel | TrainingSummary) -> None:
    """Losses and metrics over the epochs, and the seconds of each phase, of a model or its ``summary``.

    Raises InvalidParamError for anything else, SparkdlError if matplotlib is missing.
    """
    from sparkdl.showing import anything, display

    summary = getattr(x, "summary", x)
    if not hasattr(summary, "bestEpoch"):
        raise InvalidParamError(
            f"curves takes a TorchModel or its summary (got {type(x).__name__})", param="x", value=x
        )
    display.put(anything.curves(summary))


def confusion_matrix(df: DataFrame, labelCol: str = "label", predictionCol: str = "prediction") -> None:
    """How many rows of each class were predicted as which, with precision, recall and F1 of each; all rows are counted, by Spark.

    Of more than 20 classes those with most mistakes are shown, and the others together.
    Raises ColumnNotFoundError; SignatureError for columns that are no classes, or a text and a number; EmptyDatasetError;
    DataError for values that are no classes.
    """
    from sparkdl.showing import display, evaluated

    display.put(evaluated.confusion_matrix(df, labelCol, predictionCol))


def roc(df: DataFrame, labelCol: str = "label", probabilityCol: str = "probability") -> None:
    """The ROC curve and the area below it (AUC); of more than two classes one for each against the others, at most 8.

    labelCol: class numbers from 0. probabilityCol: an array or vector with one for each class, or a number: that of class 1.
    All rows are counted by Spark, in bins of the score in which the odds differ by 2 %; by how much the exact AUC may differ
    from what is told is told too.
    Raises ColumnNotFoundError, SignatureError, EmptyDatasetError; DataError for a probability beyond 0 to 1, or rows of one
    class only.
    """
    from sparkdl.showing import display, evaluated

    display.put(evaluated.roc(df, labelCol, probabilityCol))


def images(
    df: DataFrame | pd.DataFrame,
    imageCol: str = "image",
    predictionCol: str | None = None,
    labelCol: str | None = None,
    n: int = 24,
    shape: Sequence[int] | None = None,
) -> None:
    """The first ``n`` images (400 at most) in a grid, with what was predicted, and whether that is right.

    imageCol: image files (``binary``: PNG, JPEG, …); numbers as an array or vector, of shape (H, W), (C, H, W) or (H, W, C), or
    flat, a square unless ``shape`` says otherwise; raw bytes with a ``shape``; or Spark's image struct. Numbers up to 1 or 255
    are taken as such; else the least of all images is black and the greatest white.
    An image that cannot be shown says why in its place.
    Raises ColumnNotFoundError, SignatureError for a column that holds no images, InvalidParamError, SparkdlError without pillow.
    """
    from sparkdl.showing import display
    from sparkdl.showing.images import tiles

    display.put([tiles(df, imageCol, predictionCol, labelCol, n, shape)])


def audio(
    x: DataFrame | np.ndarray | bytes,
    rate: int | None = None,
    audioCol: str = "audio",
    captionCol: str | None = None,
    n: int = 4,
) -> None:
    """Players for sounds: samples ``(samples,)`` or ``(channels, samples)`` in [-1, 1] (whole numbers: of 16 bits), a WAV file's
    bytes, or the first ``n`` rows (20 at most) of a DataFrame that holds either in ``audioCol``.

    rate: samples a second; a WAV file tells its own. captionCol: what stands below, a prediction say. In Zeppelin, where a
    paragraph has 100 kB, sounds are given fewer samples a second or cut, and say so.
    Raises ColumnNotFoundError, SignatureError, InvalidParamError; DataError for a value that is no sound (a row says so in its
    place).
    """
    from sparkdl.showing import display, sounds

    display.put(sounds.sounds(x, rate, audioCol, captionCol, n))


def spectrogram(
    x: DataFrame | np.ndarray | bytes,
    rate: int | None = None,
    audioCol: str = "audio",
    captionCol: str | None = None,
    n: int = 4,
) -> None:
    """The power (dB) of sounds by time (s) and frequency (Hz); takes and raises what ``audio`` does, and SparkdlError without
    matplotlib and scipy."""
    from sparkdl.showing import display, sounds

    display.put(sounds.spectrograms(sounds.sounds(x, rate, audioCol, captionCol, n)))


def answers(
    df: DataFrame,
    textCol: str = "text",
    startCol: str | None = None,
    endCol: str | None = None,
    answerCol: str | None = None,
    captionCol: str | None = None,
    n: int = 10,
) -> None:
    """The first ``n`` texts (400 at most) with their answers marked: from letter ``startCol`` (from 0) up to and without ``endCol``, or
    wherever the text of ``answerCol`` is. captionCol: what stands above, a question say.

    An answer that is not in its text says so in its place.
    Raises ColumnNotFoundError, SignatureError, InvalidParamError.
    """
    from sparkdl.showing import display, texts

    display.put(texts.marked(df, textCol, startCol, endCol, answerCol, captionCol, n))


def live(query: Any, seconds: float | None = None, every: float = 2.0) -> None:
    """Show how a streaming query does, drawn anew in its place, until it ends or ``seconds`` are over; the query goes on.

    query: what ``score_stream`` gave, or any StreamingQuery of Spark's. every: seconds between two drawings. In Zeppelin each
    drawing takes the place of all that the paragraph has shown. What the query fails of is shown, not raised.
    Raises InvalidParamError.
    """
    from sparkdl.showing.live import watch

    watch(query, seconds, every)
