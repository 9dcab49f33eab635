"""Score events as they arrive: spark-submit jobs/score_stream.py --conf-file CONF.yaml. docs/jobs.md has the keys and the exit statuses."""

from sparkdl.jobs import main

if __name__ == "__main__":
    raise SystemExit(main("score_stream"))
