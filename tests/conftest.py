"""What every test shares: one thread for numerical libraries, a seeded profile for property-based tests, workers."""

import os
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402  (threads are set before anything loads NumPy)
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "conceptbench", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("conceptbench")


FIRST = ("tests/workflow/test_kill.py", "tests/workflow/")
"""The longest tests, which two workers should not find themselves waiting for at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first."""

    def rank(item: pytest.Item) -> int:
        return next((at for at, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the workflow tests of a file, which share costly fixtures, to one worker; spread all others one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class WorkflowsByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.split("::")[0] if nodeid.startswith("tests/workflow/") else nodeid

    return WorkflowsByFile(config, log)
