"""Bring the pictures and numbers of finished experiments into the documents: `make docs`.

The default run gives docs/results.md, docs/images/*.png and the drawing of the DAG in README.md; the dictionary study
and the remapping study, on the testbed and on photographs, each give their page and docs/images/<study>/*.png, and the
latter two their claims, docs/claims.md and docs/claims-photographs.md. Nothing in them is typed by hand; a study that
has not run here keeps its page.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pages import dictionaries_page, photographs_page, remapping_page, results_page
from PIL import Image

from conceptbench.config import load_config
from conceptbench.errors import ConceptBenchError

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
DAG = re.compile(r"(<!-- dag: .*? -->\n).*?(<!-- /dag -->)", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page that an experiment is published as."""

    file: str
    overlay: str | None
    """Configuration in examples/; None is the default run."""
    text: Callable[[Path, str], list[str]]
    """Paragraphs, from the folder of results and that of the pictures."""
    figures: tuple[str, ...]

    @property
    def results(self) -> Path:
        """Where the experiment leaves its results."""
        overlays = [] if self.overlay is None else [ROOT / "examples" / self.overlay]
        return ROOT / "results" / load_config(ROOT / "config.yaml", *overlays).experiment

    @property
    def images(self) -> str:
        """Folder of its pictures, seen from docs/."""
        return "images" if self.overlay is None else f"images/{Path(self.overlay).stem}"


RUN = Page(
    *("results.md", None, results_page),
    (
        *("factor_recovery", "decomposition", "accuracy", "exemplars", "overlap", "zero_shot", "named_kinds", "pareto"),
        *("leaderboard", "stability", "monosemanticity", "runtime"),
    ),
)
DICTIONARIES = Page(
    *("dictionary-study.md", "dictionaries.yaml", dictionaries_page),
    ("pareto", "leaderboard", "stability", "densities", "recovery"),
)
ADAPTED = ("accuracy", "shares", "decomposition", "association", "overlap", "remapping_scatter", "masking", "plants")
REMAPPING = Page(
    *("remapping-study.md", "remapping.yaml", remapping_page),
    ADAPTED,
)
PHOTOGRAPHS = Page(
    *("photographs.md", "local.yaml", photographs_page),
    tuple(name for name in ADAPTED if name != "association"),  # it shows images of data sets that are not ours
)
CLAIMS = {REMAPPING: "claims.md", PHOTOGRAPHS: "claims-photographs.md"}
"""Where the claims page of an experiment goes."""


def main() -> None:
    """Publish every experiment that has finished here."""
    finished = [
        page for page in (RUN, DICTIONARIES, REMAPPING, PHOTOGRAPHS) if (page.results / "metrics.json").is_file()
    ]
    if not finished:
        raise ConceptBenchError(f"{ROOT / 'results'} holds no finished run; run `make run` first.")
    for page in finished:
        publish(page)
        print(f"Wrote docs/{page.file} from {page.results}.")
    for page, copy in CLAIMS.items():
        if page in finished:
            shutil.copyfile(page.results / "claims.md", DOCS / copy)
    if RUN in finished:
        readme = ROOT / "README.md"
        drawn = DAG.sub(lambda found: found[1] + rule_graph() + found[2], readme.read_text(encoding="utf-8"))
        readme.write_text(drawn, encoding="utf-8")


def publish(page: Page) -> None:
    """Copy the figures of an experiment and write its page."""
    images = DOCS / page.images
    images.mkdir(parents=True, exist_ok=True)
    for name in page.figures:
        shrink(page.results / "figures" / f"{name}.png", images / f"{name}.png")
    (DOCS / page.file).write_text("\n\n".join(page.text(page.results, page.images)) + "\n", encoding="utf-8")


def shrink(picture: Path, copy: Path) -> None:
    """Copy a picture with at most 256 colours where that is smaller: git keeps every version of it."""
    small = BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    content = picture.read_bytes()
    copy.write_bytes(min(content, small.getvalue(), key=len))


def rule_graph() -> str:
    """The rules and what flows between them as a Mermaid drawing; all figures are one node, `all` is left out."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", text))
    short = {node: "draw_*" if name.startswith("draw_") else name for node, name in names.items()}
    edges = {(short[a], short[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", text)}
    shown = sorted((a, b) for a, b in edges if b != "all" and a != b)
    used = sorted({name for edge in shown for name in edge})
    ids = {name: f"r{number}" for number, name in enumerate(used)}
    lines = [f'    {ids[name]}["{name}"]' for name in used] + [f"    {ids[a]} --> {ids[b]}" for a, b in shown]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```", ""])


if __name__ == "__main__":
    try:
        main()
    except ConceptBenchError as error:
        sys.exit(f"Error: {error}")
