"""Score a Parquet table: spark-submit jobs/score_batch.py CONF.yaml (keys: sparkdl.conf.ScoreBatchConf)."""

from sparkdl import Bundle, TorchModel, conf, session


def main() -> None:
    """Read, transform, write."""
    settings = conf.of_command_line(conf.ScoreBatchConf)
    spark = session.for_job("sparkdl score batch")
    model = TorchModel(Bundle.load(settings.bundle)).setParams(**settings.model)
    scored = model.transform(spark.read.parquet(settings.source))
    scored.write.mode("overwrite" if settings.overwrite else "errorifexists").parquet(settings.output)
    print(f"scored: {settings.output}")
    spark.stop()


if __name__ == "__main__":
    main()
