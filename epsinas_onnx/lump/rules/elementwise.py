"""Rules of operators that compute each entry from the entries at the same place."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.lump.context import BOOL, Context
from epsinas_onnx.lump.registry import Operands, Outcome, rule
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Cause, Lumped

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Not",
    "Reciprocal", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish",
    "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def unary(context: Context, step: Step, x: Lumped, domain: str = "") -> Lumped:
    """Apply the user's operator, with its attributes, to the representatives in whatever layout they lie."""
    tensor = context.tensor(x)
    dtype = step.out_dtype() or (BOOL if step.node.op_type in ("IsInf", "IsNaN") else tensor.dtype)
    made = context.op(step.node.op_type, [tensor], tensor.shape, dtype, domain, **step.attributes())
    return context.result(made, x.axes, [x])


@rule(*UNARY, repeats=True)
def unary_operator(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """f(x): equal entries stay equal."""
    (x,) = operands
    return None if x is None else unary(context, step, x)


@rule("Gelu", "FastGelu", "QuickGelu", "BiasGelu", domain="com.microsoft")
def contributed_gelu(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """f(x + bias): an addition that broadcasts, and then a function of each entry."""
    x, bias = operands[0], operands[1] if len(operands) > 1 else None
    if x is None:
        return None
    if bias is not None:
        x = context.add(x, bias)
    tensor = context.canonical(x)  # FastGelu takes no scalar
    # BiasGelu without its bias is Gelu.
    op_type = "Gelu" if step.node.op_type == "BiasGelu" else step.node.op_type
    made = context.op(op_type, [tensor], tensor.shape, domain="com.microsoft", **step.attributes())
    return context.result(made, x.axes, [x])


@rule("Relu", scaled=True, repeats=True)
def relu(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """max(0, x): equal entries stay equal, and a positive factor comes out unchanged."""
    (x,) = operands
    if x is None or x.zero:
        return x
    if x.factor < 0:
        x = context.settle(x)
    tensor = context.tensor(x)
    return context.result(context.op("Relu", [tensor], tensor.shape), x.axes, [x], x.factor)


@rule("Identity", "Dropout", scaled=True)
def identity(context: Context, step: Step, operands: Operands) -> Outcome:
    """The value itself. Dropout of an exported graph is off; its mask is then true everywhere.

    Before operator set 12 that was left open, and ONNX Runtime's mask is 0; before 10 it had the input's type.
    """
    x = operands[0]
    if x is None or len(step.node.outputs) == 1:
        return x
    mask = context.filled(float(context.opset >= 12), x.shape, BOOL if context.opset >= 10 else x.dtype)
    return [x, mask]


@rule("Neg", scaled=True)
def negative(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """-x: the factor changes its sign, where the numbers are floats."""
    (x,) = operands
    if x is None:
        return None
    if x.dtype.is_floating_point():
        return x.replace(factor=-x.factor, tensor=context.tensor(x), known=None)
    return unary(context, step, x)


@rule("Add", scaled=True, repeats=True)
def add(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """X + y over the common refinement; adding 0 costs nothing, and a factor stays pending."""
    x, y = operands
    return None if x is None or y is None else context.add(x, y)


@rule("Sub", scaled=True, repeats=True)
def subtract(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """X - y over the common refinement.

    The difference of two values that are one tensor in the lowered graph is exactly 0: so ends a layer that
    takes the mean of identical values away from them.
    """
    x, y = operands
    if x is None or y is None:
        return None
    parts = context.broadcast([x.axes, y.axes])
    if x.tensor is not None and context.same(x, y) and x.dtype.is_floating_point():
        cause = Cause(step.node, "takes the mean of identical values away from them, which leaves 0", step.order)
        shape = tuple(part.size for part in parts)
        context.guard(x)
        return context.zeros(shape, x.dtype, cause if x.depends else x.cause)
    if y.zero and parts == x.axes:
        return context.less_zero(x, y)
    return context.elementwise("Sub", [x, y])


@rule("Mul", repeats=True)
def multiply(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The product over the common refinement; a stored 0 ends the signal.

    What it multiplies need not be computed then, nor looked at for infinities, which would cost as much as
    the edges of a search space that such a 0 cuts off.
    """
    x, y = operands
    if x is None or y is None:
        return None
    if (x.zero or y.zero) and x.dtype.is_floating_point():
        other = y if x.zero else x
        zero = x if x.zero else y
        shape = tuple(part.size for part in context.broadcast([x.axes, y.axes]))
        cause = Cause(step.node, "multiplies by 0", step.order, zero=True) if other.depends else other.cause
        return context.zeros(shape, x.dtype, zero.cause or cause)
    return context.mul(x, y)


@rule("Div", "PRelu", "Mod", "And", "Or", "Xor", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", repeats=True)
def binary(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """f(x, y) over the common refinement."""
    x, y = operands
    if x is None or y is None:
        return None
    return context.elementwise(step.node.op_type, [x, y], **step.attributes())


@rule("Pow")
def power(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """X ** y over the common refinement, in the element type of x; a square is a product, which is the faster one."""
    x, y = operands
    if x is None or y is None:
        return None
    if y.known is not None and y.known.size == 1 and float(y.known.reshape(-1)[0]) == 2.0 and y.rank <= x.rank:
        return context.elementwise("Mul", [x, x])
    return context.elementwise("Pow", [x, y], x.dtype)


@rule(*COMPARISONS)
def compare(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """X < y and its kin over the common refinement."""
    x, y = operands
    if x is None or y is None:
        return None
    return context.elementwise(step.node.op_type, [x, y], BOOL, **step.attributes())


@rule("Sum", "Max", "Min", "Mean")
def variadic(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """f(x, y, ...) over the common refinement; of these, Sum apart, none broadcasts before operator set 8."""
    values = [operand for operand in operands if operand is not None]
    if len(values) == 1:
        return values[0]
    if step.node.op_type == "Sum":
        total = values[0]
        for value in values[1:]:
            total = context.add(total, value)
        return total
    return None if context.opset < 8 else context.elementwise(step.node.op_type, values)


@rule("Where")
def where(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """C ? x : y over the common refinement."""
    condition, x, y = operands
    if condition is None or x is None or y is None:
        return None
    return context.elementwise("Where", [condition, x, y], x.dtype)


@rule("Clip", repeats=True)
def clip(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Bounds are scalars: they are copied where they are stored, and compared with Min and Max where they vary."""
    x, bounds = operands[0], [*operands[1:], None, None][:2]
    if x is None:
        return None
    if all(bound is None or not bound.varied for bound in bounds):
        tensor = context.tensor(x)
        limits = [None if bound is None else context.reshape(context.tensor(bound), ()) for bound in bounds]
        while limits and limits[-1] is None:
            limits.pop()
        made = context.op("Clip", [tensor, *limits], tensor.shape, **step.attributes())
        return context.result(made, x.axes, [x, *bounds])
    for op_type, bound in zip(("Max", "Min"), bounds, strict=True):
        if bound is not None:
            x = context.elementwise(op_type, [x, bound])
    return x


@rule("Cast")
def cast(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Another element type: equal entries stay equal."""
    (x,) = operands
    if x is None:
        return None
    target = ir.DataType(step.integer("to", int(ir.DataType.FLOAT)))
    if target == x.dtype:
        return x
    tensor = context.tensor(x)
    made = context.op("Cast", [tensor], tensor.shape, target, **step.attributes())
    return context.result(made, x.axes, [x])


@rule("CastLike")
def cast_like(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The element type of another value."""
    x, like = operands
    if x is None or like is None or like.dtype == x.dtype:
        return x
    tensor = context.tensor(x)
    made = context.op("Cast", [tensor], tensor.shape, like.dtype, to=int(like.dtype))
    return context.result(made, x.axes, [x])
