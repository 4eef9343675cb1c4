"""Jobs from images to codes and adapters: amounts that follow from images, tokens, widths and steps."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from conceptbench.config.backbones import Named, OpenClip, Trained
from conceptbench.config.datasets import is_published
from conceptbench.planning.jobs import VALUE_BYTES, Folder, Job, Learnt, Study, Unit

BATCH_IMAGES: Final = 256
ENCODED_IMAGES: Final = 512
"""Images whose tokens are encoded at once (scripts/_encoding.py)."""
HELD_OUT_IMAGES: Final = 512
BUFFER_TOKENS: Final = 2**20
FLOAT: Final = 4
TRAINING_COPIES: Final = 6.5
"""Times its own size that a dictionary in training takes: two matrices, two moments of each, a rounded encoder."""
DIVIDED: Final = ("topk", "relu-l1")
"""Methods whose batches several GPUs divide."""
VALIDATION_SHOTS: Final = 4
"""Validation images of a class, at most (CoOp's protocol)."""
ADAPTER_BYTES: Final = 400_000
MANIFEST_BYTES: Final = 100
"""Bytes of an image in a data set's manifest."""
ROW_MEMORY: Final = 1000
"""Bytes of the same in memory, in a job that describes images or reads them."""
CHECKERS: Final = 4
"""Threads that check photographs."""
GIB: Final = 2**30


def pipeline_jobs(study: Study) -> Iterator[Job]:
    """Yield the jobs that make data, backbones, activations, dictionaries, codes and adapters."""
    for name in study.config.used_datasets():
        yield from _dataset(study, name)
    for name in study.config.hooks:
        yield _backbone(study, name)
    for name in study.config.hooks:
        for dataset in study.config.recorded(name):
            yield from _recording(study, name, dataset)
        yield _learning(study, name)
        for dataset in study.config.recorded(name):
            yield _encoding(study, name, dataset)
    for task in study.tasks:
        for method in study.config.adaptations.methods:
            yield _adapting(study, task, method)
        for method in study.moving:
            yield from _adapted(study, task, method)


def _dataset(study: Study, name: str) -> Iterator[Job]:
    images = study.images[name]
    published = is_published(study.config.datasets[name])
    if published:
        yield Job("fetch_dataset", name)
    unit: Unit = "file" if images.files else "image"
    needs = (f"fetch_dataset/{name}",) if published else ()
    leaves: dict[Folder, float] = {"data sets": float(images.all * MANIFEST_BYTES)}
    threads, rows = CHECKERS if images.files else 1, float(ROW_MEMORY * images.all)
    amounts: dict[Unit, float] = {unit: images.all}
    yield Job("prepare_dataset", name, needs, amounts, threads, arrays=rows, leaves=leaves, images=images.all)


def _backbone(study: Study, name: str) -> Job:
    spec, tower = study.config.backbones[name], study.towers[name]
    leaves: dict[Folder, float] = {"backbones": float(tower.weights * tower.weight_bytes)}
    if isinstance(spec, Trained):
        pictures = float(spec.images or 0)
        amounts: dict[Unit, float] = {"job": 1.0, "picture": pictures}
        return Job("train_backbone", name, amounts=amounts, leaves=leaves, images=pictures)
    fetched = 2.0 if isinstance(spec, Named | OpenClip) else 1.0  # what was downloaded stays in the hub's cache
    leaves = {"backbones": tower.weights * FLOAT * fetched}
    return Job("fetch_backbone", name, leaves=leaves, arrays=2 * FLOAT * tower.weights)


def recording_arrays(study: Study, backbone: str, blocks: int) -> float:
    """Bytes of a recording: weights, three batches of pixels, the tokens inside a block and those that are kept."""
    tower = study.towers[backbone]
    pixels = 3 * 3 * tower.image_size**2
    tokens = tower.image.tokens * tower.image.width * (10 + 3 * blocks)
    return FLOAT * (tower.weights + BATCH_IMAGES * (pixels + tokens))


def _recording(study: Study, backbone: str, dataset: str) -> Iterator[Job]:
    tower, images = study.towers[backbone], study.images[dataset]
    blocks, parts = study.config.hooks[backbone], study.config.record.jobs
    count = images.measured if study.config.dictionaries.live else images.all
    stored = count * tower.image.tokens * tower.image.width * VALUE_BYTES * len(blocks)
    share = count / parts
    amounts: dict[Unit, float] = {"job": 1, "pass": share, "forward_gflop": share * tower.image_gflop(blocks[-1])}
    if images.files:
        amounts["file"] = share
    needs = (f"prepare_dataset/{dataset}", backbone_job(study, backbone))
    name, arrays = f"{backbone}.{dataset}", recording_arrays(study, backbone, len(blocks)) + ROW_MEMORY * images.all
    leaves: dict[Folder, float] = {"activations": float(stored)}
    tokens = share * tower.image.tokens * len(blocks)
    if parts == 1:
        yield Job("record_activations", name, needs, amounts, 2, True, 30, arrays, leaves, share, tokens)
        return
    for part in range(1, parts + 1):
        yield Job("record_part", f"{name}.{part}of{parts}", needs, amounts, 2, True, 30, arrays, {}, share, tokens)
    each = tuple(f"record_part/{name}.{part}of{parts}" for part in range(1, parts + 1))
    yield Job("gather_activations", name, each, {"stored_gib": stored / GIB}, priority=30, leaves=leaves)


def backbone_job(study: Study, backbone: str) -> str:
    """The job that provides a backbone."""
    made = isinstance(study.config.backbones[backbone], Trained)
    return f"{'train' if made else 'fetch'}_backbone/{backbone}"


def recorded(study: Study, backbone: str, dataset: str) -> str:
    """The job that completes the activations of a backbone on a data set."""
    rule = "record_activations" if study.config.record.jobs == 1 else "gather_activations"
    return f"{rule}/{backbone}.{dataset}"


def learning_amounts(learnt: list[Learnt], d: int, tokens: float) -> dict[Unit, float]:
    """Work of learning dictionaries on so many tokens, all seeds together."""
    passes = [(one, one.seeds * one.epochs * tokens) for one in learnt if one.trained]
    gflop = sum(seen * 2 * d * one.latents for one, seen in passes) / 1e9
    return {"job": 1, "token": sum(seen for _, seen in passes), "learning_gflop": gflop}


def divided_share(learnt: list[Learnt]) -> float:
    """Part of the learning operations that several GPUs divide (`dictionaries.divided`)."""
    operations = [(one, one.seeds * one.epochs * one.latents) for one in learnt if one.trained]
    divided = sum(count for one, count in operations if one.method in DIVIDED)
    return divided / sum(count for _, count in operations) if operations else 0.0


def learning_arrays(learnt: list[Learnt], d: int, tokens: float, held_out: float) -> float:
    """Bytes of learning: the buffer of shuffled tokens, held-out tokens, and every dictionary at once."""
    matrices = sum(one.seeds * one.latents * d for one in learnt if one.trained)
    return min(tokens, BUFFER_TOKENS) * d * VALUE_BYTES + FLOAT * (held_out * d + TRAINING_COPIES * matrices)


def dictionary_bytes(learnt: list[Learnt], d: int) -> float:
    """Bytes of stored dictionaries: encoder and atoms, all seeds."""
    return FLOAT * sum(one.seeds * 2 * one.latents * d for one in learnt)


def training_images(study: Study) -> float:
    """Images that dictionaries learn from."""
    available = study.images[study.config.dictionaries.train_on].splits["train"]
    return min(study.config.dictionaries.images or available, available)


def _learning(study: Study, backbone: str) -> Job:
    tower, train_on = study.towers[backbone], study.config.dictionaries.train_on
    d, tokens, blocks = tower.image.width, tower.image.tokens * training_images(study), study.blocks(backbone)
    learnt = study.dictionaries(backbone)
    halved = [one for one in learnt if one.name in study.config.dictionaries.halves]
    twice = [*learnt, *halved]  # two halves of the tokens make one pass more
    amounts = learning_amounts(twice, d, tokens * blocks)
    needs: tuple[str, ...] = (f"prepare_dataset/{train_on}", backbone_job(study, backbone))
    if study.config.dictionaries.live:
        passes = training_images(study) * max(one.epochs for one in learnt)
        amounts["pass"] = passes * blocks
        amounts["forward_gflop"] = passes * sum(tower.image_gflop(block) for block in study.config.hooks[backbone])
    else:
        needs = (recorded(study, backbone, train_on), *needs)
    gpus = study.config.dictionaries.gpus  # with a process on each, which has tokens and dictionaries of its own
    arrays = gpus * learning_arrays(learnt, d, tokens, HELD_OUT_IMAGES * tower.image.tokens)
    leaves: dict[Folder, float] = {
        "dictionaries": blocks * (dictionary_bytes(learnt, d) + 2 * dictionary_bytes(halved, d))
    }
    images, seen = amounts.get("pass", 0.0), amounts["token"]
    return Job(
        "learn_dictionaries", backbone, needs, amounts, 2, True, 20, arrays, leaves, images, seen, gpus,
        divided_share(twice),
    )  # fmt: skip


def _encoding(study: Study, backbone: str, dataset: str) -> Job:
    tower, images = study.towers[backbone], study.images[dataset]
    tokens, blocks = images.measured * tower.image.tokens, study.blocks(backbone)
    learnt = study.dictionaries(backbone)
    firings = [one.firings(study.penalised_l0) * tokens for one in learnt]
    gflop = sum(one.seeds * 2 * tower.image.width * one.latents for one in learnt) * tokens * blocks / 1e9
    stored = sum(one.seeds * study.token_bytes(one) for one in learnt) * tokens * blocks
    amounts: dict[Unit, float] = {
        "encoding_gflop": gflop,
        "firing": blocks * sum(one.seeds * count for one, count in zip(learnt, firings, strict=True)),
    }
    needs = (recorded(study, backbone, dataset), f"learn_dictionaries/{backbone}", backbone_job(study, backbone))
    arrays = encoding_arrays(study, backbone, learnt) + ROW_MEMORY * images.all
    name, seen = f"{backbone}.{dataset}", tokens * blocks * sum(one.seeds for one in learnt)
    return Job("encode_codes", name, needs, amounts, 2, True, 10, arrays, {"codes": stored}, 0.0, seen)


def encoding_arrays(study: Study, backbone: str, learnt: list[Learnt]) -> float:
    """Bytes of encoding: tokens as stored and as floats, their codes twice, and three matrices of a dictionary."""
    tower = study.towers[backbone]
    tokens = ENCODED_IMAGES * tower.image.tokens
    code = 2 * max(study.token_bytes(one) for one in learnt)
    matrices = 3 * FLOAT * max(one.latents for one in learnt) * tower.image.width
    return tokens * (tower.image.width * (VALUE_BYTES + FLOAT) + code) + matrices


def adapting_amounts(study: Study, task: str, method: str) -> dict[Unit, float]:
    """Work of adapting to a task and scoring it, for all seeds.

    Where the image tower stays as it is, the features of the test images are computed once for all seeds. A step of
    learning costs three passes (one forward, two backward) through each tower that takes part in it.
    """
    chosen, images, tower = study.config.adaptations, study.images[task], study.towers[study.adapted]
    options = chosen.methods[method].model_dump()
    classes = images.trained_classes(chosen.setting)
    shots = chosen.shots * classes
    if method in study.moving:
        scored = study.seeds * (images.splits["test"] + shots)
    else:
        scored = images.splits["test"] + study.seeds * _shots_read(options, chosen.shots) * classes
    amounts: dict[Unit, float] = {"job": 1, "forward_gflop": scored * tower.image_gflop()}
    if "iterations_per_shot" in options:
        steps = study.seeds * options["iterations_per_shot"] * chosen.shots
        seen = steps * options["batch_size"]
    elif "epochs" in options:
        seen = study.seeds * options["epochs"] * shots
        steps = seen / options["batch_size"]
    else:
        return amounts
    image = tower.image_gflop() if method in study.moving else 0.0
    texts = classes * tower.text_gflop()
    if _texts_stay(options):
        amounts["forward_gflop"] += study.seeds * texts
        texts = 0.0
    elif options["method"] == "cocoop":
        texts *= options["batch_size"]
    amounts["training_gflop"] = 3 * (seen * image + steps * texts)
    amounts["step"] = steps
    return amounts


def _shots_read(options: Mapping[str, Any], shots: int) -> int:
    """Passes for the shots of a class where features are computed once: each view of them, and those to choose by."""
    match options["method"]:
        case "zero-shot":
            return 0
        case "linear-probe" | "tip-adapter" | "tip-adapter-f":
            return shots * int(options.get("views", 1)) + min(shots, VALIDATION_SHOTS)
        case _:
            return shots


def _texts_stay(options: Mapping[str, Any]) -> bool:
    """Whether the text side of a method with steps learns nothing, so that its class vectors are computed once."""
    return options["method"] in ("vpt-deep", "tip-adapter-f") or options.get("towers") == "image"


def _adapting(study: Study, task: str, method: str) -> Job:
    amounts = adapting_amounts(study, task, method)
    needs = (f"prepare_dataset/{task}", backbone_job(study, study.adapted))
    arrays = recording_arrays(study, study.adapted, 1)
    leaves: dict[Folder, float] = {"adapters": float(study.seeds * ADAPTER_BYTES)}
    training = amounts.get("step", 0.0) * study.config.adaptations.methods[method].model_dump().get("batch_size", 0)
    tower = study.towers[study.adapted]
    images = amounts["forward_gflop"] / tower.image_gflop() + (training if method in study.moving else 0.0)
    return Job("adapt", f"{task}.{method}", needs, amounts, gpu=True, arrays=arrays, leaves=leaves, images=images)


def _adapted(study: Study, task: str, method: str) -> Iterator[Job]:
    tower, images, followed = study.towers[study.adapted], study.images[task], study.followed()
    name, scored = f"{task}.{method}", images.splits["test"] * study.seeds
    tokens = scored * tower.image.tokens
    amounts: dict[Unit, float] = {"job": 1, "forward_gflop": scored * tower.image_gflop(study.config.measures.block)}
    leaves: dict[Folder, float] = {"adapted": float(tokens * tower.image.width * VALUE_BYTES)}
    arrays = recording_arrays(study, study.adapted, 1)
    needs = (f"adapt/{name}", backbone_job(study, study.adapted))
    yield Job("record_adapted", name, needs, amounts, 2, True, 0, arrays, leaves, scored, tokens)
    code = study.token_bytes(followed) * tokens
    encoding: dict[Unit, float] = {
        "encoding_gflop": tokens * 2 * tower.image.width * followed.latents / 1e9,
        "firing": followed.firings(study.penalised_l0) * tokens,
    }
    needs = (f"record_adapted/{name}", f"learn_dictionaries/{study.adapted}")
    arrays = encoding_arrays(study, study.adapted, [followed])
    yield Job("encode_adapted", name, needs, encoding, 2, True, 0, arrays, {"adapted": code}, 0.0, tokens)
