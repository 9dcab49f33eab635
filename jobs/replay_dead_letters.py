"""Score dead letters once more, after a fix: spark-submit jobs/replay_dead_letters.py --conf-file CONF.yaml. docs/jobs.md has the keys and the exit statuses."""

from sparkdl.jobs import main

if __name__ == "__main__":
    raise SystemExit(main("replay_dead_letters"))
