"""Where the published data sets come from: files, checksums, licences, and what has to be asked for.

Folders are those of CoOp (KaiyangZhou/CoOp, DATASETS.md). Checksums are those of torchvision's data sets where it has
one, else those that are commonly published for the archive; a file without one is noted at its first download
(`download.py`) and compared from then on.
"""

from dataclasses import dataclass, replace

from conceptbench.data.archives import is_archive

_DRIVE = "https://drive.google.com/uc?export=download&id="
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_COCO = "http://images.cocodataset.org"
_CALTECH = "https://data.caltech.edu/records"


@dataclass(frozen=True)
class Shards:
    """Images in parquet shards of a repository of the hub, whose terms every user agrees to with an account there."""

    repository: str
    revision: str
    """Commit, of which alone shards are taken."""
    split: str
    """The shards are `data/<split>-<number>-of-<count>.parquet`."""

    @property
    def url(self) -> str:
        """The page of the repository, where its terms are."""
        return f"https://huggingface.co/datasets/{self.repository}"


@dataclass(frozen=True)
class Part:
    """One file of a data set: an archive to unpack, or a file to put in place."""

    name: str
    """Name of the file."""
    url: str | None
    """Where it is downloaded; None when it has to be asked for or is made of shards."""
    place: str
    """Folder below `data_root` that it is put or unpacked into."""
    found_at: tuple[str, ...]
    """Paths below `data_root`, any of which says that the part is there."""
    checksum: str | None = None
    """`md5:<hex>` or `sha256:<hex>`."""
    inner: tuple[str, ...] = ()
    """Archives inside the archive, relative to `place`, which are unpacked beside themselves."""
    by_hand: str = ""
    """Where to get it when `url` is None."""
    shards: Shards | None = None
    """Shards of the hub that hold it, one image a row (`hub.py`)."""
    bytes: int | None = None
    """About its size, as servers gave it; None where it was not looked up. For plans, never to check the file by."""
    optional: bool = False
    """Whether the data set can be used without it (EuroSAT and Flowers, which are then split by this project)."""

    @property
    def archive(self) -> bool:
        """Whether the file is unpacked."""
        return is_archive(self.name)

    @property
    def downloads(self) -> bool:
        """Whether it can be downloaded, be it with an account of the user's."""
        return self.url is not None or self.shards is not None


@dataclass(frozen=True)
class Source:
    """A published data set."""

    kind: str
    title: str
    licence: str
    homepage: str
    parts: tuple[Part, ...]


def _split(name: str, drive: str, folder: str) -> Part:
    """A split file of CoOp, which may also lie in `data_root` itself or in its folder `coop_splits`."""
    return Part(name, _DRIVE + drive, folder, (f"{folder}/{name}", name, f"coop_splits/{name}"))


