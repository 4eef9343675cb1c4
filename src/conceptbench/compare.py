"""Metrics of a run against the reference numbers of the repository, within tolerances stated for every key.

Results repeat bit by bit on one machine with one set of library versions, not across machines; the tolerances say how
far each kind of number may move.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json


@dataclass(frozen=True)
class Tolerance:
    """How far the metrics of some keys may be from the reference: absolute + relative * |reference|."""

    keys: str
    """Pattern of keys with `*`, `?` and `[...]`; of several that match a key, the first counts."""
    absolute: float = 0.0
    """Largest absolute difference."""
    relative: float = 0.0
    """Largest difference as a share of the reference; added to the absolute one."""
    optional: bool = False
    """The key may be missing on one side, as a share of a gain is where there is no gain."""

    def allows(self, expected: float) -> float:
        """Return the largest difference to an expected value."""
        return self.absolute + self.relative * abs(expected)


@dataclass(frozen=True)
class Difference:
    """A metric that is not what the reference says."""

    key: str
    expected: float | None
    """The reference; None when it has no such key."""
    found: float | None
    """The run; None when it has no such key."""
    allowed: float

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.key}: missing, the reference has {self.expected:.6g}"
        if self.expected is None:
            return f"{self.key}: {self.found:.6g} is not in the reference"
        return (
            f"{self.key}: {self.found:.6g}, the reference has {self.expected:.6g}; "
            f"the difference {abs(self.found - self.expected):.3g} is above {self.allowed:.3g}"
        )


def read_tolerances(path: Path | str) -> tuple[Tolerance, ...]:
    """Read a YAML list of tolerances.

    Raises:
        ConceptBenchError: when the file is missing, is not such a list, or a number is negative.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConceptBenchError(f"Tolerances {path} cannot be read ({error}); restore the file.") from error
    if not isinstance(content, list):
        raise ConceptBenchError(f"Tolerances {path} must be a list of entries with the key 'keys'; correct it.")
    return tuple(_tolerance(entry, path) for entry in content)


def _tolerance(entry: Any, path: Path | str) -> Tolerance:
    known = set(Tolerance.__dataclass_fields__)
    if not isinstance(entry, Mapping) or "keys" not in entry or set(entry) - known:
        raise ConceptBenchError(f"Tolerances {path}: {entry!r} must have 'keys' and otherwise only {sorted(known)}.")
    tolerance = Tolerance(**entry)
    numbers = (tolerance.absolute, tolerance.relative)
    if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
        raise ConceptBenchError(f"Tolerances {path}: those of '{tolerance.keys}' must be numbers of at least 0.")
    return tolerance


def compare(
    reference: Mapping[str, float], found: Mapping[str, float], tolerances: Sequence[Tolerance]
) -> list[Difference]:
    """Return every metric that is missing, unexpected or outside its tolerance, in the order of the keys.

    Raises:
        ConceptBenchError: when no tolerance is stated for a key.
    """
    differences = []
    for key in sorted(set(reference) | set(found)):
        tolerance = next((one for one in tolerances if fnmatchcase(key, one.keys)), None)
        if tolerance is None:
            raise ConceptBenchError(f"No tolerance is stated for the metric '{key}'; add a pattern that matches it.")
        expected, value = reference.get(key), found.get(key)
        if expected is None or value is None:
            if not tolerance.optional:
                differences.append(Difference(key, expected, value, 0.0))
        elif not abs(value - expected) <= tolerance.allows(expected):
            differences.append(Difference(key, expected, value, tolerance.allows(expected)))
    return differences


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what differs; return the exit status: 0 when everything is within its tolerance."""
    parser = argparse.ArgumentParser(prog="python -m conceptbench.compare", description=__doc__)
    parser.add_argument("reference", type=Path, help="metrics.json of the repository")
    parser.add_argument("found", type=Path, help="metrics.json of the run")
    parser.add_argument("--tolerances", type=Path, required=True, help="YAML list of tolerances")
    options = parser.parse_args(arguments)
    try:
        reference = read_json(options.reference)
        differences = compare(reference, read_json(options.found), read_tolerances(options.tolerances))
    except ConceptBenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for difference in differences:
        print(difference)
    if differences:
        print(f"{options.found}: {len(differences)} metrics differ from {options.reference}.", file=sys.stderr)
        return 1
    print(f"{options.found}: {len(reference)} metrics agree with {options.reference}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
