"""Protobuf files, read with schemas that are built in code: only the fields that are needed.

Foreign files are untrusted: unknown fields are skipped, and a file that cannot be parsed is one
`ValueError`.
"""

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from jaxsynth.disk import check_regular, expected, kind_of

_MAX_BYTES = 2**31 - 1  # protobuf's own limit for one message
_KINDS = {
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
}


def message_classes(package: str, messages: dict[str, str]) -> dict[str, type[Message]]:
    """Make message name -> class, for messages that may refer to each other.

    Args:
      package: Their name space.
      messages: Name -> fields, `NAME NUMBER KIND` each, separated by commas. A kind is `bytes`,
        `int64`, `float`, `double` or the name of a message; repeated ones end with `*`.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in map(str.split, fields.split(",")):
            field = message.field.add(name=name, number=int(number))
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            field.type = _KINDS.get(kind, field.TYPE_MESSAGE)
            if kind not in _KINDS:
                field.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


def parse_file(path: str | Path, message_class: type[Message], what: str) -> Message:
    """Parse a file as one message; `what` names the expected format in errors.

    Raises:
      ValueError: If the file cannot be read, is too large, truncated, or not of this format.
    """
    path = Path(path)
    check_regular(path, str(path), what)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ValueError(f"{path} has {size} bytes: too large for {what}")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; expected {what}") from error
    if kind := kind_of(data):
        raise ValueError(f"{path} {expected(what, kind)}")
    try:
        return message_class.FromString(data)
    except DecodeError as error:
        raise ValueError(f"{path} is truncated or not {what}") from error
