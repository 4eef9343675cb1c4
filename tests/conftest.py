"""What every test shares: one thread for numerical libraries and a seeded profile for property-based tests."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from hypothesis import HealthCheck, settings  # noqa: E402  (threads are set before anything loads NumPy)

settings.register_profile(
    "conceptbench", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("conceptbench")
