"""Which functions fit and restore which method: the two closed matches over all specifications."""

from __future__ import annotations

from typing import assert_never

from conceptbench.adaptation.adapter import Adapter
from conceptbench.adaptation.cocoop import fit_cocoop, restore_cocoop
from conceptbench.adaptation.coop import fit_coop, restore_coop
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.ivlp import fit_ivlp, restore_ivlp
from conceptbench.adaptation.linear_probe import fit_linear_probe, restore_linear_probe
from conceptbench.adaptation.lora.adapter import fit_clip_lora, restore_clip_lora
from conceptbench.adaptation.maple import fit_maple, restore_maple
from conceptbench.adaptation.promptsrc import fit_promptsrc, restore_promptsrc
from conceptbench.adaptation.specs import (
    ClipLoraSpec,
    CoCoOpSpec,
    CoOpSpec,
    IvlpSpec,
    LinearProbeSpec,
    MapleSpec,
    MethodSpec,
    PromptSrcSpec,
    TipAdapterFSpec,
    TipAdapterSpec,
    VptSpec,
    ZeroShotSpec,
)
from conceptbench.adaptation.tip_adapter import fit_tip_adapter, fit_tip_adapter_f, restore_tip_adapter
from conceptbench.adaptation.vpt import fit_vpt, restore_vpt
from conceptbench.adaptation.zero_shot import fit_zero_shot, restore_zero_shot


def fit(spec: MethodSpec, fitting: Fitting) -> Adapter:
    """The adapter that the method learns from a task."""
    match spec:
        case ZeroShotSpec():
            return fit_zero_shot(spec, fitting)
        case LinearProbeSpec():
            return fit_linear_probe(spec, fitting)
        case TipAdapterSpec():
            return fit_tip_adapter(spec, fitting)
        case TipAdapterFSpec():
            return fit_tip_adapter_f(spec, fitting)
        case CoOpSpec():
            return fit_coop(spec, fitting)
        case CoCoOpSpec():
            return fit_cocoop(spec, fitting)
        case VptSpec():
            return fit_vpt(spec, fitting)
        case IvlpSpec():
            return fit_ivlp(spec, fitting)
        case MapleSpec():
            return fit_maple(spec, fitting)
        case PromptSrcSpec():
            return fit_promptsrc(spec, fitting)
        case ClipLoraSpec():
            return fit_clip_lora(spec, fitting)
        case _:
            assert_never(spec)


def restore(spec: MethodSpec, stored: Stored) -> Adapter:
    """The adapter that was stored."""
    match spec:
        case ZeroShotSpec():
            return restore_zero_shot(spec, stored)
        case LinearProbeSpec():
            return restore_linear_probe(spec, stored)
        case TipAdapterSpec() | TipAdapterFSpec():
            return restore_tip_adapter(spec, stored)
        case CoOpSpec():
            return restore_coop(spec, stored)
        case CoCoOpSpec():
            return restore_cocoop(spec, stored)
        case VptSpec():
            return restore_vpt(spec, stored)
        case IvlpSpec():
            return restore_ivlp(spec, stored)
        case MapleSpec():
            return restore_maple(spec, stored)
        case PromptSrcSpec():
            return restore_promptsrc(spec, stored)
        case ClipLoraSpec():
            return restore_clip_lora(spec, stored)
        case _:
            assert_never(spec)
