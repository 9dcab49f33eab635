"""A real Zeppelin interpreter for the tests: Zeppelin's own jars, driven by Paragraphs.java."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_SECONDS = 120
CONF = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


# What most tests begin with.
FRAME = """
import faulthandler
import sparkdl, torch
from sparkdl import notebook
from pyspark.sql import functions as sf

df = spark.range(0, 2000, 1, 2).select(
    'id', sf.array(sf.sin('id').cast('float'), sf.cos('id').cast('float')).alias('features'), sf.sin('id').cast('float').alias('y'))

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, features):
        return self.layer(features).squeeze(-1)

def estimator(model=None, **more):
    told = dict(model=model or Net(), loss='mse_loss', featuresCol='features', labelCol='y', epochs=2, batchSize=100, numProc=2, seed=1)
    return sparkdl.TorchEstimator(**{**told, **more})
"""
# Both slots of local[2] at once, as ranks need them.
BOTH_SLOTS = "print(sorted(sc.parallelize(range(2), 2).barrier().mapPartitions(lambda rows: rows).collect()))"
QUIET = "ignore:PySpark does not yet fully support pandas:FutureWarning"  # of pandas 3, which PySpark 4.3 says in every paragraph
WRAPPED = """
from pyspark.sql import SparkSession, SQLContext
SparkSession._wrapped = property(lambda session: SQLContext(session._sc, session))
"""


@dataclass
class Paragraph:
    """One that runs, or has run: what Zeppelin shows of it, and what it was told on the way.

    code: SUCCESS, ERROR or ABORT. status: FINISHED, ERROR or ABORT. messages: pairs of type and data. events: all that came,
    in order. percents: of the progress bar.
    """

    interpreter: Interpreter
    id: str
    events: list[dict] = field(default_factory=list)
    code: str | None = None
    status: str | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)

    @property
    def percents(self) -> list[int]:
        return [event["percent"] for event in self.events if event["event"] == "progress"]

    @property
    def text(self) -> str:
        """All messages' data."""
        return "".join(data for _, data in self.messages)

    @property
    def lines(self) -> list[str]:
        """Of all messages."""
        return self.text.splitlines()

    def of_type(self, kind: str) -> list[str]:
        """Data of the messages of a type: TEXT, TABLE, HTML, IMG."""
        return [data for found, data in self.messages if found == kind]

    def cancel(self) -> None:
        """Press the paragraph's stop button."""
        self.interpreter.send({"cancel": self.id})

    def until(self, seen, seconds: float = 120) -> Paragraph:
        """Return when `seen(event)` is true of an event, or raise."""
        with self.interpreter.changed:
            if not self.interpreter.changed.wait_for(lambda: any(seen(event) for event in self.events), seconds):
                raise TimeoutError(
                    f"not seen within {seconds} s; there was {self.events}\n{self.interpreter.log[-3000:]}"
                )
        return self

    def done(self, seconds: float = 240) -> Paragraph:
        """Return when it has ended."""
        return self.until(lambda event: event["event"] == "done", seconds)


class Interpreter:
    """A process with %spark.pyspark and %spark.sql on local[2]; `folder` takes its log and its working files."""

    def __init__(self, folder: Path, jars: Path, conf: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.changed = threading.Condition()
        self.paragraphs: dict[str, Paragraph] = {}
        (folder / "tmp").mkdir(parents=True)
        java = {
            name: shutil.which(name, path=f"{os.environ.get('JAVA_HOME', '')}/bin:{os.environ['PATH']}")
            for name in ("java", "javac")
        }
        ours = compiled(folder, jars, java["javac"])
        settings = {**CONF, **(conf or {}), "spark.sql.warehouse.dir": str(folder / "warehouse")}
        settings["spark.driver.extraJavaOptions"] += f" -Djava.io.tmpdir={folder / 'tmp'}"
        command = [
            str(spark_home() / "bin/spark-submit"),
            "--class",
            "Paragraphs",
            "--jars",
            ",".join(map(str, sorted(jars.glob("*.jar")))),
        ]
        for name, value in settings.items():
            command += ["--conf", f"{name}={value}"]
        environment = {
            **os.environ,
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_HOME": str(spark_home()),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), QUIET])),
        }
        environment.pop("PYSPARK_DRIVER_PYTHON", None)
        startup = folder / "ipython/profile_default/startup"
        startup.mkdir(parents=True)
        (startup / "wrapped.py").write_text(WRAPPED)
        environment["IPYTHONDIR"] = str(folder / "ipython")
        with (folder / "log.txt").open("w") as log:
            self.process = subprocess.Popen(
                [*command, str(ours)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        self.ready: queue.Queue[bool] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        if not self.ready.get(timeout=START_SECONDS):
            raise RuntimeError(f"the interpreter did not start:\n{self.log[-5000:]}")

    @property
    def log(self) -> str:
        """What the JVM and the workers wrote so far."""
        return (self.folder / "log.txt").read_text(errors="replace")

    def start(self, text: str, interpreter: str = "pyspark") -> Paragraph:
        """Start a paragraph."""
        paragraph = Paragraph(self, f"paragraph_{len(self.paragraphs)}")
        self.paragraphs[paragraph.id] = paragraph
        self.send({"run": paragraph.id, "interpreter": interpreter, "text": text})
        return paragraph

    def run(self, text: str, interpreter: str = "pyspark", seconds: float = 240) -> Paragraph:
        """Run a paragraph to its end."""
        return self.start(text, interpreter).done(seconds)

    def send(self, message: dict) -> None:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()

    def _listen(self) -> None:
        for line in self.process.stdout:
            if not line.startswith("{"):
                continue
            event = json.loads(line)
            if event.get("ready"):
                self.ready.put(True)
                continue
            event["at"] = time.monotonic()
            with self.changed:
                paragraph = self.paragraphs[event["id"]]
                if event["event"] == "done":
                    paragraph.code, paragraph.status = event["code"], event["status"]
                    paragraph.messages = [(message["type"], message["data"]) for message in event["messages"]]
                paragraph.events.append(event)
                self.changed.notify_all()
        self.ready.put(False)


@dataclass(frozen=True)
class Written:
    """A paragraph of a notebook's file. magic: what runs it, as in `%spark.sql`."""

    title: str
    magic: str
    text: str

    @property
    def interpreter(self) -> str:
        return self.magic.rpartition(".")[2]


def written(path: Path) -> list[Written]:
    """The paragraphs of a `.zpln` file, split as Zeppelin splits them: the magic is the first word."""
    made = []
    for paragraph in json.loads(path.read_text())["paragraphs"]:
        magic, _, text = paragraph["text"].partition("\n")
        made.append(Written(paragraph["title"], magic.strip(), text.strip()))
    return made


def spark_home() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent


def compiled(folder: Path, jars: Path, javac: str) -> Path:
    """A jar of Paragraphs.java."""
    classes = folder / "classes"
    classes.mkdir()
    paths = f"{spark_home() / 'jars'}/*:{jars}/*"
    subprocess.run([javac, "-nowarn", "-cp", paths, "-d", str(classes), str(HERE / "Paragraphs.java")], check=True)
    with zipfile.ZipFile(folder / "paragraphs.jar", "w") as jar:
        for path in sorted(classes.iterdir()):
            jar.write(path, path.name)
    return folder / "paragraphs.jar"
