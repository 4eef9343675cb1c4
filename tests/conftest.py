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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give all workflow tests, which share one run of a small experiment, to one worker; spread the others one by one.

    The marker xdist_group says the same, but pytest-xdist 3.8 loses it under pytest 9.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkflow(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "workflow" if nodeid.startswith("tests/workflow/") else nodeid

    return OneWorkflow(config, log)
