"""The same in Zeppelin's IPython mode: a kernel of its own, `__main__` as the namespace, errors shown by IPython."""

import pyspark
import pytest
from paragraphs import BOTH_SLOTS, FRAME

pytestmark = pytest.mark.skipif(
    pyspark.__version__ >= "4", reason="the gRPC of Zeppelin's IPython mode does not talk through Spark 4's netty"
)


@pytest.fixture(scope="module")
def kernel(zeppelin):
    """A function that starts a paragraph there, and in it `df`, `Net` and `estimator`."""

    def start(text):
        return zeppelin.start(text, "ipyspark")

    begun = start(FRAME).done()
    assert (begun.code, begun.text) == ("SUCCESS", "")
    return start


def test_it_is_zeppelin_and_has_the_paragraphs_bar(kernel):
    told = kernel("print(notebook.place(), notebook.zeppelin_context() is z)\nnotebook.set_progress(30)").done()
    assert told.text == "zeppelin True\n"
    assert told.percents == [30]


def test_an_error_is_short_and_others_are_ipythons(kernel):
    told = kernel("wrong = estimator(featuresCol='featurs')\nwrong.fit(df)").done()
    assert told.code == "ERROR"
    assert "column 'featurs' is not in the DataFrame; did you mean 'features'?" in told.text
    assert ", line 2, in <module>\n" in told.text
    assert "estimator.py" not in told.text
    assert "IPython/core" not in told.text
    other = kernel("1 / 0").done()
    assert other.code == "ERROR"
    assert "ZeroDivisionError" in other.text
    assert "last_error" not in other.text


def test_the_stop_button_ends_a_fit_and_frees_the_slots(kernel):
    paragraph = kernel("estimator(epochs=1_000_000).fit(df)")
    paragraph.until(lambda event: "epoch 1/" in event.get("text", ""))
    paragraph.cancel()
    paragraph.done(180)
    said = paragraph.of_type("TEXT")[-1]
    assert "KeyboardInterrupt: the paragraph was cancelled" in said
    assert len(said[said.index("Traceback") :].splitlines()) < 12, said
    assert paragraph.percents
    again = kernel(BOTH_SLOTS).done(180)
    assert again.lines[-1] == "[0, 1]", again.text
