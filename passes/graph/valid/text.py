"""Names in a model are text: protobuf hands out bytes, or fails, where they are not UTF-8."""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ...errors import ReadError


def check_text(model: Message, where: str) -> None:
    """Raise ReadError for a name, a domain, a note or metadata anywhere in the model that are not UTF-8."""
    pending = [model]
    while pending:
        for field, value in pending.pop().ListFields():
            text, repeated = _kind(field)
            if text is None:
                continue
            values = value if repeated else (value,)
            if not text:
                pending += values
            elif not all(isinstance(each, str) for each in values):
                raise ReadError(
                    "a name in the model is not text (UTF-8)",
                    where=f"{where}: {field.full_name}, {list(values)}"[:200],
                    fix="export the model again; onnx.checker.check_model says what else is wrong with the file",
                )


@cache
def _kind(field: FieldDescriptor) -> tuple[bool | None, bool]:
    """Whether a field holds text, False for messages, None for numbers and bytes; and whether it holds several."""
    kinds = {FieldDescriptor.TYPE_STRING: True, FieldDescriptor.TYPE_MESSAGE: False}
    return kinds.get(field.type), _repeated(field)


def _repeated(field: FieldDescriptor) -> bool:
    """Protobuf before 6 says it by a number."""
    return (
        field.is_repeated
        if hasattr(field, "is_repeated")
        else getattr(field, "label", 0) == FieldDescriptor.LABEL_REPEATED
    )
