"""Score a Parquet or Delta table: spark-submit jobs/score_batch.py --conf-file CONF.yaml. docs/jobs.md has the keys and the exit statuses."""

from sparkdl.jobs import main

if __name__ == "__main__":
    raise SystemExit(main("score_batch"))
