"""Rules about what an exporter did to the network: normalisations folded away, a fixed batch, training mode."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from epsinas_onnx._util.text import first_names
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.check.model import ModelUnderCheck
from epsinas_onnx.check.rule import Options, Problem, Rule
from epsinas_onnx.graph.analysis.shapes import fixed_batch_size
from epsinas_onnx.graph.passes.rebatch import fixed_batch
from epsinas_onnx.graph.tensor_summary import read
from epsinas_onnx.graph.traversal import RANDOM, all_graphs

_GRADIENTS = ("ai.onnx.preview.training", "ai.onnx.training")
_LOSSES = frozenset({"SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"})


def _folded(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    layers = model.restored.layers
    if layers:
        what = "a BatchNormalization was" if len(layers) == 1 else f"{len(layers)} BatchNormalizations were"
        yield Problem(
            f"{what} folded into the layers in front: {first_names([repr(name) for name in layers])}", layers[0]
        )


def _maybe_folded(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    doubts = model.restored.doubts
    if doubts:
        names = [repr(name) for name, _ in doubts]
        yield Problem(f"{len(doubts)} convolutions {doubts[0][1]}: {first_names(names)}", doubts[0][0])


def _fixed(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    specs = model.planned.specs
    size = fixed_batch_size(specs) or (1 if fixed_batch(specs) else None)
    if size is not None:
        yield Problem(f"the batch is fixed to {size}")


def _training(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    if model.proto.training_info:
        yield Problem("it holds training information: gradients and the states of an optimiser")
    for graph in all_graphs(model.loaded.model.graph):
        for node in graph:
            if (why := _trains(node)) is not None:
                yield Problem(f"node {str(node.name)!r} ({node.op_type}) {why}", str(node.name))


def _trains(node: ir.Node) -> str | None:
    """Return what a node does that only training needs, None where there is nothing."""
    if node.domain in _GRADIENTS:
        return "computes gradients, or changes weights by them"
    if node.domain != "":
        return "computes a gradient" if node.domain == "com.microsoft" and node.op_type.endswith("Grad") else None
    if node.op_type in RANDOM:
        return "draws random numbers, as dropout does that an exporter wrote out"
    if node.op_type in _LOSSES:
        return "computes a loss"
    if node.op_type == "Dropout" and len(node.inputs) > 2 and _is_true(node.inputs[2]):
        return "drops entries at random"
    if node.op_type == "BatchNormalization" and _normalises_by_minibatch(node):
        return "normalises by the statistics of the minibatch, and updates the running ones"
    return None


def _is_true(value: ir.Value | None) -> bool:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    array = None if tensor is None else read(tensor)
    return array is not None and bool(np.all(array))


def _normalises_by_minibatch(node: ir.Node) -> bool:
    """Whether a BatchNormalization is in training mode: by its attribute, or before operator set 14 by its outputs."""
    return node.attributes.get_int("training_mode", 0) == 1 or sum(bool(one.uses()) for one in node.outputs) > 1


EXPORTED = (
    Rule(
        "folded-batchnorm",
        Severity.WARNING,
        "BatchNormalization was folded into the layers in front of it.",
        "Without its normalisations a network's signal underflows or overflows under constant weights; scoring puts "
        "them back, but their epsilon is a guess, and the file can no longer be fine-tuned.",
        "Export without the optimisation that folds: epsinas-onnx export, or torch.onnx.export(..., optimize=False).",
        "Ignore it by path for models that are deployed and never fine-tuned or compared.",
        _folded,
    ),
    Rule(
        "maybe-folded-batchnorm",
        Severity.NOTE,
        "BatchNormalization may have been folded away: the graph looks the same with and without it.",
        "If it was, the score is not that of the architecture, since nothing is put back where there is doubt.",
        "Score with --restore-batchnorm all if the network has BatchNormalization; ignore this rule if it has none.",
        "Ignore it by path for networks without normalisation, such as VGG or SqueezeNet.",
        _maybe_folded,
    ),
    Rule(
        "fixed-batch",
        Severity.WARNING,
        "The file fixes how many samples go through at once.",
        "The score compares the samples of a minibatch; a fixed batch has to be loosened by rewriting the graph, or "
        "run sample by sample.",
        "Export with a free batch: dynamic_shapes in torch.onnx.export, None as the first size in Keras.",
        "Ignore it by path where the device takes one sample at a time.",
        _fixed,
    ),
    Rule(
        "training-mode",
        Severity.WARNING,
        "Operators are left that only training needs: dropout, losses, gradients, statistics of the minibatch.",
        "Dropout makes outputs random, so that two runs differ by more than the weights; losses and gradients are no "
        "part of the architecture.",
        "Export in evaluation mode (model.eval()); ignore this rule for networks whose normalisations have no running "
        "statistics.",
        "Ignore it by path and node for normalisations without running statistics, and for networks that draw numbers.",
        _training,
    ),
)
