"""Prints docs/rules.md: python docs/rules.py > docs/rules.md. A test compares the page with what this prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from epsinas_onnx.check.rule import Rule
from epsinas_onnx.check.rules import RULES

HEAD = """\
# The rules of `check`

`epsinas-onnx check --rules` lists them, `epsinas-onnx check --explain RULE` shows one. This page is written by
`python docs/rules.py` from the same sentences. How to set a check up stands in [Checking exported models](ci.md).

A rule's severity is `error`, `warning` or `note`; the configuration changes it, or switches the rule off:

```toml
[tool.epsinas-onnx.rules]
fixed-batch = "error"
unused-initializer = "off"
opset-range = { severity = "error", min = 17, max = 22 }
```

Findings are ignored where a reason is given, in the models that `path` matches (a shell glob from the folder of the
configuration; `*` matches slashes too) and, where `node` is given, at the nodes that it matches. They are counted,
shown by `--verbose`, and suppressed in SARIF:

```toml
[[tool.epsinas-onnx.ignore]]
rule = "fixed-batch"
path = "models/edge/*"
reason = "the device takes one sample at a time"
```
"""


def page() -> str:
    """Return the whole page."""
    table = ["| rule | severity | what it catches |", "| --- | --- | --- |"]
    table += [f"| [`{rule.name}`](#{rule.name}) | {rule.severity} | {rule.summary} |" for rule in RULES.values()]
    parts = [HEAD, "\n".join(table) + "\n", *("\n".join(_section(rule)) for rule in RULES.values())]
    return "\n".join(parts)


def _section(rule: Rule) -> Iterator[str]:
    yield f"## {rule.name}"
    yield ""
    yield f"**What it catches** ({rule.severity}). {rule.summary}"
    yield ""
    yield f"**Why it matters.** {rule.why}"
    yield ""
    yield f"**How to fix it.** {rule.fix}"
    yield ""
    options = [
        f"`{one.alias or name}` ({'none' if one.default is None else one.default})"
        for name, one in rule.options.model_fields.items()
    ]
    if options:
        yield f"**Options**, with their defaults. {', '.join(options)}"
        yield ""
    yield f"**How to ignore it.** {rule.ignore}"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
