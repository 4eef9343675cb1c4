# Helper functions of the rules: the typed configuration, parameter stamps, code files. Nothing here imports torch.
import atexit
import hashlib
import json
import sys
from functools import cache
from itertools import product
from math import ceil
from pathlib import Path

from conceptbench.adaptation import moves_images
from conceptbench.config import load_config, stage_spec
from conceptbench.config.datasets import is_published
from conceptbench.errors import ConceptBenchError
from conceptbench.run_lock import RunLock
from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)

try:
    CONFIG = load_config(config)
except ConceptBenchError as error:
    raise WorkflowError(str(error)) from None

R = f"results/{CONFIG.experiment}"
ADAPTED = CONFIG.adaptations.backbone
TASKS = list(CONFIG.adaptations.tasks)
METHODS = list(CONFIG.adaptations.methods)
TRAINED = [name for name in CONFIG.hooks if CONFIG.backbones[name].kind == "trained"]
PUBLISHED = [name for name, spec in CONFIG.datasets.items() if is_published(spec)]
PHOTOGRAPHS = [name for name, spec in CONFIG.datasets.items() if spec.kind not in ("scenes", "flora", "terra")]
FETCHED = [name for name in CONFIG.hooks if CONFIG.backbones[name].kind != "trained"]
BEFORE = [name for name, spec in CONFIG.adaptations.methods.items() if spec.method == "zero-shot"]
MOVING = [name for name, spec in CONFIG.adaptations.methods.items() if moves_images(spec.model_dump())]
"""Methods that change what the image tower computes; the others see the backbone's own activations."""
LEARNING = [name for name in METHODS if name not in BEFORE]
"""Everything but zero-shot: what can gain over it."""

TRUTH = CONFIG.measures.truth_on
TRUTH_TABLES = [
    *("truth_factors", "truth_patches", "truth_permutation", "truth_matching", "truth_counterfactual"),
    *("truth_summary", "truth_comparison"),
]
RUNNING = [
    *("seeds", "tables"),
    *(f"backbones/{name}" for name in ("backbone", "cut", "load", "folder", "hub_tokenizer", "preprocess")),
]
"""Code that runs a backbone."""
MEASURING = ["inference", "seeds", "tables", "measures/resampling", "measures/sparse", "measures/stages/encoded"]
TRUTH_CODE = [
    *(f"measures/{name}" for name in ("truth", "ranking", "comparison", "patches", "matching", "counterfactual")),
    *("measures/stages/truth", "measures/nulls"),
    *("data/truth", "data/pairs", *MEASURING),
]
"""Parts of the experiment that the configuration may leave out: the rendered truth, and adaptation with its measures."""
KINDS = CONFIG.kinds.dataset if CONFIG.kinds else None
KINDS_OF = list(CONFIG.kinds.backbones) if CONFIG.kinds else []
KINDS_CODE = [
    *("measures/kinds", "measures/kinds_text", "measures/stages/kinds", "measures/ranking", "measures/truth"),
    *("data/truth", *MEASURING),
]
"""Named kinds: the data set, the backbones whose outputs are compared, and the code of the measure."""
JUDGED = [name for name in CONFIG.hooks if CONFIG.embedding_of(name)]
"""Backbones whose dictionaries another backbone can judge."""
JUDGES = list(dict.fromkeys(CONFIG.embedding_of(name) for name in JUDGED))
REPEATED = len(CONFIG.seeds) > 1 or bool(CONFIG.dictionaries.halves)
"""Whether any dictionary is learnt more than once."""
DICTIONARY_TABLES = [
    "dictionaries",
    *(["truth_summary"] if TRUTH else []),
    *(["stability"] if REPEATED else []),
    *(["monosemanticity_summary"] if JUDGED else []),
]
"""What the leaderboard ranks dictionaries by."""
METRIC_TABLES = [
    "dictionaries",
    *(["stability"] if REPEATED else []),
    *(["monosemanticity_summary"] if JUDGED else []),
    "leaderboard",
    *(["backbones", "kinds_text", "truth_summary", "truth_comparison"] if TRUTH else []),
    *(["kinds"] if KINDS else []),
    *(["accuracy", "accuracy_difference"] if TASKS else []),
    *(["overlap"] if TASKS and MOVING else []),
    *(["decomposition"] if TASKS and LEARNING and BEFORE else []),
    *(["recovery"] if CONFIG.synthetic.worlds else []),
]


NAMED = []
"""Stamps of this configuration by name; the record of a job has the name of its stamp."""
RUN_LOCK = RunLock(Path(R), ROOT)
"""Held while jobs run: a run in progress keeps its results, and its parameters, to itself."""
EXPECTED = config.setdefault("stamps", {})
"""Digests of the stamps of this configuration by name. Jobs compare them with what lies there (scripts/_job.py)."""


def write_stamp(path, text):
    """Write a stamp whose content differs, unless other results are being computed from what is there.

    A job of a cluster reads the rules too. It leaves stamps to the process that planned it.
    """
    if not workflow.is_main_process or (path.exists() and path.read_text() == text):
        return
    try:
        RUN_LOCK.require_free(f"have other parameters in {path}, and are being computed")
    except ConceptBenchError as error:
        raise WorkflowError(str(error)) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def stamp(stage, **names):
    """The parameter stamp of a rule: written when its content differs, so that only a real change is newer."""
    path = Path(R) / "stamps" / (".".join([stage, *names.values()]) + ".json")
    NAMED.append(path.stem)
    text = json.dumps(stage_spec(CONFIG, stage, **names), indent=2, sort_keys=True) + "\n"
    EXPECTED[path.stem] = hashlib.sha256(text.encode()).hexdigest()
    write_stamp(path, text)
    return str(path)


