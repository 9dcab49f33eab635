"""The notebooks of examples: what Zeppelin imports, and every paragraph in a real interpreter."""

import json
from pathlib import Path

import pytest
from paragraphs import written

NOTEBOOKS = sorted(Path(__file__).resolve().parents[2].glob("examples/*/*.zpln"))
LIMIT = 102_400  # bytes of output that Zeppelin keeps
IDS = [path.name.partition("_")[0] for path in NOTEBOOKS]
# Of what both lanes need not run: the example of the same name is run on the other one (tests/e2e/test_examples.py).
LANES = {
    "diagnosis": "latest", "fraud": "latest", "image-recognition": "spark35", "log-monitoring": "spark35",
    "online-education-qa": "spark35", "recommendation": "spark35", "regression-first-notebook": "latest",
    "speech-recognition": "latest",
}  # fmt: skip
RUNS = [
    pytest.param(path, id=name, marks=[pytest.mark.lane(LANES[name])] if name in LANES else [])
    for path, name in zip(NOTEBOOKS, IDS, strict=True)
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_zeppelin_can_import_it(path):
    """The fields that Zeppelin 0.12 writes, and nothing of anybody's run."""
    note = json.loads(path.read_text())
    assert path.name == f"{note['name']}_{note['id']}.zpln"  # how Zeppelin's own folder names it
    assert len(note["id"]) == 9
    assert (note["version"], note["defaultInterpreterGroup"]) == ("0.12.0", "spark")
    ids = [paragraph["id"] for paragraph in note["paragraphs"]]
    assert len(set(ids)) == len(ids)
    for paragraph in note["paragraphs"]:
        assert paragraph["status"] == "READY"
        assert "results" not in paragraph
        assert paragraph["title"]
        assert paragraph["config"]["editorSetting"]["language"] == (
            "sql" if "%spark.sql" in paragraph["text"] else "python"
        )
        assert paragraph["text"].startswith(("%spark.pyspark\n", "%spark.sql\n"))


def test_their_ids_differ():
    assert len({json.loads(path.read_text())["id"] for path in NOTEBOOKS}) == len(NOTEBOOKS) == 12


SHOWN = {  # by notebook and paragraph, what must be there
    ("1-first-notebook", 1): ("TABLE", "id\tfeatures\tprogression"),
    ("1-first-notebook", 2): ("TEXT", "epoch 40/40"),
    ("1-first-notebook", 3): ("HTML", "data:image/png;base64,"),
    ("1-first-notebook", 4): ("TABLE", "mse\tmse_of_the_mean\tpatients"),
    ("1-first-notebook", 6): ("TABLE", "body_mass\tknown\tpredicted"),
    ("1-first-notebook", 7): ("HTML", "prediction"),
    ("2-image-recognition", 1): ("HTML", "data:image/png;base64,"),
    ("2-image-recognition", 2): ("TEXT", "epoch 6/6"),
    ("2-image-recognition", 3): ("HTML", "data:image/png;base64,"),
    ("2-image-recognition", 4): ("HTML", "precision"),
    ("2-image-recognition", 5): ("HTML", "data:image/png;base64,"),
    ("2-image-recognition", 6): ("HTML", "float32[B, 1, 8, 8]"),
    ("3-stream-scoring", 3): ("HTML", "digits"),
    ("3-stream-scoring", 4): ("HTML", "precision"),
    ("3-stream-scoring", 5): ("TABLE", "model_version\tbatch\tdigits\taccuracy"),
    ("3-stream-scoring", 6): ("HTML", "digits"),
    ("4-scheduled-scoring", 1): ("TABLE", "day\tcount\n2026-11-18\t199"),
    ("4-scheduled-scoring", 2): ("TEXT", "slot: day"),
    ("4-scheduled-scoring", 3): ("TEXT", "1 scored"),
    ("4-scheduled-scoring", 4): ("TEXT", "1 there already"),
    ("4-scheduled-scoring", 5): ("TEXT", "2 scored"),
    ("4-scheduled-scoring", 7): ("TABLE", "2026-11-20\t199\t0.9"),
    ("diagnosis", 1): ("TABLE", "diagnosis\t"),
    ("diagnosis", 2): ("TEXT", "epoch 15/15"),
    ("diagnosis", 3): ("TEXT", "area under the ROC curve: 0.9"),
    ("diagnosis", 4): ("HTML", "precision"),
    ("diagnosis", 5): ("TABLE", "patient\tdiagnosis\tprediction\tmalignant"),
    ("fraud", 1): ("TABLE", "fraud\t"),
    ("fraud", 2): ("TEXT", "epoch 10/10"),
    ("fraud", 3): ("TEXT", "area under the ROC curve: 0."),
    ("fraud", 4): ("HTML", "data:image/png;base64,"),
    ("fraud", 5): ("TABLE", "id\tfraud\tcountry\tamount\tdevice\trisk"),
    ("image-recognition", 1): ("HTML", "data:image/png;base64,"),
    ("image-recognition", 2): ("TEXT", "epoch 5/5"),
    ("image-recognition", 3): ("HTML", "precision"),
    ("image-recognition", 4): ("TEXT", "held out: accuracy 0.9"),
    ("image-recognition", 5): ("TABLE", "expected a file, got an empty one"),
    ("online-education-qa", 1): ("TABLE", "question\tcontext\tanswer\tkind"),
    ("online-education-qa", 2): ("TEXT", "epoch 8/8"),
    ("online-education-qa", 3): ("HTML", "<mark"),
    ("online-education-qa", 4): ("TEXT", "exact match 0."),
    ("online-education-qa", 5): ("TABLE", "question\tcontext\tsimilarity\tprediction\tanswer"),
    ("recommendation", 1): ("TABLE", "user\tcourse\ttopic\tday"),
    ("recommendation", 2): ("TEXT", "epoch 20/20"),
    ("recommendation", 3): ("TEXT", "recall at 10: 0."),
    ("recommendation", 4): ("TABLE", "user\ttook\trecommended\ttook_next"),
    ("recommendation", 5): ("TABLE", "user\titem\tscore\nsomebody new"),
    ("recommendation", 6): ("HTML", "ranking"),
    ("speech-recognition", 1): ("HTML", "audio"),
    ("speech-recognition", 2): ("HTML", "data:image/png;base64,"),
    ("speech-recognition", 3): ("TEXT", "epoch 14/14"),
    ("speech-recognition", 4): ("TEXT", "word error rate 0."),
    ("speech-recognition", 5): ("TABLE", "id\tvoice\ttranscript\tprediction\tconfidence"),
    ("speech-recognition", 6): ("TABLE", "id\tprediction\twhy"),
    ("regression-first-notebook", 1): ("TABLE", "id\tfeatures\tprogression"),
    ("regression-first-notebook", 2): ("TEXT", "epoch 100/100"),
    ("regression-first-notebook", 3): ("HTML", "data:image/png;base64,"),
    ("regression-first-notebook", 4): ("TEXT", "r2: 0."),
    ("regression-first-notebook", 5): ("TABLE", "id\tprogression\tprediction"),
    ("log-monitoring", 1): ("TABLE", "host\ttime\trequests\terrors\tfault"),
    ("log-monitoring", 2): ("TABLE", "host\twindow_end\tseries\tfault"),
    ("log-monitoring", 3): ("TEXT", "epoch 15/15"),
    ("log-monitoring", 4): ("TEXT", "'auroc': "),
    ("log-monitoring", 6): ("TABLE", "host\twindow_end\tscore\tprediction"),
}


def test_what_every_paragraph_shows_is_written_here():
    paragraphs = {
        (path.name.partition("_")[0], number): paragraph
        for path in NOTEBOOKS
        for number, paragraph in enumerate(written(path), 1)
    }
    shows = {
        where
        for where, one in paragraphs.items()
        if one.magic == "%spark.sql" or one.text.splitlines()[-1].startswith(("zeppelin.", "print(", "]))"))
    }
    assert shows <= set(SHOWN) <= set(paragraphs)


KEEP = "__import__('__main__').kept = dict(globals())"
RESTORE = """
kept = __import__('__main__').kept
gone = [globals().pop(name) for name in set(globals()) - {*kept, 'kept'}]
globals().update(kept)
"""


@pytest.fixture(scope="module", params=RUNS)
def run(request, zeppelin):
    """The notebook's name, and its paragraphs after they ran one after the other, with names of their own."""
    assert zeppelin.run(KEEP).code == "SUCCESS"
    ran = []
    try:
        for paragraph in written(request.param):
            ran.append(zeppelin.run(paragraph.text, paragraph.interpreter))
            assert ran[-1].code == "SUCCESS", f"{paragraph.title}\n{ran[-1].text}"
    finally:
        assert zeppelin.run(RESTORE).code == "SUCCESS"
    return request.param.name.partition("_")[0], ran


def test_every_paragraph_runs_and_shows_what_it_is_for(run):
    name, ran = run
    for number, paragraph in enumerate(ran, 1):
        kind, words = SHOWN.get((name, number), ("", ""))
        assert not kind or any(words in data for data in paragraph.of_type(kind)), (
            f"{name}, {number}\n{paragraph.text[:2000]}"
        )
        assert "Warning" not in "\n".join(paragraph.lines), paragraph.text
        assert sum(len(data.encode()) for _, data in paragraph.messages) <= LIMIT
        assert "\r" not in paragraph.text


def test_the_model_has_learnt(run):
    name, ran = run
    if name == "1-first-notebook":
        mse, of_mean, patients = map(float, ran[3].of_type("TABLE")[0].splitlines()[1].split("\t"))
        assert patients == 89
        assert mse < 0.65 * of_mean
    if name == "2-image-recognition":
        assert float(ran[1].lines[-1].split("accuracy")[1].split()[0]) > 0.95
    if name == "3-stream-scoring":
        rows = [line.split("\t") for line in ran[4].of_type("TABLE")[0].strip().splitlines()[1:]]
        assert sum(int(row[2]) for row in rows) == 597  # each once
        assert {row[0] for row in rows} == {"1"}
