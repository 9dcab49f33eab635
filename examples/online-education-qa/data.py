"""The example's tables: questions about the courses of an online school, made up from templates. Nobody's data.

A course has three passages: what it is, when and where it meets, and what it costs and how it is examined. Each fact can be
said, and asked for, in several ways, and stands beside others of its kind (two rooms, three dates), so that a reader must
understand the question. Courses, and the family names of the people in them, are either in ``train`` or in ``test``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIGURE, LABEL = "f1", "answer"
COURSES = {"smallest": (60, 20), "small": (160, 60)}  # to train on, held out
ASKED = {"smallest": 1, "small": 2}  # times that each fact is asked for
SETTINGS: dict[str, dict[str, Any]] = {"smallest": {"estimator.epochs": 5}}
BARS = {"smallest": 0.8, "small": 0.9}
FILES = 4

LEVELS = [
    "Introductory", "Advanced", "Applied", "Practical", "Modern", "Intensive", "Elementary", "Computational",
    "Theoretical", "Digital",
]  # fmt: skip
FIELDS = [
    "Algebra", "Astronomy", "Bookkeeping", "Botany", "Calculus", "Cartography", "Chemistry", "Cryptography",
    "Databases", "Ecology", "Economics", "Electronics", "Ethics", "Genetics", "Geology", "Geometry", "Grammar",
    "Hydrology", "Journalism", "Linguistics", "Logic", "Marketing", "Meteorology", "Music", "Nutrition", "Optics",
    "Painting", "Pedagogy", "Philosophy", "Phonetics", "Physiology", "Poetry", "Probability", "Programming",
    "Psychology", "Rhetoric", "Robotics", "Sociology", "Statistics", "Thermodynamics", "Topology", "Typography",
    "Zoology",
]  # fmt: skip
FIRST = [
    "Ada", "Amir", "Bruno", "Chen", "Dora", "Elif", "Fatima", "Goran", "Hana", "Igor", "Jonas", "Kofi", "Lena", "Maya",
    "Nils", "Olga", "Pavel", "Rosa", "Sven", "Tara",
]  # fmt: skip
STARTS = [
    "Al", "Bar", "Cor", "Dal", "El", "Far", "Gar", "Hol", "Il", "Jan", "Kar", "Lor", "Mar", "Nor", "Or", "Pal", "Quin",
    "Ros", "Sal", "Tor", "Ul", "Var", "Wal", "Yor", "Zan",
]  # fmt: skip
ENDS = [
    "berg", "dini", "emann", "fields", "gado", "hurst", "inen", "jean", "kova", "land", "mont", "nessa", "owski",
    "prado", "quist", "riva", "son", "tova", "umber", "vale",
]  # fmt: skip
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
LANGUAGES = [
    "English", "French", "German", "Hindi", "Italian", "Japanese", "Portuguese", "Spanish", "Swahili", "Turkish",
]  # fmt: skip
SCHOOLS = ["Sciences", "Arts", "Engineering", "Humanities", "Commerce", "Health", "Languages", "Design"]
THEMES = [
    "how measurements are made and checked", "how its main ideas came about", "how to read and write proofs",
    "how to plan a small project", "how experts argue with one another", "how mistakes are found early",
    "how to explain results to others", "how models are built and tested", "how old problems are solved today",
    "how to work with incomplete data",
]  # fmt: skip
FORMS = ["a written exam", "an oral exam", "a group project", "a portfolio", "a take-home test", "a short thesis"]

PASSAGES = {
    "overview": (
        (
            "{course} is a course of the School of {school}.", "The School of {school} offers {course}.",
        ),
        (
            "It is taught by {teacher}, and {tutor} leads the tutorials.",
            "The lecturer is {teacher}; the tutorials are led by {tutor}.",
            "Tutorials are in the hands of {tutor}, while {teacher} gives the lectures.",
        ),
        ("Students learn {theme}.", "The aim is to understand {theme}.", "It is about {theme}."),
        (
            "All materials are in {language}, and subtitles come in {subtitles}.",
            "There are subtitles in {subtitles}; the language of instruction is {language}.",
        ),
    ),
    "schedule": (
        ("{course} begins on {begin} and ends on {end}.", "The first meeting of {course} is on {begin}, the last one on {end}."),
        (
            "Lectures are every {day} at {time} in room {room}.", "Every {day} there is a lecture in room {room}, which starts at {time}.",
        ),
        (
            "The lab meets on {lab_day} in {lab_room}.", "On {lab_day} students come to {lab_room} for the lab.",
        ),
        ("Office hours are by appointment.", "Recordings stay online for a year.", "Bring your own computer."),
    ),
    "assessment": (
        ("{course} costs {fee}, or {reduced} for members.", "The fee for {course} is {fee}; members pay {reduced}."),
        (
            "Register by {deadline}; who cancels before {cancel} pays nothing.",
            "Registration closes on {deadline}, and it can be cancelled free of charge until {cancel}.",
        ),
        (
            "The course ends with {form}, and {mark} percent are needed to pass.",
            "To pass, students need {mark} percent in {form}.",
        ),
        ("It is worth {credits} credits.", "Those who pass get {credits} credits.", "{credits} credits are awarded."),
    ),
}  # fmt: skip
QUESTIONS = {
    "teacher": ("Who teaches {course}?", "Who gives the lectures of {course}?", "Who is the lecturer of {course}?"),
    "tutor": ("Who leads the tutorials of {course}?", "Which tutor works with the students of {course}?"),
    "theme": ("What is {course} about?", "What do students learn in {course}?", "What is the aim of {course}?"),
    "school": ("Which school offers {course}?", "To which school does {course} belong?"),
    "language": ("In which language is {course} taught?", "What is the language of instruction of {course}?"),
    "subtitles": ("In which language are the subtitles of {course}?", "What subtitles does {course} have?"),
    "begin": ("When does {course} begin?", "When is the first meeting of {course}?", "On which date does {course} start?"),
    "end": ("When does {course} end?", "When is the last meeting of {course}?"),
    "day": ("On which day are the lectures of {course}?", "Which day of the week is {course} lectured?"),
    "time": ("At what time do lectures of {course} start?", "What time are the lectures of {course}?"),
    "room": ("Where are the lectures of {course}?", "In which room is {course} lectured?"),
    "lab_day": ("On which day is the lab of {course}?", "When does the lab of {course} meet?"),
    "lab_room": ("Where is the lab of {course}?", "Where do students of {course} come for the lab?"),
    "fee": ("How much does {course} cost?", "What is the fee for {course}?", "What is the price of {course}?"),
    "reduced": ("How much do members pay for {course}?", "What does {course} cost for members?"),
    "deadline": ("Until when can I register for {course}?", "When does registration for {course} close?"),
    "cancel": ("Until when can I cancel {course}?", "By which date can {course} be cancelled free of charge?"),
    "form": ("How is {course} examined?", "What kind of exam does {course} have?"),
    "mark": ("How many percent are needed to pass {course}?", "What is the pass mark of {course}?"),
    "credits": ("How many credits is {course} worth?", "How many credits does {course} give?"),
}  # fmt: skip
_HERE = "\0"  # before what is asked for
SCHEMA = pa.schema(
    {
        "id": pa.int64(), "question": pa.string(), "context": pa.string(), "answer": pa.string(), "start": pa.int64(),
        "kind": pa.string(),
    }
)  # fmt: skip


def write(folder: Path, size: str) -> None:
    """``folder/train`` and ``folder/test``: id, question, context (the passage), answer, start (where the answer is in the
    passage), kind (what is asked for)."""
    rng = random.Random(14)
    names = [f"{level} {field}" for level in LEVELS for field in FIELDS]
    families = [start + end for start in STARTS for end in ENDS]
    rng.shuffle(names)
    rng.shuffle(families)
    train, test = COURSES[size]
    half = len(families) // 2
    _write(folder / "train", questions(rng, names[:train], families[:half], ASKED[size]))
    _write(folder / "test", questions(rng, names[train : train + test], families[half:], 1))


def questions(rng: random.Random, courses: Sequence[str], families: Sequence[str], asked: int) -> list[dict[str, Any]]:
    """The rows about these courses, shuffled."""
    rows = []
    for course in courses:
        facts = facts_of(rng, course, families)
        for sentences in PASSAGES.values():
            chosen = [rng.choice(ways) for ways in sentences]
            passage = " ".join([chosen[0], *rng.sample(chosen[1:], len(chosen) - 1)])
            context = passage.format(**facts)
            for kind in (kind for kind in QUESTIONS if "{" + kind + "}" in passage):
                fact = {"context": context, "answer": facts[kind], "kind": kind}
                start = passage.format(**{**facts, kind: _HERE + facts[kind]}).index(_HERE)
                for way in rng.sample(QUESTIONS[kind], asked):
                    rows.append({"question": way.format(course=course), "start": start, **fact})
    rng.shuffle(rows)
    return [{"id": number, **row} for number, row in enumerate(rows)]


def facts_of(rng: random.Random, course: str, families: Sequence[str]) -> dict[str, str]:
    """What there is to know of a course; no two facts of one kind are the same."""
    teacher, tutor = (
        f"{first} {family}" for first, family in zip(rng.sample(FIRST, 2), rng.sample(families, 2), strict=True)
    )
    language, subtitles = rng.sample(LANGUAGES, 2)
    day, lab_day = rng.sample(DAYS, 2)
    room, lab_room = (f"{letter}-{rng.randint(100, 499)}" for letter in rng.sample("ABCDEFGH", 2))
    begin, end, deadline, cancel = (f"{rng.randint(1, 28)} {month} 2027" for month in rng.sample(MONTHS, 4))
    fee = rng.randrange(300, 990, 10)
    return {
        "course": course, "teacher": teacher, "tutor": tutor, "school": rng.choice(SCHOOLS), "theme": rng.choice(THEMES),
        "language": language, "subtitles": subtitles, "begin": begin, "end": end, "day": day, "lab_day": lab_day,
        "time": f"{rng.randint(8, 19)}:{rng.choice(('00', '15', '30', '45'))}", "room": room, "lab_room": lab_room,
        "fee": f"{fee} euros", "reduced": f"{fee - rng.randrange(50, 250, 10)} euros", "deadline": deadline, "cancel": cancel,
        "form": rng.choice(FORMS), "mark": str(rng.randrange(40, 80, 5)), "credits": str(rng.randint(2, 12)),
    }  # fmt: skip


def _write(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    per_file = -(-len(rows) // FILES)
    for number in range(FILES):
        pq.write_table(table.slice(number * per_file, per_file), folder / f"part-{number}.parquet")


def AFTER(spark: SparkSession, folder: Path) -> dict[str, float]:
    """How often the right passage is found among all, those of ``train`` too; and the answers read out of what was found."""
    from pyspark.sql import functions as sf

    from sparkdl import Bundle, QuestionAnswering, TorchModel

    train, test = (spark.read.parquet(str(folder / name)) for name in ("train", "test"))
    reader = TorchModel(Bundle.load(str(folder / "bundle")))
    passages = train.select("context").union(test.select("context"))
    asked = test.select("question", "answer", sf.col("context").alias("passage"))
    found = QuestionAnswering.over(reader, passages).transform(asked).cache()
    (recall,) = found.select(sf.avg((sf.col("context") == sf.col("passage")).cast("double"))).first()
    figures = reader.signature.decoder.evaluate(found, "answer", "prediction")
    return {"recall@1": recall, **{f"end_to_end_{name}": value for name, value in figures.items()}}


def picture(spark: SparkSession, folder: Path) -> Any:
    """Some questions, each answer marked in its passage; beside them exact match and F1 by what is asked for."""
    import textwrap

    import matplotlib.pyplot as plt

    rows = spark.read.parquet(str(folder / "scored")).toPandas()
    rows["right"] = rows["prediction"].str.lower() == rows["answer"].str.lower()
    by_kind = rows.groupby("kind")["right"].mean().sort_values()
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6), width_ratios=(3, 1), layout="constrained")
    left.axis("off")
    high = 1.0
    for row in rows.drop_duplicates("kind").head(6).itertuples():
        stop = row.answer_start + len(row.prediction)
        marked = f"{row.context[: row.answer_start]}»{row.prediction}«{row.context[stop:]}"
        told = f"{'✓' if row.right else '✗'}  {row.question}\n" + textwrap.fill(marked, 110)
        left.text(
            0, high, told, va="top", family="DejaVu Sans", fontsize=9, color="black" if row.right else "firebrick"
        )
        high -= 0.165
    left.set_title("held-out questions; what the model reads out is between » and «", loc="left", fontsize=10)
    right.barh(by_kind.index, by_kind, color="steelblue")
    right.set_xlim(0, 1)
    right.set_title("exact match, by what is asked for", loc="left", fontsize=10)
    return figure
