"""The list of modules that hold rules is complete."""

from __future__ import annotations

import pkgutil

from epsinas_onnx.lump import all_rules, rules


def test_every_module_of_rules_is_listed() -> None:
    found = [module.name for module in pkgutil.iter_modules(rules.__path__)]
    assert [module.__name__.rpartition(".")[2] for module in all_rules.MODULES] == sorted(found)
