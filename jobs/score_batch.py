"""Score a Parquet or Delta table: spark-submit jobs/score_batch.py CONF.yaml (keys: sparkdl.conf.ScoreBatchConf).

A run that was killed is taken up by the next one with the same conf; a table that is there already is not made again.
"""

from sparkdl import Bundle, TorchModel, conf, score_table, session


def main() -> None:
    """Score the table and say what became of its rows."""
    settings = conf.of_command_line(conf.ScoreBatchConf)
    spark = session.for_job("sparkdl score batch")
    model = TorchModel(Bundle.load(settings.bundle)).setParams(**settings.model)
    done = score_table(
        settings.source,
        model,
        settings.output,
        columns=settings.columns,
        partitionBy=settings.partitionBy,
        rowGroupSize=settings.rowGroupSize,
        compression=settings.compression,
        overwrite=settings.overwrite,
        spark=spark,
    )
    print(f"scored: {done}")
    spark.stop()


if __name__ == "__main__":
    main()
