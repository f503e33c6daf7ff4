"""Names in a model are text: protobuf hands out bytes, or fails, where they are not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ...errors import ReadError


def check_text(model: Message, where: str) -> None:
    """Raise ReadError for a name, a domain, a note or metadata anywhere in the model that are not UTF-8."""
    pending = [model]
    while pending:
        message = pending.pop()
        texts, parts = _fields(message.DESCRIPTOR)
        for field in texts:
            if not all(isinstance(text, str) for text in _values(message, field)):
                raise ReadError(
                    "a name in the model is not text (UTF-8)",
                    where=f"{where}: {field.full_name}, {list(_values(message, field))}"[:200],
                    fix="export the model again; onnx.checker.check_model says what else is wrong with the file",
                )
        for field in parts:
            pending += _values(message, field)


@cache
def _fields(kind: Descriptor) -> tuple[tuple[FieldDescriptor, ...], tuple[FieldDescriptor, ...]]:
    """Those that hold text, and those that hold messages."""
    texts = tuple(f for f in kind.fields if f.type == FieldDescriptor.TYPE_STRING)
    return texts, tuple(f for f in kind.fields if f.type == FieldDescriptor.TYPE_MESSAGE)


def _values(message: Message, field: FieldDescriptor) -> Iterator:
    if _repeated(field):
        yield from getattr(message, field.name)
    elif message.HasField(field.name):
        yield getattr(message, field.name)


def _repeated(field: FieldDescriptor) -> bool:
    """Protobuf before 6 says it by a number."""
    return (
        field.is_repeated
        if hasattr(field, "is_repeated")
        else getattr(field, "label", 0) == FieldDescriptor.LABEL_REPEATED
    )
