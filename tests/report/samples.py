"""Reports to render: one with everything in it, and arbitrary ones with hostile text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from epsinas_onnx.check.finding import CheckedModel, CheckReport, Finding, Severity
from epsinas_onnx.check.rule import Rule
from epsinas_onnx.scoring.facts import Facts
from epsinas_onnx.scoring.result import Status

HOSTILE = (
    "[red]x[/red]",
    "[x](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "a\nb",
    "\n\n# heading\n\n- item",
    "a\r\n::error::forged",
    "::stop-commands::x",
    "x::warning file=y::z",
    "##[error]x ##vso[task.complete]",
    "n" * 300 + "end",
    "%0A%25%3A",
    "{0} {{1}}",
    "]]>",
    "<!-- x",
    "-->",
    "<script>alert(1)</script>",
    "</code></details>",
    "&lt;&#96;&amp;",
    "a|b",
    "a\\|b\\",
    "`` ` ```",
    "**bold** _it_ ~~no~~ $x$",
    "@team and #12",
    "http://evil.example www.evil.example a@evil.example",
    "\x00\x07\x08\x1b[2J\x1b]0;title\x07",
    "\ud800",
    "\udcff",
    "\ufffe\uffff",
    "\u202egpj.\u2066x",
    "\u2028\u2029\x85\x0b\x0c",
    "  spaces  ",
    "",
    "名前 é 🙂",
)

quick = settings(deadline=None, max_examples=50)  # reports are large, and each is read by two parsers


def _paired(text: str) -> str:
    """Make one character of a high surrogate and a low one behind it: JSON cannot tell them apart."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(), max_size=12),
    st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=4)), max_size=4).map("".join),
).map(_paired)
rule_names = st.sampled_from(("folded-batchnorm", "no-score", "opset-too-old", "unreadable", "unlisted"))
findings = st.builds(
    Finding,
    rule=rule_names,
    severity=st.sampled_from(Severity),
    message=texts,
    fix=st.one_of(texts, texts.map(lambda text: text + " and so on" * 15)),
    node=st.one_of(st.none(), texts),
    ignored=st.one_of(st.none(), texts),
)
facts = st.builds(
    Facts,
    fingerprint=st.one_of(st.none(), texts),
    size=st.one_of(st.none(), st.integers(0, 10**12)),
    parameters=st.one_of(st.none(), st.integers(0, 10**12)),
    multiply_adds=st.none(),
    opset=st.one_of(st.none(), st.integers(1, 30)),
    status=st.one_of(st.none(), st.sampled_from(Status)),
    score=st.one_of(st.none(), st.floats(0, 2)),
)
models = st.builds(
    CheckedModel,
    model=texts,
    findings=st.lists(findings, max_size=4).map(tuple),
    facts=facts,
    seconds=st.floats(0, 1e5),
)
reports = st.builds(
    CheckReport,
    models=st.lists(models, max_size=4).map(tuple),
    fail_on=st.sampled_from(Severity),
    seconds=st.floats(0, 1e5),
)


def silent(*_: Any) -> Iterator[Any]:
    yield from ()


RULES = (
    Rule(
        "unreadable",
        Severity.ERROR,
        "a file that cannot be read",
        "Nothing is known of it.",
        "Export it again.",
        "Give a reason.",
        silent,
    ),
    Rule(
        "folded-batchnorm",
        Severity.WARNING,
        "convolutions that lost their BatchNorm",
        "Without BatchNorm the signal leaves the range of float32.",
        "Export with optimize=False.",
        "Give a reason.",
        silent,
    ),
    Rule(
        "no-score",
        Severity.ERROR,
        "a model without a score",
        "It cannot be ranked.",
        "See the status.",
        "Give a reason.",
        silent,
    ),
    Rule(
        "opset-too-old",
        Severity.NOTE,
        "an old opset {0}",
        "Old opsets convert badly.",
        "Use opset 18.",
        "Give a reason.",
        silent,
    ),
)


def finding(rule: str = "no-score", severity: Severity = Severity.ERROR, **fields: Any) -> Finding:
    given = {"message": "the output is constant", "fix": "look at the head", **fields}
    return Finding(rule, severity, **given)


def checked(model: str, *found: Finding, seconds: float = 0.25, **known: Any) -> CheckedModel:
    return CheckedModel(model, found, Facts(**known), seconds)


def report(*found: CheckedModel, fail_on: Severity = Severity.ERROR, seconds: float = 2.0) -> CheckReport:
    return CheckReport(found, fail_on, seconds)


FULL = report(
    checked("models/good.onnx", parameters=1_287_921, status=Status.OK, score=0.6445741),
    checked(
        "models/yolo320n.onnx",
        Finding(
            "folded-batchnorm",
            Severity.WARNING,
            "57 of 58 convolutions have a bias and no normalisation, and 57 of them are followed by swish",
            "export with torch.onnx.export(model, ..., dynamo=True, optimize=False), or score with the default "
            "--restore-batchnorm auto, which puts them back and says so beside the score",
            node="/model.0/conv/Conv",
        ),
        Finding("opset-too-old", Severity.NOTE, "the opset is 11", "export with opset 18 or later"),
        parameters=3_014_358,
        status=Status.OK,
        score=0.059048,
    ),
    checked(
        "models/transformer.onnx",
        Finding(
            "no-score",
            Severity.ERROR,
            "with weights 1 the output varies by no more than rounding does: behind node 'output' (Gemm) nothing but "
            "rounding is left",
            "score a value in front of the last LayerNorm with --output-name",
            node="output",
        ),
        Finding(
            "folded-batchnorm",
            Severity.WARNING,
            "3 convolutions have a bias and no normalisation",
            "export with optimize=False",
            ignored="a patch embedding, it never had any",
        ),
        parameters=229_096,
        status=Status.NOISE,
    ),
    checked(
        "models/broken.onnx",
        Finding("unreadable", Severity.ERROR, "the file ends in the middle of node 'a'", "export it again"),
        status=Status.ERROR,
    ),
)
