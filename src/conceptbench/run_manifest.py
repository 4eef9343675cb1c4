"""The manifest of a run: what every job of an experiment said about itself, put together by one rule.

Facts on which all jobs agree stand once; where they differ, each job names the variant that it ran with.
"""

import argparse
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import digest, read_json, sha256_file, write_json

FORMAT: Final = "conceptbench-run/1"
FACTS: Final = ("code", "machine", "versions", "flags")
"""What a job's record holds besides its name and time; each becomes a list of the variants that occurred."""
CHANGED: Final = "code_at_end"
"""In the record of a job whose code became another while it ran: what it was at the end."""
DOUBTS: Final = {
    "unknown": "do not know which code they ran, as outside a git checkout",
    "changed": "saw the code change while they ran",
    "revisions": "ran another revision of the code than the last one",
}
"""What else speaks against a record of a run, and may be allowed: what its jobs did."""


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
        time, and for each fact the index of its variant; `code_at_end` where the code changed while the job ran.
        `clean`: true when every job ran committed code, false when one ran uncommitted changes, None when none did and
        one could not know or saw its code change.
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
    return {**variants, "clean": _clean(records.values()), "jobs": jobs}


def _clean(records: Collection[Mapping[str, Any]]) -> bool | None:
    if any(record["code"]["dirty"] for record in records):
        return False
    unsure = any(CHANGED in record or record["code"]["dirty"] is None for record in records)
    return None if unsure else True


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


def require_clean(path: Path, allowed: Iterable[str] = ()) -> None:
    """Refuse a run that does not belong to one committed revision.

    Args:
        path: the manifest of the run.
        allowed: those of `DOUBTS` that are no reason to refuse.

    Raises:
        ConceptBenchError: when jobs ran uncommitted changes, or for a doubt that is not allowed; rules are named.
    """
    manifest = read_json(path)
    jobs: dict[str, dict[str, Any]] = manifest["jobs"]
    code = {name: manifest["code"][job["code"]] for name, job in jobs.items()}
    last = code[max(jobs, key=lambda name: str(jobs[name]["ended"]))]["revision"]
    dirty = [jobs[name]["rule"] for name in jobs if code[name]["dirty"]]
    if dirty:
        raise ConceptBenchError(f"{path}: {len(dirty)} job(s) ran with uncommitted changes; {_run_again(dirty)}.")
    doubtful = {
        "unknown": [name for name in jobs if code[name]["dirty"] is None],
        "changed": [name for name in jobs if CHANGED in jobs[name]],
        "revisions": [name for name in jobs if code[name]["revision"] not in (last, None)],
    }
    for doubt, names in doubtful.items():
        if names and doubt not in allowed:
            rules = [jobs[name]["rule"] for name in names]
            raise ConceptBenchError(
                f"{path}: {len(names)} job(s) {DOUBTS[doubt]}; {_run_again(rules)}, or allow it: "
                f"make record ALLOW={doubt}"
            )


def _run_again(rules: Iterable[str]) -> str:
    return f"commit and run them again: snakemake --cores all --forcerun {' '.join(sorted(set(rules)))}"


def main(arguments: list[str]) -> int:
    """Check the manifest named on the command line; 0 when the run may be recorded."""
    parser = argparse.ArgumentParser(prog="python -m conceptbench.run_manifest", description=require_clean.__doc__)
    parser.add_argument("manifest", type=Path, help="manifest.json of the run")
    parser.add_argument("--allow", nargs="*", default=[], choices=DOUBTS, help="what is no reason to refuse")
    chosen = parser.parse_args(arguments)
    try:
        require_clean(chosen.manifest, chosen.allow)
    except ConceptBenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
