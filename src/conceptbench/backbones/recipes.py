"""The recipes of the small backbones that ship with the project: architecture, pretraining data, schedule.

A recipe is a frozen value; ``spec_digest`` covers it together with everything else that defines the trained weights
(the pictures and captions it would see, and the training code), so that a shipped backbone is used only while nothing
that made it has changed.
"""

import ast
import inspect
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, Literal

from conceptbench.tables import digest

Kind = Literal["clip", "image", "random"]


@dataclass(frozen=True)
class Phase:
    """A stretch of pretraining: how many pictures, of what."""

    images: int
    n_objects: tuple[float, float, float]
    """probabilities of one, two and three objects a scene"""
    pair_share: float
    """share of a batch that consists of pairs differing in exactly one factor"""
    web_share: float
    """share of a batch that shows flowers and aerial pictures with loose captions, as web data contain a few"""


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a small backbone. Pictures are 64 x 64, patches 8 x 8, so 64 patch tokens and CLS."""

    kind: Kind
    seed: int = 0
    width: int = 128
    blocks: int = 6
    head_width: int = 32
    text_width: int = 128
    text_blocks: int = 3
    embed_dim: int = 128
    context_length: int = 48
    batch_size: int = 256
    learning_rate: float = 1.5e-3
    warmup_steps: int = 300
    weight_decay: float = 0.05
    full_caption_share: float = 0.3
    attribute_weight: float = 1.0
    """weight of the auxiliary attribute heads, which are dropped after training"""
    schedule_images: int = 0
    """pictures over which the learning rate falls to 1 %; training may stop earlier. 0: all pictures"""
    phases: tuple[Phase, ...] = ()

    @property
    def images(self) -> int:
        """Pictures seen in all phases."""
        return sum(phase.images for phase in self.phases)


RECIPES: dict[Kind, Recipe] = {
    "clip": Recipe(
        kind="clip",
        phases=(
            Phase(images=400_000, n_objects=(0.7, 0.2, 0.1), pair_share=0.5, web_share=0.0),
            Phase(images=368_000, n_objects=(0.4, 0.3, 0.3), pair_share=0.3, web_share=0.08),
        ),
        schedule_images=1_200_000,
    ),
    "image": Recipe(
        kind="image",
        phases=(Phase(images=150_000, n_objects=(0.4, 0.3, 0.3), pair_share=0.0, web_share=0.08),),
    ),
    "random": Recipe(kind="random"),
}


def model_config(recipe: Recipe, vocabulary_size: int) -> dict[str, Any]:
    """open_clip's model configuration of a recipe; without text training the text tower is as small as can be."""
    has_text = recipe.kind == "clip"
    text_width = recipe.text_width if has_text else recipe.head_width
    return {
        "embed_dim": recipe.embed_dim,
        "vision_cfg": {
            "image_size": 64,
            "patch_size": 8,
            "layers": recipe.blocks,
            "width": recipe.width,
            "head_width": recipe.head_width,
        },
        "text_cfg": {
            "context_length": recipe.context_length,
            "vocab_size": vocabulary_size,
            "layers": recipe.text_blocks if has_text else 1,
            "width": text_width,
            "heads": text_width // recipe.head_width,
        },
    }


def code_digest(*modules: ModuleType) -> str:
    """Digest of what modules do: their syntax trees without comments, docstrings, annotations and layout."""
    return digest([ast.dump(_Bare().visit(ast.parse(inspect.getsource(module)))) for module in modules])


class _Bare(ast.NodeTransformer):
    """Drops what does not run: docstrings and annotations."""

    def _strip(self, node: Any) -> Any:
        self.generic_visit(node)
        body = node.body
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]
        return node

    def visit_Module(self, node: ast.Module) -> Any:
        """Strip the docstring of a module."""
        return self._strip(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        """Strip the docstring of a class."""
        return self._strip(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        """Strip the docstring and the annotations of a function."""
        node.returns = None
        return self._strip(node)

    def visit_arg(self, node: ast.arg) -> Any:
        """Strip the annotation of an argument."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        """Turn an annotated assignment into a plain one, and a declaration without a value into its name."""
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value else ast.Expr(node.target)


def spec_digest(recipe: Recipe, parts: dict[str, str]) -> str:
    """Digest of a recipe together with the digests of the data and code that it runs on."""
    return digest({"recipe": asdict(recipe), **parts})
