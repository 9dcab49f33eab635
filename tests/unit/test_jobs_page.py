"""docs/jobs.md says of the confs what their models say."""

import importlib.util
from pathlib import Path

import pytest

from sparkdl.jobs import JOBS, status

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/jobs.md").read_text()


@pytest.fixture(scope="module")
def conf_keys():
    spec = importlib.util.spec_from_file_location("conf_keys", ROOT / "scripts/conf_keys.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_keys_are_those_of_the_models(conf_keys):
    assert conf_keys.page(PAGE) == PAGE, "run python scripts/conf_keys.py"


@pytest.mark.parametrize("job", JOBS)
def test_each_job_is_told_and_has_its_file(job):
    assert f"| `{job}` |" in PAGE
    assert f"<!-- keys of {job} -->\n| key |" in PAGE
    assert f'main("{job}")' in (ROOT / f"jobs/{job}.py").read_text()


def test_each_status_is_told():
    told = [value for name, value in vars(status).items() if name.isupper() and isinstance(value, int)]
    assert len(told) == 6
    assert all(f"\n| {value} | " in PAGE for value in told)
