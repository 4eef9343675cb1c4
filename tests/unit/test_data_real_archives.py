"""EuroSAT and Flowers-102 as if downloaded: real archives served from this machine, damaged first and interrupted then.

They are not in the repository: `eurosat_rgb.zip`, `oxford_flowers_64px.zip` and, in `coop_splits/`, CoOp's split files
lie in the folder CONCEPTBENCH_DATA or in ../shared/data beside the checkout (`real_data.py`).
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from real_data import REAL_DATA
from web_tools import serving

from conceptbench.data import DatasetSpec, prepare_dataset, provide_dataset
from conceptbench.data.catalogue import SOURCES
from conceptbench.errors import ConceptBenchError

pytestmark = pytest.mark.skipif(
    not (REAL_DATA / "eurosat_rgb.zip").is_file(),
    reason=f"the real archives are not in {REAL_DATA}; set CONCEPTBENCH_DATA to the folder that holds them",
)

CASES = {
    "eurosat": ("eurosat_rgb.zip", "split_zhou_EuroSAT.json", {"train": 13500, "val": 5400, "test": 8100}),
    "flowers": ("oxford_flowers_64px.zip", "split_zhou_OxfordFlowers.json", {"train": 4093, "val": 1633, "test": 2463}),
}
"""Archive, split file and the sizes of CoOp's splits."""


@pytest.mark.parametrize("kind", CASES)
def test_real_archive_is_fetched_checked_and_prepared(kind: str, tmp_path: Path) -> None:
    archive, split, sizes = CASES[kind]
    content = (REAL_DATA / archive).read_bytes()
    first, *others = SOURCES[kind].parts
    digest = hashlib.sha256(content).hexdigest()
    damaged = bytearray(content)
    damaged[len(content) // 3] ^= 255
    with serving() as site:
        site.files = {archive: bytes(damaged), split: (REAL_DATA / "coop_splits" / split).read_bytes()}
        parts = [replace(first, name=archive, url=site.url(archive), place="", checksum=f"sha256:{digest}")]
        parts += [replace(part, url=site.url(part.name)) for part in others if part.name == split]
        source = replace(SOURCES[kind], parts=tuple(parts))
        with pytest.raises(ConceptBenchError, match="has the sha256"):
            provide_dataset(source, tmp_path / "data", "missing")
        site.files[archive] = content
        site.cut_after, asked = [len(content) // 2], len(site.asked)
        provide_dataset(source, tmp_path / "data", "missing")
        ranges = [wanted for path, wanted in site.asked[asked:] if path == f"/{archive}"]
    assert ranges == [None, f"bytes={len(content) // 2}-"]
    dataset = prepare_dataset(DatasetSpec.of(kind, {"kind": kind}), tmp_path / "dataset", tmp_path / "data", 0)
    assert dataset.card["splits"] == sizes
