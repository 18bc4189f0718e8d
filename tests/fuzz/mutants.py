"""Makes mutants of ONNX files by seed: bytes are changed, or fields of the protobuf message."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

INTEGERS = (0, 1, -1, 2, 3, 7, 16, 255, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
WORDS = (
    "",
    "\x1b[31mred",
    "a\nb",
    "a" * 20_000,
    "::error::",
    "Conv",
    "Loop",
    "epsinas.role:*",
    "bogus",
    "N",
    "{",
    "x y",
)
_LARGEST = 2**22  # bytes that a mutant may have


def mutate(data: bytes, seed: int, places: tuple[str, ...] = ()) -> bytes:
    """Return a mutant of a serialised model. places: paths that external data may be sent to."""
    chance = random.Random(seed)
    if chance.random() < 0.25:
        return _with_bytes_changed(data, chance)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return _with_bytes_changed(data, chance)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        _change(model, chance, places)
    mutant = model.SerializePartialToString()
    return mutant if len(mutant) <= _LARGEST else mutant[:_LARGEST]


def _with_bytes_changed(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0:
                del changed[at:]
            case 1:
                del changed[at : at + chance.randrange(1, 64)]
            case 2:
                changed[at:at] = chance.randbytes(chance.randrange(1, 16))
            case 3:
                changed[at:at] = changed[at : at + chance.randrange(1, 256)]
            case _:
                if at < len(changed):
                    changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ (1 << chance.randrange(8))))
    return bytes(changed)


def _change(model: onnx.ModelProto, chance: random.Random, places: tuple[str, ...]) -> None:
    messages = list(_messages(model))
    if places and chance.random() < 0.1:
        tensors = [message for message in messages if isinstance(message, onnx.TensorProto)]
        if tensors:
            _send_outside(chance.choice(tensors), chance, places)
            return
    kinds = sorted({type(message).__name__ for message in messages})
    kind = chance.choice(kinds)  # a kind first: most messages are tensors' dimensions
    message = chance.choice([message for message in messages if type(message).__name__ == kind])
    _change_field(message, chance.choice(list(message.DESCRIPTOR.fields)), chance, messages)


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner)


def _send_outside(tensor: onnx.TensorProto, chance: random.Random, places: tuple[str, ...]) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    entries = {"location": chance.choice(places)}
    if chance.random() < 0.5:
        entries |= {"offset": str(chance.choice(INTEGERS)), "length": str(chance.choice(INTEGERS))}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    if chance.random() < 0.8:
        tensor.ClearField("raw_data")


def _change_field(message: Any, field: FieldDescriptor, chance: random.Random, others: list[Message]) -> None:
    name = field.name
    if not field.is_repeated:
        if chance.random() < 0.25:
            message.ClearField(name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            same = [other for other in others if field.message_type == other.DESCRIPTOR]
            if same:
                _copy(getattr(message, name), chance.choice(same))
        else:
            setattr(message, name, _scalar(field, chance))
        return
    held = getattr(message, name)
    action = chance.randrange(4)
    if action == 0 and len(held):
        del held[chance.randrange(len(held))]
    elif action == 1 and len(held) > 1:
        kept = list(held)
        chance.shuffle(kept)
        copies = [_copied(one) for one in kept]
        del held[:]
        held.extend(copies)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        same = [other for other in others if field.message_type == other.DESCRIPTOR]
        if same:
            held.append(_copied(chance.choice(same)))
    elif action == 2 and len(held):
        held[chance.randrange(len(held))] = _scalar(field, chance)
    else:
        held.append(_scalar(field, chance))


def _copied(one: Any) -> Any:
    if not isinstance(one, Message):
        return one
    copy = type(one)()
    copy.CopyFrom(one)
    return copy


def _copy(target: Message, source: Message) -> None:
    target.CopyFrom(_copied(source))  # the source may hold the target


def _scalar(field: FieldDescriptor, chance: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(WORDS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice((b"", b"\xff\xfe", chance.randbytes(chance.randrange(64)), b"Conv", b"SAME_UPPER"))
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return chance.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice([value.number for value in field.enum_type.values])
    numbers = INTEGERS if field.type == FieldDescriptor.TYPE_INT64 else [one for one in INTEGERS if abs(one) < 2**31]
    if field.type == FieldDescriptor.TYPE_UINT64:
        numbers = [one for one in INTEGERS if one >= 0]
    return chance.choice(list(numbers))
