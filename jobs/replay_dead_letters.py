"""Score dead letters once more, after a fix: spark-submit jobs/replay_dead_letters.py CONF.yaml (keys: sparkdl.conf.ReplayConf).

Each dead letter is taken once, however often this runs or is killed; one that fails again is a new dead letter.

Exit status: 0 done, 1 failed, 2 the conf is bad, 3 the model is not there.
"""

from sparkdl import conf, session
from sparkdl.stream import configured


def main() -> int:
    """Replay, and say what became of the rows."""
    settings = conf.of_command_line(conf.ReplayConf)
    spark = session.for_job(settings.name or "sparkdl replay dead letters")
    counts = configured.replay(spark, settings, configured.monitor(settings.monitor))
    print(
        f"replayed: {counts['rows']} dead letters, {counts['scored']} scored, {counts['dead']} dead again", flush=True
    )
    spark.stop()
    return configured.DONE


if __name__ == "__main__":
    raise SystemExit(configured.exit_status(main))