_EUROSAT = Source(
    "eurosat",
    "EuroSAT RGB (Helber et al. 2019), 64x64 Sentinel-2 crops",
    "MIT",
    "https://github.com/phelber/eurosat",
    (
        Part(
            "EuroSAT.zip",
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "eurosat",
            ("eurosat/2750", "2750"),
            "md5:c8fa014336c82ac7804f0398fcb19387",
        ),
        replace(
            _split("split_zhou_EuroSAT.json", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o", "eurosat"),
            checksum="sha256:541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2",
            optional=True,
        ),
    ),
)
_FLOWERS = Source(
    "flowers",
    "Oxford Flowers-102 (Nilsback and Zisserman 2008)",
    "research use",
    f"{_VGG}/flowers/102/",
    (
        Part(
            "102flowers.tgz",
            f"{_VGG}/flowers/102/102flowers.tgz",
            "oxford_flowers",
            ("oxford_flowers/jpg", "oxford_flowers_64px/jpg", "jpg"),
            "md5:52808999861908f626f3c1f4e79d11fa",
            bytes=344_862_509,
        ),
        Part(
            "imagelabels.mat",
            f"{_VGG}/flowers/102/imagelabels.mat",
            "oxford_flowers",
            ("oxford_flowers/imagelabels.mat", "oxford_flowers_64px/imagelabels.mat", "imagelabels.mat"),
            "md5:e0620be6f572b9609742df49c70aed4d",
            optional=True,
        ),
        Part(
            "split_zhou_OxfordFlowers.json",
            _DRIVE + "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
            "oxford_flowers",
            tuple(
                f"{folder}split_zhou_OxfordFlowers.json"
                for folder in ("oxford_flowers/", "", "coop_splits/", "oxford_flowers_64px/")
            ),
            "sha256:2f50c42fc1a17ca13c271cb4269b1347bdb43d2be672e34f74a4e4cbfbcca794",
            optional=True,
        ),
    ),
)
_IMAGENET = Source(
    "imagenet",
    "ImageNet-1k (Russakovsky et al. 2015)",
    "research use, to be agreed to at its source",
    "https://image-net.org",
    (
        *(
            Part(
                f"imagenet/images/{split}",
                None,
                "imagenet/images",
                (f"imagenet/images/{split}",),
                by_hand=f"image-net.org, or the hub's ILSVRC/imagenet-1k; {shape}",
                shards=Shards("ILSVRC/imagenet-1k", "49e2ee26f3810fb5a7536bbf732a7b07389a47b5", name),
                bytes=size,
            )
            for split, name, size, shape in (
                ("train", "train", 147_897_477_120, "one folder a synset"),
                ("val", "validation", 6_744_924_160, "sorted into one folder a synset"),
            )
        ),
        Part(
            "classnames.txt",
            _DRIVE + "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF",
            "imagenet",
            ("imagenet/classnames.txt",),
        ),
    ),
)
_CALTECH101 = Source(
    "caltech101",
    "Caltech-101 (Fei-Fei et al. 2004)",
    "CC BY 4.0",
    f"{_CALTECH}/mzrjq-6wc02",
    (
        Part(
            "caltech-101.zip",
            f"{_CALTECH}/mzrjq-6wc02/files/caltech-101.zip",
            "",
            ("caltech-101/101_ObjectCategories",),
            "md5:3138e1922a9193bfa496528edbbc45d0",
            inner=("caltech-101/101_ObjectCategories.tar.gz",),
        ),
        _split("split_zhou_Caltech101.json", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN", "caltech-101"),
    ),
)
_PETS = Source(
    "oxford-pets",
    "Oxford-IIIT Pets (Parkhi et al. 2012)",
    "CC BY-SA 4.0",
    f"{_VGG}/pets/",
    (
        Part(
            "images.tar.gz",
            f"{_VGG}/pets/data/images.tar.gz",
            "oxford_pets",
            ("oxford_pets/images",),
            "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
            bytes=791_918_971,
        ),
        _split("split_zhou_OxfordPets.json", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs", "oxford_pets"),
    ),
)
_CARS = Source(
    "stanford-cars",
    "Stanford Cars (Krause et al. 2013)",
    "research use",
    "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    (
        *(
            Part(
                f"{folder}.tgz",
                None,
                "stanford_cars",
                (f"stanford_cars/{folder}",),
                by_hand="its first address (ai.stanford.edu/~jkrause/car196) is gone; use a copy that you trust",
            )
            for folder in ("cars_train", "cars_test")
        ),
        _split("split_zhou_StanfordCars.json", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT", "stanford_cars"),
    ),
)
_FOOD = Source(
    "food101",
    "Food-101 (Bossard et al. 2014)",
    "research use (the images' rights are with their owners)",
    "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    (
        Part(
            "food-101.tar.gz",
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "",
            ("food-101/images",),
            "md5:85eeb15f3717b99a5da872d97d918f87",
            bytes=4_996_278_331,
        ),
        _split("split_zhou_Food101.json", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl", "food-101"),
    ),
)
_AIRCRAFT = Source(
    "fgvc-aircraft",
    "FGVC-Aircraft 2013b (Maji et al. 2013)",
    "research use",
    f"{_VGG}/fgvc-aircraft/",
    (
        Part(
            "fgvc-aircraft-2013b.tar.gz",
            f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "",
            ("fgvc_aircraft/images", "fgvc-aircraft-2013b/data/images"),
            bytes=2_753_340_328,
        ),
    ),
)
_SUN = Source(
    "sun397",
    "SUN397 (Xiao et al. 2010)",
    "research use",
    "https://vision.princeton.edu/projects/2010/SUN/",
    (
        Part(
            "SUN397.tar.gz",
            "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
            "sun397",
            ("sun397/SUN397",),
            "md5:8ca2778205c41d23104230ba66911c7a",
        ),
        _split("split_zhou_SUN397.json", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq", "sun397"),
    ),
)
_DTD = Source(
    "dtd",
    "Describable Textures (Cimpoi et al. 2014)",
    "research use",
    f"{_VGG}/dtd/",
    (
        Part(
            "dtd-r1.0.1.tar.gz",
            f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz",
            "",
            ("dtd/images",),
            "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
            bytes=625_239_812,
        ),
        _split("split_zhou_DescribableTextures.json", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x", "dtd"),
    ),
)
_UCF = Source(
    "ucf101",
    "UCF101 (Soomro et al. 2012), the middle frame of each video",
    "research use",
    "https://www.crcv.ucf.edu/data/UCF101.php",
    (
        Part(
            "UCF-101-midframes.zip",
            None,
            "ucf101",
            ("ucf101/UCF-101-midframes",),
            by_hand="https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O (CoOp's middle frames)",
        ),
        _split("split_zhou_UCF101.json", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y", "ucf101"),
    ),
)
_COCO_CAPTIONS = Source(
    "coco",
    "COCO 2017 captions (Lin et al. 2014, Chen et al. 2015)",
    "annotations CC BY 4.0; the images' rights are with their owners",
    "https://cocodataset.org",
    (
        Part(
            "train2017.zip",
            f"{_COCO}/zips/train2017.zip",
            "coco",
            ("coco/train2017",),
            "md5:cced6f7f71b7629ddf16f17bbcfab6b2",
            bytes=19_336_861_798,
        ),
        Part(
            "val2017.zip",
            f"{_COCO}/zips/val2017.zip",
            "coco",
            ("coco/val2017",),
            "md5:442b8da7639aecaf257c1dceb8ba8c80",
            bytes=815_585_330,
        ),
        Part(
            "annotations_trainval2017.zip",
            f"{_COCO}/annotations/annotations_trainval2017.zip",
            "coco",
            ("coco/annotations/captions_val2017.json",),
            "md5:f4bbac642086de4f52a3fdda2de5fa2c",
            bytes=252_907_541,
        ),
    ),
)
_ADE20K = Source(
    "ade20k",
    "ADE20K, scene parsing benchmark of 2016 (Zhou et al. 2017)",
    "images for research use, annotations BSD-3-Clause",
    "http://sceneparsing.csail.mit.edu",
    (
        Part(
            "ADEChallengeData2016.zip",
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            "",
            ("ADEChallengeData2016/images",),
            "md5:7328b3957e407ddae1d3cbf487f149ef",
        ),
    ),
)
_CUB = Source(
    "cub-200",
    "Caltech-UCSD Birds-200-2011 (Wah et al. 2011)",
    "research use",
    f"{_CALTECH}/65de6-vp158",
    (
        Part(
            "CUB_200_2011.tgz",
            f"{_CALTECH}/65de6-vp158/files/CUB_200_2011.tgz",
            "",
            ("CUB_200_2011/images",),
            "md5:97eceeb196236b17998738112f37df78",
            bytes=1_150_585_339,
        ),
    ),
)

SOURCES: dict[str, Source] = {
    source.kind: source
    for source in (
        *(_EUROSAT, _FLOWERS, _IMAGENET, _CALTECH101, _PETS, _CARS, _FOOD, _AIRCRAFT, _SUN, _DTD, _UCF),
        *(_COCO_CAPTIONS, _ADE20K, _CUB),
    )
}
"""Every published data set by its kind."""
