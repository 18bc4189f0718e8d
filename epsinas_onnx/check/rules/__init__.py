"""The rules of `check`: one file a family, in one registry by their stable names."""

from __future__ import annotations

from collections.abc import Mapping

from epsinas_onnx.check.rule import Rule
from epsinas_onnx.check.rules.budgets import BUDGETS
from epsinas_onnx.check.rules.expected import EXPECTED
from epsinas_onnx.check.rules.exported import EXPORTED
from epsinas_onnx.check.rules.initializers import STORED
from epsinas_onnx.check.rules.scored import SCORED
from epsinas_onnx.check.rules.valid import UNREADABLE, VALID

RULES: Mapping[str, Rule] = {
    rule.name: rule for rule in (UNREADABLE, *VALID, *STORED, *EXPORTED, *SCORED, *EXPECTED, *BUDGETS)
}
"""All rules by name, in the order in which findings are listed."""
