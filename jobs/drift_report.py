"""Say how far a table is from what a model was trained on: spark-submit jobs/drift_report.py --conf-file CONF.yaml. docs/jobs.md has the keys and the exit statuses."""

from sparkdl.jobs import main

if __name__ == "__main__":
    raise SystemExit(main("drift_report"))
