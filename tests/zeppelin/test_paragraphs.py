"""sparkdl in paragraphs of a real Zeppelin interpreter: what is imported, shown, stopped, saved, asked in SQL.

The paragraphs of a run share one interpreter, as those of a notebook do, and each test uses what `begun` and `trained` left.
"""

import re

import numpy as np
import pytest

import sparkdl
from sparkdl.errors import UntrustedBundleError


def test_a_paragraph_is_where_it_is(begun):
    told = begun.run(
        "import sys\nprint(notebook.place(), notebook.zeppelin_context() is z, hasattr(sys.stdout, 'isatty'))"
    )
    assert told.text == "zeppelin True False\n"


def test_a_fit_moves_the_paragraphs_bar(trained):
    assert trained.code == "SUCCESS", trained.text
    assert trained.percents == sorted(trained.percents)
    assert trained.percents[0] == 0
    assert trained.percents[-1] == 100
    assert len(trained.percents) < 100  # and not with every step


def test_the_bar_moves_with_its_rows(begun):
    rows = "bar = bars.of_rows(200, 'rows')\nfor _ in range(4):\n    bar.update(50)\n    bar.refresh()\nbar.close()"
    moved = begun.run(f"from sparkdl import bars\n{rows}")
    assert list(dict.fromkeys(moved.percents)) == [0, 25, 50, 75, 100], moved.text
    assert moved.text == ""


def test_a_fit_tells_losses_as_they_come(trained):
    told = [re.match(r"epoch (\d+)/25  loss \d\.\d{4}  [\d,]+ rows/s$", line) for line in trained.lines]
    assert [int(found[1]) for found in told if found] == [1, *range(2, 25, 2), 25]
    assert trained.lines[0] == "before"
    assert trained.lines[-1] == "after"
    assert "\r" not in trained.text
    first, last = (next(e["at"] for e in trained.events if f"epoch {n}/25" in e.get("text", "")) for n in (1, 25))
    assert first < last  # they came one by one


def test_a_class_of_a_paragraph_is_saved_and_loaded(trained, begun, tmp_path):
    saved = begun.run(f"model.save('{tmp_path}/saved')\nprint(Net.__module__)")
    assert (saved.code, saved.text) == ("SUCCESS", "builtins\n")
    asked = "\n".join([
        f"loaded = sparkdl.TorchModel.load('{tmp_path}/saved')",
        "rows = [m.transform(df).orderBy('id').limit(5).collect() for m in (model, loaded)]",
        "print(rows[0] == rows[1])",
    ])  # fmt: skip
    loaded = begun.run(asked)
    assert loaded.code == "SUCCESS", loaded.text
    assert loaded.lines == ["True"]
    (program,) = tmp_path.glob("saved/bundle/*.pt2")
    assert program.stat().st_size > 0
    answer = sparkdl.Bundle.load(f"{tmp_path}/saved/bundle").predict({"features": np.array([[0.0, 1.0]], np.float32)})
    assert np.isfinite(answer["prediction"]).all()  # in another Python, which never saw the class


def test_a_function_of_sql(trained, begun):
    made = begun.run("model.register(spark, 'score')\ndf.createOrReplaceTempView('points')")
    assert made.code == "SUCCESS", made.text
    table = begun.run("select id, round(score(features), 1) as s from points where id = 0", "sql")
    assert table.code == "SUCCESS", table.text
    (text,) = table.of_type("TABLE")
    head, row = text.strip().splitlines()
    assert head == "id\ts"
    assert re.fullmatch(r"0\t-?\d+\.\d+", row)


def test_score_table_moves_the_bar(trained, begun, tmp_path):
    told = begun.run(
        f"df.write.parquet('{tmp_path}/in')\ntable = sparkdl.score_table('{tmp_path}/in', model, '{tmp_path}/out')\nprint(table)"
    )
    assert told.code == "SUCCESS", told.text
    assert told.percents[-1] == 100
    assert "2,000 of 2,000 rows" in told.text
    assert "\r" not in told.text


GATE = """
class Gate(Net):
    def forward(self, features):
        answer = super().forward(features)
        return answer if self.layer.bias.sum() > 0 else -answer

signature = sparkdl.Signature.from_dataframe(df, ['features'])
"""


def test_a_class_that_cannot_be_exported_says_why_and_what_to_do(begun, tmp_path):
    told = begun.run(GATE + "bundle = sparkdl.Bundle.from_module(Gate(), signature)")
    assert told.code == "ERROR"
    text = told.of_type("TEXT")[-1]
    assert "UntrustedBundleError: the model cannot be exported by torch.export (GuardOnDataDependent" in text
    assert "Change it so that it can, or say trusted=True to keep it as code (pickle)" in text
    kept = begun.run(
        f"sparkdl.Bundle.from_module(Gate(), signature, trusted=True).save('{tmp_path}/gate')\nprint('kept')"
    )
    assert kept.lines[-1] == "kept", kept.text
    features = np.array([[0.0, 1.0]], np.float32)
    answer = sparkdl.Bundle.load(f"{tmp_path}/gate", trusted=True).predict({"features": features})
    assert np.isfinite(answer["prediction"]).all()  # the class came along, in another Python
    with pytest.raises(UntrustedBundleError, match="say trusted=True"):
        sparkdl.Bundle.load(f"{tmp_path}/gate")
