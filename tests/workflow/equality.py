"""Whether two runs of the smoke experiment computed the same: every table, every learnt array, every stored token."""

import hashlib
from pathlib import Path

TIMES = {"runtime", "runtime_summary"}
"""Tables of measured time, which no two runs share."""
COMPUTED = ("metrics.json", "tables/*.parquet", "figures/*.csv", "**/*.safetensors", "**/store.zarr/**/c/*/0/0")
"""Files whose every byte follows from configuration and code."""


def computed(results: Path) -> dict[str, str]:
    """Digest of every file that two runs must share, by its path below the results."""
    found = sorted({path for pattern in COMPUTED for path in results.glob(pattern) if ".work" not in path.parts})
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
        if path.is_file() and path.stem not in TIMES
    }


def differing(one: Path, other: Path) -> list[str]:
    """Files of one run that the other lacks or has with other bytes."""
    left, right = computed(one), computed(other)
    assert {"metrics.json", "tables/accuracy.parquet"} <= set(left), "nothing to compare"
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
