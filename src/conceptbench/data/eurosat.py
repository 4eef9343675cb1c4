"""EuroSAT (RGB) from a folder, with CoOp's split file where it is found."""

from pathlib import Path

import pandas as pd

from conceptbench.data.coop import find_split_file, read_split
from conceptbench.data.draft import STRATIFIED, Draft, file_rows
from conceptbench.data.files import image_folder
from conceptbench.data.spec import DatasetSpec
from conceptbench.data.splits import stratified_split
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import sha256_file

SPLIT_FILE = "split_zhou_EuroSAT.json"
CLASS_NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}
"""Folder name to the class name that CoOp's prompts use, in label order."""
_SOURCE = "EuroSAT RGB (Helber et al. 2019), 64x64 Sentinel-2 crops"


def draft_eurosat(spec: DatasetSpec, data_root: Path, seed: int) -> Draft:
    """CoOp's split if its file is in data_root, data_root/eurosat or data_root/coop_splits; else the project's own."""
    root = next((path for path in (data_root / "eurosat/2750", data_root / "2750") if path.is_dir()), None)
    if root is None:
        raise ConceptBenchError(
            f"No EuroSAT images in {data_root}: neither eurosat/2750 nor 2750 exists; unpack EuroSAT there."
        )
    folders = image_folder(root)
    split_file = find_split_file(SPLIT_FILE, (data_root, root.parent, data_root / "coop_splits"))
    if split_file is None:
        unknown = sorted(set(folders) ^ set(CLASS_NAMES))
        if unknown:
            raise ConceptBenchError(f"Folder {root} and EuroSAT's ten classes differ in {unknown[0]}; unpack it again.")
        items = pd.DataFrame(
            [(path, label, CLASS_NAMES[name]) for label, name in enumerate(CLASS_NAMES) for path in folders[name]],
            columns=["path", "label", "class_name"],
        )
        items["split"] = stratified_split(items["label"].to_numpy(), seed, spec.name)
        return Draft(file_rows(items, root), tuple(CLASS_NAMES.values()), root, STRATIFIED, _SOURCE, "MIT")
    items, classes = read_split(split_file)
    _check_folders(items, folders, root, split_file)
    details = {"split_file": {"name": SPLIT_FILE, "sha256": sha256_file(split_file)}}
    rows = file_rows(items, root, split_file)
    return Draft(rows, classes, root, f"CoOp split file {SPLIT_FILE}", _SOURCE, "MIT", details)


def _check_folders(items: pd.DataFrame, folders: dict[str, list[str]], root: Path, split_file: Path) -> None:
    """Each class of the split file is one folder, each folder one class, and every named image is there."""
    folder = items["path"].str.split("/").str[0]
    pairs = pd.DataFrame({"folder": folder, "class_name": items["class_name"]}).drop_duplicates()
    for name, class_name in zip(pairs["folder"], pairs["class_name"], strict=True):
        if name not in folders:
            raise ConceptBenchError(
                f"Split file {split_file} has the class '{class_name}' in folder {name}, unknown in {root}; "
                "unpack all classes or use the data set's own split file."
            )
    extra = sorted(set(folders) - set(pairs["folder"]))
    if extra:
        raise ConceptBenchError(f"Folder {root / extra[0]} is no class of {split_file}; remove one of them.")
    if pairs["folder"].duplicated().any() or pairs["class_name"].duplicated().any():
        mixed = pairs[pairs["folder"].duplicated(keep=False) | pairs["class_name"].duplicated(keep=False)].iloc[0]
        raise ConceptBenchError(
            f"Split file {split_file} mixes folders and classes at '{mixed['class_name']}' ({mixed['folder']}); "
            "restore it from CoOp."
        )
    missing = set(items["path"]).difference(*folders.values())
    if missing:
        raise ConceptBenchError(
            f"Split file {split_file} names {len(missing)} images that are not in {root}, such as {min(missing)}; "
            "unpack the whole data set there."
        )
