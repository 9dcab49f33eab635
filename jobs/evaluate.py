"""Say how good a model is on rows that it has not seen: spark-submit jobs/evaluate.py --conf-file CONF.yaml. docs/jobs.md has the keys and the exit statuses."""

from sparkdl.jobs import main

if __name__ == "__main__":
    raise SystemExit(main("evaluate"))
