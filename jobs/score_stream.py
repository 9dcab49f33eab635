"""Score events as they arrive: spark-submit jobs/score_stream.py CONF.yaml (keys: sparkdl.conf.ScoreStreamConf).

Runs until SIGTERM or SIGINT, at which it ends the micro-batch that is running, or with ``trigger: available now``
until nothing is left to score. Under spark-submit the signal must reach this Python process: spark-submit's own JVM
ends at once, with the query; the next run then takes up where that one was.

Exit status: 0 done, 1 failed, 2 the conf is bad, 3 the source or the model is not there, 4 ended by an alert.
"""

import sys

from sparkdl import conf, session
from sparkdl.stream import configured


def main() -> int:
    """Start the query, wait for a reason to end."""
    settings = conf.of_command_line(conf.ScoreStreamConf)
    spark = session.for_job(settings.name or "sparkdl score stream")
    told_to_end = configured.told_by_signals()  # after Spark, which has a handler of its own for SIGINT
    monitor = configured.monitor(settings.monitor)
    query = configured.start(spark, settings, monitor)
    print(f"scoring what arrives in {settings.source.path or settings.source.format}", flush=True)
    configured.run_to_end(query, told_to_end)
    print(f"scored: {query.status()}", flush=True)
    spark.stop()
    if monitor and monitor.failed:
        print(monitor.failed, file=sys.stderr, flush=True)
        return configured.ALERT
    return configured.DONE


if __name__ == "__main__":
    raise SystemExit(configured.exit_status(main))
