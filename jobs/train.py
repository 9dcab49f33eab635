"""Train a model on a Parquet table: spark-submit jobs/train.py CONF.yaml (keys: sparkdl.conf.TrainConf)."""

from dataclasses import replace

from sparkdl import TorchEstimator, conf, program, session
from sparkdl.evaluate import held_out


def main() -> None:
    """Train, report held-out figures, write the bundle."""
    settings = conf.of_command_line(conf.TrainConf)
    spark = session.for_job("sparkdl train")
    estimator = TorchEstimator(model=program.import_object(settings.model), **settings.estimator)
    model = estimator.fit(spark.read.parquet(settings.data))
    bundle = model.bundle
    if settings.test:
        figures = held_out(model, spark.read.parquet(settings.test), estimator.getLabelCol())
        bundle = replace(bundle, metrics={**bundle.metrics, **figures})
        print("held out: " + ", ".join(f"{name.removeprefix('test_')} {value:.4f}" for name, value in figures.items()))
    bundle.save(settings.bundle, overwrite=settings.overwrite)
    print(f"bundle: {settings.bundle}")
    spark.stop()


if __name__ == "__main__":
    main()
