"""What is stopped stays stopped, whatever it was about to start."""

import threading
import time

import pytest
from pyspark.sql import functions as sf

from sparkdl import session


def test_a_stop_before_a_job_begins_ends_it_too(spark):
    stopped, ended = threading.Event(), []

    def work():
        stopped.wait()  # as a driver that plans
        time.sleep(0.2)
        try:
            return spark.range(2).select(sf.udf(lambda x: time.sleep(60))("id")).collect()
        except Exception as error:
            ended.append(str(error))
            raise

    def check():
        stopped.set()
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        session.stoppable(spark, work, check)
    assert time.monotonic() - begun < 30
    assert "cancel" in ended[0]