def stamps(stage, **names):
    """The parameter stamps of a rule with wildcards, as a path with these wildcards; every stamp is written now.

    Written later, while the DAG is built, a stamp could be missing in what Snakemake has listed of the folder before.
    """
    for values in product(*names.values()):
        stamp(stage, **dict(zip(names, values)))
    wildcards = "".join(f".{{{name}}}" for name in names)
    return f"{R}/stamps/{stage}{wildcards}.json"


LOCKS = "locks"
"""Folder of the commits and digests that published weights are pinned to, kept with the project."""


def pins(backbones):
    """What fetched backbones are pinned to, as a path with a wildcard: written anew only when a lock was changed.

    The first fetch notes its own lock, which is no change: the card of the backbone repeats it.
    """
    for name in backbones:
        pin, card = Path(R) / "stamps" / f"pin.{name}.json", Path(R) / "backbones" / name / "card.json"
        known = json.loads(card.read_text()).get("lock") or {} if card.exists() else {}
        path = Path(LOCKS) / ("--".join(Path(known.get("repository", "")).parts) + ".json")
        lock = json.loads(path.read_text()) if path.exists() else known
        old = json.loads(pin.read_text()) if pin.exists() else None
        if old is None or lock not in (old, known):
            write_stamp(pin, json.dumps(lock, indent=2, sort_keys=True) + "\n")
    return f"{R}/stamps/pin.{{backbone}}.json"


def from_here(path):
    """A path of the checkout relative to the working folder where it is below it, so that a copy has the same inputs."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def code(*packages):
    """The files of the library that a rule's result depends on, as inputs: compared by content, not by time."""
    found = []
    for package in packages:
        path = ROOT / "src" / "conceptbench" / package
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [from_here(path) for path in found]


def shipped_files(wildcards):
    """The files of the shipped backbone of that name, if there is one."""
    folder = ROOT / "src" / "conceptbench" / "backbones" / "shipped" / wildcards.backbone
    return [from_here(path) for path in sorted(folder.glob("*"))]


def local_files(wildcards):
    """Configuration and weights of a backbone that is a local folder."""
    spec = CONFIG.backbones[wildcards.backbone]
    if spec.kind != "local":
        return []
    return [str(Path(spec.path) / name) for name in ("open_clip_config.json", "open_clip_model.safetensors")]


def fetched_source(dataset):
    """Where the files of a published data set came from; nothing for others."""
    return [f"{R}/datasets/{dataset}/source.json"] if dataset in PUBLISHED else []


def tables(*names):
    """Outputs of a rule by the names of their tables."""
    return {name: f"{R}/tables/{name}.parquet" for name in names}


def codes_of(dataset):
    """Manifests of the codes of one data set, for every backbone that it was recorded with."""
    return [f"{R}/codes/{name}/{dataset}/manifest.json" for name in CONFIG.hooks if dataset in CONFIG.recorded(name)]


def per_task(template, methods):
    """A path for each task and method."""
    return [template.format(task=task, method=method) for task in TASKS for method in methods]


def chosen(section):
    """The adaptations that a measure takes: those it names, or all that change the image tower."""
    return MOVING if section is None or section.methods is None else list(section.methods)


@cache
def planned_memory():
    """MiB of the largest job of each rule by the plan; empty in a job of its own, and where sizes are not known yet."""
    from conceptbench.planning import load_rates, peak_memory

    try:
        return peak_memory(CONFIG, load_rates(ROOT / "reference" / "rates.json")) if workflow.is_main_process else {}
    except ConceptBenchError:
        return {}


def memory(name, mib):
    """MiB to ask for, `mib` or what the plan of this experiment says where that is more, times the attempt."""
    return lambda wildcards, attempt: attempt * max(mib, ceil(planned_memory().get(name, 0)))


def minutes(count):
    """Minutes to ask for, times the attempt."""
    return lambda wildcards, attempt: attempt * count


def require_space():
    """Refuse to start when the results will not fit on the disk; where sizes are not known yet, say so and go on."""
    from conceptbench.planning import Machine, load_rates, make_plan, require_disk

    try:
        plan = make_plan(CONFIG, load_rates(ROOT / "reference" / "rates.json"), Machine(cores=1))
    except ConceptBenchError as error:
        print(f"The space on the disk is not checked: {error}", file=sys.stderr)
        return
    try:
        require_disk(plan, Path(R))
    except ConceptBenchError as error:
        raise WorkflowError(str(error)) from None


def take_lock():
    """Keep other runs from these results until this process ends, however it ends."""
    try:
        RUN_LOCK.take()
    except ConceptBenchError as error:
        raise WorkflowError(str(error)) from None
    atexit.register(RUN_LOCK.release)


def on_concepts(methods, relearnt):
    """What the measures of concepts read of some adaptations besides zero-shot; a dictionary was relearnt on some."""
    return {
        "backbone": f"{R}/backbones/{ADAPTED}/card.json",
        "dictionaries": f"{R}/dictionaries/{ADAPTED}/manifest.json",
        "adapters": per_task(f"{R}/adapters/{ADAPTED}/{{task}}/{{method}}/manifest.json", [*BEFORE[:1], *methods]),
        "datasets": [f"{R}/datasets/{task}/card.json" for task in TASKS],
        "adapted": per_task(f"{R}/adapted/{ADAPTED}/{{task}}/{{method}}/dictionary.json", relearnt),
    }


def figure(name, category, subcategory=""):
    """The files of a figure; the picture goes into the report."""
    picture = report(
        f"{R}/figures/{name}.png",
        caption=f"../report/{name}.rst",
        category=category,
        labels={"figure": name.replace("_", " ")},
    )
    return {"png": picture, "csv": f"{R}/figures/{name}.csv"}
