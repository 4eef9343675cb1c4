"""The manifest of a run: what every job of an experiment said about itself, put together by one rule.

Facts on which all jobs agree stand once; where they differ, each job names the variant that it ran with.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import digest, read_json, sha256_file, write_json

FORMAT: Final = "conceptbench-run/1"
FACTS: Final = ("code", "machine", "versions", "flags")
"""What a job's record holds besides its name and time; each becomes a list of the variants that occurred."""


def read_job_records(folder: Path, named: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the records of the jobs of a run by name; those of jobs that belong to it no longer are passed over.

    Args:
        folder: where the jobs leave their records: `<rule>.json` or `<rule>/<names>.json`.
        named: names that jobs of the run can have: `<rule>` or `<rule>.<names>`.

    Raises:
        ConceptBenchError: when there is no record, or a file is not a record.
    """
    belonging, records = set(named), {}
    for path in sorted(folder.rglob("*.json")):
        record = read_json(path)
        if not isinstance(record, Mapping) or not {"rule", "ended", *FACTS} <= set(record):
            raise ConceptBenchError(f"Job record {path} is not complete; delete it and run its rule again.")
        name = path.relative_to(folder).with_suffix("").as_posix().replace("/", ".")
        if name in belonging:
            records[name] = dict(record)
    if not records:
        raise ConceptBenchError(f"No job has left a record in {folder}; run the workflow before its manifest is made.")
    return records


def names_of(records: Mapping[str, Mapping[str, Any]], rule: str) -> list[str]:
    """Return the names that the jobs of a rule have: `scenes` for the job `prepare_dataset.scenes`."""
    return sorted(name.removeprefix(f"{rule}.") for name, record in records.items() if record["rule"] == rule)


def merge_records(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put the records of jobs together.

    Returns:
        For each of `FACTS` the variants that occurred, in the order of first end, and `jobs`: by name the rule, the
        time, and for each fact the index of its variant. `clean`: true when every job ran committed code, false when
        one ran uncommitted changes, None when none did and one could not know.
    """
    variants: dict[str, list[Any]] = {fact: [] for fact in FACTS}
    jobs = {}
    for name, record in sorted(records.items(), key=lambda item: (item[1]["ended"], item[0])):
        used = {}
        for fact in FACTS:
            if record[fact] not in variants[fact]:
                variants[fact].append(record[fact])
            used[fact] = variants[fact].index(record[fact])
        own = {key: value for key, value in record.items() if key not in FACTS}
        jobs[name] = {**own, **used}
    return {**variants, "clean": _clean(variants["code"]), "jobs": jobs}


def _clean(codes: Iterable[Mapping[str, Any]]) -> bool | None:
    states = [code["dirty"] for code in codes]
    if any(states):
        return False
    return None if None in states else True


def write_run_manifest(
    path: Path,
    *,
    records: Mapping[str, Mapping[str, Any]],
    stamps: Mapping[str, Path],
    data: Mapping[str, Path],
    weights: Mapping[str, Path],
    results: Mapping[str, Path],
) -> dict[str, Any]:
    """Write and return the manifest of a run.

    Args:
        path: where it goes.
        records: what the jobs said, from `read_job_records`.
        stamps: parameter stamps by name; their digest identifies the configuration.
        data: cards of data sets by name; each has the digest of its images.
        weights, results: files by name; each gets its SHA-256.

    Raises:
        ConceptBenchError: when a card has no digest, or a file is missing.
    """
    parameters = {name: read_json(stamp) for name, stamp in sorted(stamps.items())}
    manifest = {
        "format": FORMAT,
        "parameters_digest": digest(parameters),
        "data": {name: _data_digest(card) for name, card in sorted(data.items())},
        "weights": {name: _file_digest(file) for name, file in sorted(weights.items())},
        "results": {name: _file_digest(file) for name, file in sorted(results.items())},
        **merge_records(records),
    }
    write_json(manifest, path)
    return manifest


def _data_digest(card: Path) -> str:
    found = read_json(card).get("digest")
    if not found:
        raise ConceptBenchError(f"Data set card {card} has no digest; delete it and run prepare_dataset again.")
    return str(found)


def _file_digest(file: Path) -> str:
    if not Path(file).is_file():
        raise ConceptBenchError(f"File {file} of the run does not exist; run the rule that writes it.")
    return sha256_file(file)


def require_clean(path: Path) -> None:
    """Refuse a run that belongs to no committed revision.

    Raises:
        ConceptBenchError: when jobs ran uncommitted changes; their rules are named.
    """
    manifest = read_json(path)
    dirty = [name for name, job in manifest["jobs"].items() if manifest["code"][job["code"]]["dirty"]]
    remedy = "commit and run them again: snakemake --cores all --forcerun"
    if dirty:
        rules = sorted({manifest["jobs"][name]["rule"] for name in dirty})
        raise ConceptBenchError(
            f"{path}: {len(dirty)} job(s) ran with uncommitted changes; {remedy} {' '.join(rules)}."
        )


def main(arguments: list[str]) -> int:
    """Check the manifest named on the command line; 0 when the run may be recorded."""
    try:
        require_clean(Path(arguments[0]))
    except ConceptBenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
