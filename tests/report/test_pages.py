"""The pages of results and of differences, and results in notebooks: names are text alone, and nothing is loaded."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from epsinas_onnx import Difference, Inspection, RankedSet, Score, Status, diff, inspect, score, score_many
from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.compare.align import NodeText
from epsinas_onnx.compare.rows import AlignedNode, Fate
from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
from epsinas_onnx.ranking.result import rank_records
from epsinas_onnx.report import difference_page, records, results_page
from epsinas_onnx.store.store import Store
from tests.builders import command, perceptron, save

from .pages import Page, assert_closed
from .samples import HOSTILE, texts

few = settings(deadline=None, max_examples=30)
MODELS = Path(__file__).parents[2] / "models"


def scored(model: str, value: float | None = 0.5, **others: float | None) -> Score:
    """Return a score; None is for an output that does not depend on the input, and another score that is undefined."""
    bad = MeasurementStatus.UNDEFINED
    return Score(
        model, value, value, Status.CONSTANT if value is None else Status.OK,
        f"{model}: it does not depend on {model}" if value is None else None, (1e-7, 1.0), "grey", 8, "CPU",
        100, 5, {"run": 0.5, "load": 0.25}, ("y",), (f"a warning of {model}",), order=3 if value is not None else None,
        proxies={
            name: Measurement(name, one, bad if one is None else MeasurementStatus.OK, model if one is None else None)
            for name, one in others.items()
        },
        versions={"onnx": "1"},
    )  # fmt: skip


@few
@given(st.lists(texts, min_size=1, max_size=4, unique=True), texts, texts)
@example(list(HOSTILE), "</script><img src=x onerror=alert(1)>", "<!--<script>")
@example(["</ScRiPt >", "<!--", "\u2028", "]]>", "\\u003c/script>"], "</title><script>alert(1)</script>", "&lt;")
def test_no_name_is_more_than_text_in_a_page_of_results(names: list[str], title: str, other: str) -> None:
    results = [scored(name, None if i % 2 else float(i), **{other: 1.0, "macs": None}) for i, name in enumerate(names)]
    page = assert_closed(
        results_page.to_html(
            [one.to_dict() for one in results], title=title, accuracies=dict.fromkeys(names, 1.5), accuracy=other,
            by=[("epsinas", other)], notes=[title],
        )
    )  # fmt: skip
    data = page.data
    assert data["names"] == [shown(escaped(name)) for name in names]
    assert shown(other) in [column["title"] for column in data["columns"]]
    for name, remarks in zip(names[1::2], data["remarks"][1::2], strict=True):
        said = [data["texts"][index] for index in remarks]
        assert any(sentence(name) in text or shown(name) in text for text in said) or not name.split()
    assert (shown(title) or f"{len(names)} results") in page.text


def rows(text: str) -> tuple[AlignedNode, ...]:
    node = NodeText(text, text, text)
    return (
        AlignedNode(Fate.SAME, node, node),
        AlignedNode(Fate.REMOVED, node, None, reads=((0,), ())),
        AlignedNode(Fate.CHANGED, node, dataclasses.replace(node, name=text + "2"), (text,), ((1,), (0,))),
    )


@pytest.fixture(scope="module")
def compared() -> Difference:
    return diff(perceptron(), perceptron("Relu", 5), with_score=False)


@few
@given(text=texts)
@example("</script><!--\u2028<script>")
def test_no_name_is_more_than_text_in_a_page_of_a_difference(compared: Difference, text: str) -> None:
    side = dataclasses.replace(compared.before, model=text, producer=text, opset={text: 3}, operators={text: 4},
                               notes=(text,), reason=text)  # fmt: skip
    found = dataclasses.replace(compared, before=side, inputs=(text,), nodes=rows(text))
    page = assert_closed(difference_page.to_html(found))
    assert page.data["models"][0] == shown(text)
    assert page.data["rows"][1]["before"] == [shown(text), shown(text), shown(text, 1000)]
    assert shown(text) in page.text


@pytest.fixture(scope="module")
def inspected() -> Inspection:
    return inspect(perceptron())


CELLS = {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}


@few
@given(text=texts)
@example("</td><script>alert(1)</script>")
def test_no_name_is_more_than_text_in_a_notebook(compared: Difference, inspected: Inspection, text: str) -> None:
    side = dataclasses.replace(compared.before, model=text, notes=(text,))
    use = dataclasses.replace(inspected.uses[0], place=text, rule=text)
    results = (
        scored(text, None, **{text: 1.0}),
        dataclasses.replace(inspected, model=text, producer=text, uses=(use,), warnings=(text,)),
        dataclasses.replace(compared, before=side, inputs=(text,)),
        rank_records([scored(text).to_dict(), scored("other", None).to_dict()], ("epsinas",)),
    )
    for result in results:
        page = Page(result._repr_html_())
        assert set(page.tags) <= CELLS
        assert set(page.attributes) <= {"style", "scope"}
        if text.split() and len(text) < 100:
            assert shown(text) in page.text or shown(escaped(text)) in page.text


def test_notebooks_show_what_the_results_are(compared: Difference, inspected: Inspection) -> None:
    one = score(perceptron(), batch=8)
    assert f"{one.score:.6f}" in Page(one._repr_html_()).text
    assert all(use.place in Page(inspected._repr_html_()).text for use in inspected.uses)
    assert "- Tanh ('act')" in Page(compared._repr_html_()).text
    ranked = rank_records([scored("a", 0.5).to_dict(), scored("b", 0.7).to_dict()], ("epsinas",))
    assert isinstance(ranked, RankedSet)
    assert "1b0.7 (1)" in Page(ranked._repr_html_()).text
    many = rank_records([scored(f"n{i}", float(i)).to_dict() for i in range(50)], ("epsinas",))
    assert "and 30 more" in Page(many._repr_html_()).text


OPTIONS: dict[str, Any] = {"batch": 8, "scores": ("params", "macs")}


def results(folder: Path) -> tuple[list[str], str]:
    """Return the files of four networks, and the results of them."""
    files = [save(perceptron(width=width), folder / f"w{width}.onnx") for width in (2, 3, 4, 5)]
    target, found = folder / "scores.jsonl", list(score_many(files, **OPTIONS))
    target.write_text("".join(map(records.to_json_line, found)))
    (folder / "scores.json").write_text(records.to_json(found))
    (folder / "scores.csv").write_text(records.to_csv(found))
    return files, str(target)


def made(folder: Path, *args: str) -> Page:
    target = folder / "report.html"
    done = command("report", *args, "-o", str(target))
    assert done.code == 0, done.err
    return assert_closed(target.read_text(encoding="utf-8"))


def column(data: dict[str, Any], key: str) -> list[float | None]:
    return next(one["values"] for one in data["columns"] if one["key"] == key)


def by_model(data: dict[str, Any], values: list[float | None]) -> dict[str, float | None]:
    """Return values by model: results come in the order in which they were done."""
    return dict(zip(data["names"], values, strict=True))


def test_files_and_stores_make_the_same_page(tmp_path: Path) -> None:
    files, lines = results(tmp_path)
    store = str(tmp_path / "results.db")
    with Store(store) as kept:
        assert len(list(score_many(files, **OPTIONS, store=kept))) == kept.added == 4
    sources = (lines, str(tmp_path / "scores.json"), str(tmp_path / "scores.csv"), store)
    pages = [made(tmp_path, source).data for source in sources]
    for page in pages:
        assert by_model(page, column(page, "parameters")) == {files[w - 2]: 3 * w + 2 * w + 2 for w in (2, 3, 4, 5)}
        assert by_model(page, column(page, "macs")) == {files[w - 2]: 5 * w for w in (2, 3, 4, 5)}
        assert by_model(page, column(page, "score")) == by_model(pages[0], column(pages[0], "score"))
        assert page["places"][0]["title"] == "together: macs, params"
        assert by_model(page, page["places"][0]["values"]) == {files[w - 2]: 6 - w for w in (2, 3, 4, 5)}
        assert page["status"] == [0] * 4


def test_accuracies_are_joined_and_correlated_over_what_has_both(tmp_path: Path) -> None:
    files, scores = ["w2.onnx", "folder/w3.onnx", "folder/w4.onnx", "w5.onnx"], [0.3, 0.1, 0.2, 0.4]
    lines, table = tmp_path / "scores.jsonl", tmp_path / "accuracies.csv"
    results = [scored(file, value).to_dict() for file, value in zip(files, scores, strict=True)]
    lines.write_text("".join(json.dumps(one) + "\n" for one in results))
    table.write_text(f"model,top1,other\nw2,70,1\nw3.onnx,80,1\n{files[2]},75,1\nw5,,1\nnobody,1,1\n")
    page = made(tmp_path, str(lines), "--accuracies", str(table), "--column", "top1")
    assert column(page.data, "accuracy") == [70, 80, 75, None]
    expected = spearmanr(scores[:3], [70, 80, 75]).statistic
    assert page.data["charts"]["said"]["score accuracy"] == (
        f"Spearman {expected:.3f} over 3 of 4 models, which have both"
    )
    assert "Top1 of 3 of 4 models, from accuracies.csv." in page.text


def test_accuracies_of_a_search_space_are_joined_by_architecture(tmp_path: Path) -> None:
    from epsinas_exporters import spaces

    space = spaces.get("nasbench201")
    one, two = space.sample(2, seed=3)
    lines = tmp_path / "scores.jsonl"
    named = [one, f"networks/{space.file_name(two)}"]
    lines.write_text("".join(json.dumps(scored(name).to_dict()) + "\n" for name in named))
    table = tmp_path / "table.csv"
    table.write_text(f"arch,top1\n{one},70\n{two},80\nnonsense,3\n")
    page = made(tmp_path, str(lines), "--accuracies", str(table), "--column", "top1", "--space", "nasbench201")
    assert column(page.data, "accuracy") == [70, 80]


def test_a_later_file_counts_and_the_page_says_so(tmp_path: Path) -> None:
    files = []
    for number, value in enumerate((0.25, 0.75)):
        files.append(tmp_path / f"{number}.jsonl")
        files[-1].write_text(json.dumps(scored("one.onnx", value).to_dict()) + "\n")
    page = made(tmp_path, *map(str, files))
    assert column(page.data, "score") == [0.75]
    assert "1 results gave way to later ones of the same model." in page.text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("missing.jsonl",), "missing.jsonl: there is no such file"),
        (("{scores}", "--column", "top1"), "--accuracies and --column go together"),
        (("{scores}", "--accuracies", "{table}", "--column", "top2"), "there is no column 'top2'"),
        (("{scores}", "--accuracies", "{table}", "--column", "top1"), "its column model names none of the 1 models"),
        (("{scores}", "--by", "nonsense"), "there is no score nonsense"),
        (("{scores}", "-o", "{scores}"), "would be written over"),
    ],
)
def test_wrong_words_are_one_sentence(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    scores, table = tmp_path / "scores.jsonl", tmp_path / "table.csv"
    scores.write_text(json.dumps(scored("one.onnx").to_dict()) + "\n")
    table.write_text("model,top1\ntwo.onnx,3\n")
    given_args = [arg.format(scores=scores, table=table) for arg in args]
    done = command("report", *given_args, *([] if "-o" in args else ["-o", str(tmp_path / "out.html")]))
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "out.html").exists()


def test_a_difference_is_written_beside_what_is_printed(tmp_path: Path) -> None:
    one, two = save(perceptron(), tmp_path / "one.onnx"), save(perceptron("Relu"), tmp_path / "two.onnx")
    page = tmp_path / "page.html"
    done = command("diff", one, two, "--no-score", "--html", str(page))
    assert done.code == 0
    assert done.out == command("diff", one, two, "--no-score").out
    assert [row["fate"] for row in assert_closed(page.read_text()).data["rows"]] == [
        "same", "removed", "added", "same",
    ]  # fmt: skip
    assert command("diff", one, two, "--html", one).code == 2
    assert html.escape(one) in page.read_text()
