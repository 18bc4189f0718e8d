"""JAX functions and Flax modules as weightless graphs."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from epsinas_onnx import score
from tests.builders import command
from tests.exporters.agreement import CONSTANTS, assert_same_scores, is_weightless, need, operators

need("jax", "jax", "flax", "jax2onnx")
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import linen, nnx  # noqa: E402

import same_network  # noqa: E402
from epsinas_exporters.frameworks import ExportError, ExportWarning, Input  # noqa: E402
from epsinas_exporters.frameworks.jax import export_function  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Convolutions(nnx.Module):  # type: ignore[misc]
    def __init__(self, rngs: Any) -> None:
        self.conv, self.norm = nnx.Conv(3, 16, (3, 3), rngs=rngs), nnx.BatchNorm(16, epsilon=1e-3, rngs=rngs)
        self.dropout, self.last = nnx.Dropout(0.9, rngs=rngs), nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.last(self.dropout(nnx.relu(self.norm(self.conv(x)))).mean((1, 2)))


@pytest.mark.parametrize("weights", CONSTANTS)
def test_the_same_networks_score_the_same(weights: tuple[float, float]) -> None:
    assert_same_scores(same_network.from_jax(), weights)


def test_a_module_is_exported_in_evaluation_and_left_as_it_was() -> None:
    module, draw = Convolutions(nnx.Rngs(0)), nnx.RngStream.__call__
    assert not module.dropout.deterministic
    model = export_function(module, [(1, 8, 8, 3)])
    norm = next(node for node in model.graph if node.op_type == "BatchNormalization")
    assert norm.attributes["epsilon"].as_float() == pytest.approx(1e-3)
    assert str(model.graph.inputs[0].shape) == "[batch,8,8,3]"
    assert is_weightless(model)
    assert not module.dropout.deterministic
    assert nnx.RngStream.__call__ is draw


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell])
def test_recurrent_layers_of_every_kind_are_exported(cell: Any) -> None:
    model = export_function(nnx.RNN(cell(8, 16, rngs=nnx.Rngs(0))), [(1, 12, 8)])
    found = score(model, weights=(1e-2, 0.3), batch=16)
    assert found.score is not None, found.reason
    learned = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(cell(8, 16, rngs=nnx.Rngs(0)), nnx.Param)))
    assert found.parameters == learned


def test_a_function_with_parameters_of_its_own_and_a_module_of_linen() -> None:
    weight, bias = np.ones((6, 4), np.float32), np.ones(4, np.float32)
    plain = export_function(lambda x: jnp.tanh(x @ weight + bias), [(1, 6)], name="plain")
    assert score(plain, weights=(1e-2, 0.3), batch=16).score is not None
    assert is_weightless(plain)

    class Dense(linen.Module):  # type: ignore[misc]
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return jnp.tanh(linen.Dense(4)(x))

    variables = Dense().init(jax.random.PRNGKey(0), jnp.zeros((1, 6)))
    module = export_function(lambda x: Dense().apply(variables, x), [Input((1, 6))])
    options: dict[str, Any] = {"weights": (1e-2, 0.3), "batch": 16}
    assert score(module, **options).score == pytest.approx(score(plain, **options).score, rel=1e-5)


def test_a_batch_that_cannot_be_free_is_fixed_with_a_note() -> None:
    weight = np.ones((6, 4), np.float32)

    def stubborn(x: Any) -> Any:
        return jnp.tanh(x @ weight) if x.shape[0] > 2 else x @ weight

    with pytest.warns(ExportWarning, match="stubborn: the batch is fixed to 3, since with a free one"):
        model = export_function(stubborn, [(3, 6)])
    assert str(model.graph.inputs[0].shape) == "[3,6]"
    assert "Tanh" in operators(model)


def test_what_cannot_be_exported_is_refused_in_a_sentence() -> None:
    with pytest.raises(ExportError, match=r"^broken cannot be exported: "):
        export_function(lambda x: x @ np.ones((7, 2)), [(1, 6)], name="broken")
    with pytest.raises(ExportError, match="give the shape of each input"):
        export_function(jnp.tanh, [], name="nothing")


def test_a_module_of_ones_own_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import numpy as np
        from flax import nnx

        class Net(nnx.Module):
            def __init__(self, rngs):
                self.table, self.last = nnx.Embed(50, 16, rngs=rngs), nnx.Linear(16, 5, rngs=rngs)

            def __call__(self, tokens):
                return nnx.tanh(self.last(self.table(tokens).mean(1)))

        def made():
            return Net(nnx.Rngs(0))

        instance = made()

        def function(x):
            return x @ np.ones((50, 4), np.float32)

        number = 7
    """
    (tmp_path / "jax_nets.py").write_text(textwrap.dedent(source))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "jax_nets", raising=False)
    for name in ("Net", "made", "instance"):
        done = command("export", "jax", f"jax_nets:{name}", "--input", "1,12:int32")
        assert done.code == 0, done.err
        assert score(tmp_path / f"{name}.onnx", weights=(1e-2, 0.3), batch=16).parameters == 50 * 16 + 16 * 5 + 5
    assert command("export", "jax", "jax_nets:function", "--input", "1,50", "-o", "f.onnx").code == 0
    assert ir.load("f.onnx").graph.inputs[0].dtype == ir.DataType.FLOAT
    for name, message in (("number", "is neither a function of arrays nor a module"), ("lost", "has no 'lost'")):
        done = command("export", "jax", f"jax_nets:{name}", "--input", "1,12")
        assert (done.code, message in done.err) == (2, True), done.err
