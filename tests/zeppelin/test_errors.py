"""What a paragraph shows of an error, and of a press on its stop button: read by a person, and nothing left running."""

import time

import pytest
from paragraphs import BOTH_SLOTS

SLOW = """
import time

class Wide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 1024), *[torch.nn.Linear(1024, 1024) for _ in range(12)])

    def forward(self, features):
        return self.layers(features).mean(1)

slow = sparkdl.TorchModel(sparkdl.Bundle.from_module(Wide(), sparkdl.Signature.from_dataframe(df, ['features'])))
many = spark.range(0, 1_000_000, 1, 8).selectExpr('id', 'array(cast(id as float), 1f) as features')
"""
JVM_FRAME = "\tat "


def failed(paragraph, *, most=25):
    """The text of what Zeppelin shows of the error."""
    assert paragraph.code == "ERROR", paragraph.text
    text = paragraph.of_type("TEXT")[-1]
    assert len(text.splitlines()) <= most, text
    assert JVM_FRAME not in text
    return text


def test_an_error_on_the_driver(begun):
    text = failed(begun.run("wrong = estimator(featuresCol='featurs')\nwrong.fit(df)"), most=6)
    assert text.startswith("Fail to execute line 2: wrong.fit(df)\n")
    assert "ColumnNotFoundError: column 'featurs' is not in the DataFrame; did you mean 'features'?" in text
    whole = begun.run("print(sparkdl.tracebacks.last_error())").text
    assert "/sparkdl/estimator.py" in whole
    assert "ColumnNotFoundError" in whole


def test_an_error_of_a_rank(begun):
    model = """
class Fails(Net):
    def forward(self, features):
        if self.training and features.shape[0] == 100:
            raise ArithmeticError('in the middle')
        return super().forward(features)
estimator(Fails()).fit(df)
"""
    text = failed(begun.run(model), most=40)
    assert "ArithmeticError: in the middle" in text
    assert 'File "<stdin>", line 5, in forward' in text  # the user's frame, in the rank
    assert "/torch/nn/modules/module.py" not in text


def test_an_error_of_a_worker_that_scores(trained, begun):
    asked = "odd = spark.sql('select 7 as id, array(1f) as features')\nmodel.transform(odd).show()"
    text = failed(begun.run(asked))
    assert text.startswith("Fail to execute line 2: model.transform(odd).show()\n")
    assert "DataError: column 'features', row 0: expected 2 values, got 1 values" in text


def test_an_error_of_score_table(trained, begun, tmp_path):
    place = f"{tmp_path}/in"
    asked = f"spark.sql('select 7 as id, array(1f) as features').write.parquet('{place}')\nsparkdl.score_table('{place}', model, '{place}-out')"
    assert "expected 2 values, got 1 values" in failed(begun.run(asked))


def test_the_whole_trace_where_it_is_asked_for(trained, begun):
    odd = "model.transform(spark.sql('select 7 as id, array(1f) as features')).show()"
    begun.run("import os\nos.environ['SPARKDL_TRACEBACK'] = 'full'")
    whole = begun.run(odd)
    begun.run("del os.environ['SPARKDL_TRACEBACK']")
    assert "/py4j/java_gateway.py" in whole.text
    assert "/py4j/java_gateway.py" not in failed(begun.run(odd))


def test_other_errors_are_zeppelins(begun):
    text = failed(begun.run("1 / 0"))
    assert "ZeroDivisionError" in text
    assert "last_error" not in text


@pytest.fixture(scope="module")
def slow(begun):
    """The interpreter, with a model `slow` and a table `many` that it takes minutes for."""
    made = begun.run(SLOW)
    assert made.code == "SUCCESS", made.text
    return begun


COMPUTES = """
import threading, time

def tell():
    told = sc.statusTracker()
    while not any(stage and stage.numActiveTasks for stage in map(told.getStageInfo, told.getActiveStageIds())):
        time.sleep(0.1)
    print('computes')

threading.Thread(target=tell).start()
"""
STOPPED = {
    "fit": ("estimator(epochs=1_000_000).fit(df)", "epoch 1/"),
    "transform": (COMPUTES + "slow.transform(many).write.format('noop').mode('overwrite').save()", "computes"),
    "score_table": (COMPUTES + "sparkdl.score_table(place, slow, place + '-out')", "computes"),
}


@pytest.mark.parametrize("what", STOPPED)
def test_the_stop_button_ends_the_job_and_frees_the_slots(slow, tmp_path, what):
    text, seen = STOPPED[what]
    if what == "score_table":
        slow.run(f"place = '{tmp_path}/in'\nmany.write.parquet(place)")
    paragraph = slow.start(text)
    paragraph.until(lambda event: seen in event.get("text", ""))
    paragraph.cancel()
    pressed = time.monotonic()
    paragraph.done(180)
    stopped = time.monotonic() - pressed
    assert paragraph.code == "ERROR"
    said = paragraph.of_type("TEXT")[-1]
    assert "KeyboardInterrupt: the paragraph was cancelled" in said
    assert len(said.splitlines()) < 12, said
    again = slow.run(BOTH_SLOTS, seconds=180)
    print(
        f"{what}: {stopped:.2f} s until it had stopped, {time.monotonic() - pressed:.2f} s until both slots had worked"
    )
    assert again.lines == ["[0, 1]"], again.text
    assert slow.run("print(len(sc.statusTracker().getActiveJobsIds()))").text == "0\n"
    after = slow.run("print('mine')\ntime.sleep(1)\nprint('and mine')")
    assert after.text == "mine\nand mine\n"  # what threads print would land here
    assert after.percents == []
