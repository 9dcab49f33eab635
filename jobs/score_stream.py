"""Score files as they arrive: spark-submit jobs/score_stream.py CONF.yaml (keys: sparkdl.conf.ScoreStreamConf).

Runs until SIGTERM or SIGINT, at which it ends the micro-batch that is running, or with ``trigger: available now``
until nothing is left to score. Under spark-submit the signal must reach this Python process: spark-submit's own JVM
ends at once, with the query.
"""

import signal
import threading

from sparkdl import Bundle, TorchModel, conf, session


def main() -> None:
    """Start the query, wait for a reason to end."""
    settings = conf.of_command_line(conf.ScoreStreamConf)
    spark = session.for_job("sparkdl score stream")
    model = TorchModel(Bundle.load(settings.bundle)).setParams(**settings.model)
    arriving = spark.readStream.schema(settings.columns).parquet(settings.source)
    trigger = {"availableNow": True} if settings.trigger == "available now" else {"processingTime": settings.trigger}
    writer = model.transform(arriving).writeStream.format("parquet").option("checkpointLocation", settings.checkpoint)
    query = writer.trigger(**trigger).start(settings.output)
    told_to_end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told_to_end.set())
    print(f"scoring what arrives in {settings.source}", flush=True)
    while not told_to_end.is_set() and not query.awaitTermination(0.2):
        pass
    while query.isActive and query.status["isTriggerActive"]:
        query.awaitTermination(0.05)
    query.stop()
    print(f"scored: {settings.output}")
    spark.stop()


if __name__ == "__main__":
    main()
