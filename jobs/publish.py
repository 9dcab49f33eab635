"""Make a bundle a version of a registry: spark-submit jobs/publish.py --conf-file CONF.yaml. docs/jobs.md has the keys and the exit statuses."""

from sparkdl.jobs import main

if __name__ == "__main__":
    raise SystemExit(main("publish"))
