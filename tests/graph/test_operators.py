"""The table of operands: every operator of ONNX and of ONNX Runtime is judged, under its own names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from epsinas_onnx.graph.operators import COMPILED, OPERATORS, Part, Role

PACKABLE = ("float", "double", "int8", "int4", "int2", "int16")


def schemas() -> Iterator[tuple[tuple[str, str], int, list[tuple[str, bool]]]]:
    """Yield every operator with its version and its operands: their names, and whether they may hold weights."""
    for schema in onnx.defs.get_all_schemas_with_history():
        operands = [(one.name, may_hold_weights(one.types)) for one in schema.inputs]
        yield (schema.domain, schema.name), schema.since_version, operands
    for schema in getattr(runtime, "get_all_operator_schema", list)():
        types = {kind.type_param_str: kind.allowed_type_strs for kind in schema.type_constraints}
        operands = [(one.name, may_hold_weights(types.get(one.typeStr, [one.typeStr]))) for one in schema.inputs]
        yield (schema.domain, schema.name), schema.since_version, operands


def may_hold_weights(types: Any) -> bool:
    return any(word in kind for kind in types for word in PACKABLE)


def test_every_operand_that_may_hold_weights_is_judged() -> None:
    unjudged = [
        f"{domain or 'ai.onnx'}::{name}-{version} input {slot} ({operand})"
        for (domain, name), version, operands in schemas()
        for slot, (operand, packable) in enumerate(operands)
        if packable and (domain, name) not in COMPILED
        if (domain, name) not in OPERATORS or OPERATORS[domain, name].operand(slot) is None
    ]
    assert unjudged == [], "say in graph/operands.py what these are"


def test_operands_have_the_names_of_the_newest_schema() -> None:
    newest = {key: operands for key, version, operands in sorted(schemas(), key=lambda found: found[1])}
    differ = [
        (key, [operand.name for operand in operator.operands], [name for name, _ in newest[key]])
        for key, operator in OPERATORS.items()
        if key in newest and operator.operands[0].name
        and any(ours.name != name for ours, (name, _) in zip(operator.operands, newest[key], strict=False))
    ]  # fmt: skip
    assert differ == []


def test_scales_and_zero_points_say_what_they_belong_to() -> None:
    for (domain, name), operator in OPERATORS.items():
        for operand in operator.operands:
            if operand.what in (Part.SCALE, Part.ZERO):
                assert operand.of is not None, (domain, name)
                owner = operator.operands[operand.of]
                assert owner.what is Part.PACKED or name == "DequantizeLinear", (domain, name, operand.name)


@pytest.mark.parametrize(
    ("key", "roles"),
    [
        (("", "LSTM"), {1: Role.WEIGHT, 2: Role.WEIGHT, 3: Role.BIAS, 7: Role.WEIGHT}),
        (("", "Einsum"), dict.fromkeys(range(8), Role.WEIGHT)),
        (("com.microsoft", "MatMulNBits"), {1: Part.PACKED, 2: Part.SCALE, 3: Part.ZERO, 5: Role.BIAS}),
        (("com.microsoft", "EmbedLayerNormalization"), {2: Role.EMBEDDING, 5: Role.WEIGHT, 6: Role.BIAS}),
    ],
)  # fmt: skip
def test_the_table_reads_as_it_is_written(key: tuple[str, str], roles: dict[int, Any]) -> None:
    assert {slot: OPERATORS[key].operand(slot).what for slot in roles} == roles  # type: ignore[union-attr]
