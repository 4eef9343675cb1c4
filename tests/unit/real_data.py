"""Where tests look for real data that the repository does not hold."""

import os
from pathlib import Path

REAL_DATA = Path(os.environ.get("CONCEPTBENCH_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
"""The folder CONCEPTBENCH_DATA, or else ../shared/data beside the checkout; neither need exist."""
