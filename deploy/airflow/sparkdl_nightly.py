"""An Airflow DAG that scores each day's partition once the day is over. Copy it to the DAGs folder.

It runs `spark-submit jobs/score_batch.py` by Airflow's Spark provider, with the master of the connection `spark_default`:

    pip install apache-airflow-providers-apache-spark
    airflow connections add spark_default --conn-type spark --conn-host spark://HOST --conn-port 7077

Without that connection the provider submits to YARN. `spark-submit` is the one on the worker's PATH, and so is the driver's
Python: put the bin folder of the environment that has sparkdl first. SPARKDL_HOME says where jobs/ and conf/ are,
SPARKDL_PROPERTIES where Spark's settings, with the cluster's secret.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

HOME = os.environ.get("SPARKDL_HOME", "/opt/sparkdl")
PROPERTIES = os.environ.get("SPARKDL_PROPERTIES", "/etc/sparkdl/cluster.conf")
TRY_AGAIN = 75  # the job's exit status when another run holds the day's lease, or a service did not answer


class SparkdlOperator(SparkSubmitOperator):
    """Submits a job of sparkdl. It is tried again when the job says that this helps, and at no other failure: a conf that is
    wrong, or input that is not there, will be so in ten minutes' time."""

    def execute(self, context: Context) -> None:
        """Submit it and wait for its end."""
        try:
            super().execute(context)
        except AirflowException as error:
            status = re.search(r"Error code is: (\d+)", str(error))
            if status is None or int(status[1]) == TRY_AGAIN:
                raise
            raise AirflowFailException(f"the job ended with exit status {status[1]}; its log says why") from error


with DAG(
    "sparkdl_nightly",
    # Run at 02:30 for the day that ended at midnight: `ds` below is that day.
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 11, 1),
    # Days that were missed are made up for by `--backfill`, several at a time, and not by a run of the DAG for each.
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 6, "retry_delay": timedelta(minutes=10)},
    doc_md=__doc__,
):
    SparkdlOperator(
        task_id="score",
        conn_id="spark_default",
        name="sparkdl nightly {{ ds }}",
        application=f"{HOME}/jobs/score_batch.py",
        application_args=[
            "--conf-file",
            f"{HOME}/conf/schedule/nightly.yaml",
            "--date",
            "{{ ds }}",
            "--log-format",
            "json",
        ],
        properties_file=PROPERTIES,
        execution_timeout=timedelta(hours=4),
    )
