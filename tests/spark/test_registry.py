"""The registry that Spark's conf names."""

import pytest

from sparkdl.errors import RegistryError
from sparkdl.registry import uri


def test_the_default_registry_is_that_of_spark_s_conf(spark, tmp_path, monkeypatch):
    monkeypatch.setenv(uri.VARIABLE, str(tmp_path / "of the environment"))
    monkeypatch.delenv(uri.BUNDLES_VARIABLE, raising=False)
    assert uri.default(spark).uri == str(tmp_path / "of the environment")
    spark.conf.set(uri.CONF, str(tmp_path / "of Spark"))
    try:
        assert uri.default(spark).uri == uri.default().uri == str(tmp_path / "of Spark")
        spark.conf.set(uri.CONF, f"sqlite:///{tmp_path}/c.db")
        spark.conf.set(uri.BUNDLES_CONF, str(tmp_path / "bundles"))
        assert uri.default(spark).uri == f"sqlite:///{tmp_path}/c.db"
    finally:
        spark.conf.unset(uri.CONF)
        spark.conf.unset(uri.BUNDLES_CONF)
    monkeypatch.delenv(uri.VARIABLE)
    with pytest.raises(RegistryError, match="no registry is configured"):
        uri.default(spark)
