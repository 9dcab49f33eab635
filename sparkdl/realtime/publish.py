"""Which model the executors score with: a file beside the checkpoint says so, and they look at it all the time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sparkdl import store
from sparkdl.columns import answers, spark_json
from sparkdl.graph import Graph
from sparkdl.stream import records
from sparkdl.stream.versions import Models, Served

CURRENT = "current.json"


def graph_of(served: Served) -> Graph:
    """Of its bundle. Raises GraphError if it has none."""
    return served.model.bundle.graph


class Publisher:
    """Follows a model's alias for the executors, on the driver.

    folder: URI of the folder that holds ``current.json`` and the graph that it names, which every executor can read.
    prove: raises for a version whose graph cannot run in the JVM; such a one is refused. A version that comes in is loaded, its
    graph built and proven, and written here before ``current.json`` names it.
    """

    def __init__(self, models: Models, checkpoint: str, prove: Callable[[Served], object] = graph_of) -> None:
        self.models = models
        self.folder = store.join(checkpoint, records.FOLDER, "model")
        self.refused: dict[str, str] = {}
        self._published: Served | None = None
        models.prove = prove

    @property
    def version(self) -> str | None:
        """The one that is published."""
        return self._published.version if self._published else None

    def begin(self, served: Served) -> None:
        """Publish the version to begin with. Raises GraphError for one that cannot run in the JVM, StoreError."""
        self.models.ship = self._write_graph
        self.refused.update(self.models.refusals())
        self._write_graph(served)
        self._publish(served)

    def look(self) -> None:
        """Publish the version that is to take over, if there is one. Never waits for one to be loaded. Raises StoreError."""
        self.models.warmed([self.models.candidate.digest] if self.models.candidate else [])
        served = self.models.now()
        self.refused.update(self.models.refusals())
        if served.version != self.version:
            self._publish(served)

    def _publish(self, served: Served) -> None:
        store.write_bytes(store.join(self.folder, CURRENT), json.dumps(_told(served), indent=1).encode())
        kept = {_file(graph_of(one)) for one in (served, self._published, self.models.candidate) if one is not None}
        self._published = served
        for name in store.names(self.folder):
            if name.startswith("graph-") and name not in kept:  # no executor has still to load it
                store.delete(store.join(self.folder, name))

    def _write_graph(self, served: Served) -> None:
        graph = graph_of(served)
        uri = store.join(self.folder, _file(graph))
        if not store.exists(uri):
            store.write_bytes(uri, graph.content)


def last_version(checkpoint: str) -> str | None:
    """The version that a run on this checkpoint published last, or None."""
    uri = store.join(checkpoint, records.FOLDER, "model", CURRENT)
    return json.loads(store.read_bytes(uri))["model_version"] if store.exists(uri) else None


def _file(graph: Graph) -> str:
    return f"graph-{graph.sha256}.onnx"


def _told(served: Served) -> dict[str, Any]:
    graph = graph_of(served)
    return {
        "model_version": served.version,
        "file": _file(graph),
        "graph": graph.to_json(),
        "answers": {name: spark_json(kind) for name, kind in answers(served.model.signature).items()},
    }
