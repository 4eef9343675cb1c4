"""ADE20K (scene parsing benchmark of 2016): images with a mask of 150 kinds of thing and the name of the scene."""

from pathlib import Path

import pandas as pd

from conceptbench.data.catalogue import SOURCES
from conceptbench.data.coop_suite import halve_validation
from conceptbench.data.draft import Draft, file_rows
from conceptbench.data.spec import DatasetSpec
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import sha256_file


def draft_ade20k(spec: DatasetSpec, data_root: Path, seed: int) -> Draft:
    """Rows without a label and with the columns `scene`, `mask` (PNG of 0 for nothing, 1..150) and `mask_sha256`.

    The published training images are train; the published validation images are halved into val and test.

    Raises:
        ConceptBenchError: when images, their masks or the list of scenes are missing.
    """
    source = SOURCES[spec.kind]
    home = data_root / "ADEChallengeData2016"
    listing = home / "sceneCategories.txt"
    if not listing.is_file():
        raise ConceptBenchError(f"{listing} is missing; get {source.title} from {source.homepage}.")
    scenes = dict(line.split()[:2] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip())
    rows = []
    for folder, split in (("training", "train"), ("validation", "val")):
        for path in sorted((home / "images" / folder).glob("*.jpg")):
            mask = home / "annotations" / folder / f"{path.stem}.png"
            if not mask.is_file():
                raise ConceptBenchError(f"{mask}, the mask of an image, is missing; unpack {source.title} again.")
            where = [file.relative_to(home).as_posix() for file in (path, mask)]
            rows.append((*where, split, scenes.get(path.stem, ""), sha256_file(mask)))
    if not rows:
        raise ConceptBenchError(f"{home / 'images'} holds no image; get {source.title} from {source.homepage}.")
    items = pd.DataFrame(rows, columns=["path", "mask", "split", "scene", "mask_sha256"])
    items = halve_validation(items.assign(label=-1, class_name=""), seed, spec.name)
    rule = "published training images; the published validation images halved into val and test"
    return Draft(file_rows(items, home), (), home, rule, source.title, source.licence)
