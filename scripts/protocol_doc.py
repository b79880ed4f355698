"""Describes every frame of the wire protocol in Markdown, from its types."""

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from schema_words import describe, table

from conversations.errors import ERRORS
from conversations.sessions.parts import PartShape
from realtime import protocol

Model = type[BaseModel]

IMPLIED = ("type", "event")
RUN, RUN_FRAME = protocol.RunMetadata, protocol.SequencedMetadata
SHAPES: tuple[Model, ...] = (
    RUN,
    RUN_FRAME,
    protocol.CompleteMetadata,
    protocol.Usage,
    protocol.ErrorMetadata,
    protocol.PongMetadata,
    protocol.Limits,
    protocol.MessageMetadata,
    protocol.QueueEntry,
    protocol.OpenRequest,
    protocol.SessionMetadata,
)
STATUS_EVENTS: tuple[Model, ...] = get_args(protocol.StatusMetadata)


def frames() -> str:
    """Return the whole reference of frames."""
    in_sequence = protocol.SEQUENCED_STATUS
    of_runs = [kind for kind in STATUS_EVENTS if issubclass(kind, RUN)]
    beside = [kind for kind in of_runs if kind not in in_sequence]
    others = [kind for kind in STATUS_EVENTS if kind not in of_runs]
    parts = [
        *("### From the client", *map(client_frame, protocol.CLIENT_FRAMES)),
        *("### From the server", server_frames()),
        *("#### Status events of a run, in sequence", events(in_sequence, RUN_FRAME)),
        *("#### Status events of a run, outside its sequence", events(beside, RUN)),
        *("#### Other status events", events(others)),
        *("### Shapes", *map(shape, SHAPES), *map(part_shape, get_args(PartShape))),
    ]
    return "\n\n".join(parts)


def error_codes() -> str:
    """Return a table of error codes: HTTP status, whether to try again, and the text for people."""
    rows = (
        (f"`{code}`", str(info.http_status), "yes" if info.retryable else "no", str(info.text))
        for code, info in ERRORS.items()
    )
    return table(("code", "HTTP", "try again?", "text"), rows)


def client_frame(kind: Model) -> str:
    name = properties(kind)["type"]["const"]
    rows = list(fields(kind))
    head = f"#### `{name}`\n\n{first_line(kind)}"
    if not rows:
        return f"{head} No fields."
    return f"{head}\n\n{table(('field', 'type', 'by default'), rows)}"


def fields(kind: Model, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield name, type and default of each field; `metadata` fields are named by their path."""
    required = kind.model_json_schema().get("required", ())
    for name, schema in properties(kind).items():
        nested = kind.model_fields[name].annotation
        if name in IMPLIED:
            continue
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from fields(nested, f"{name}.")
        else:
            default = "needed" if name in required else shown_default(schema.get("default"))
            yield f"`{prefix}{name}`", describe(schema), default


def shown_default(value: object) -> str:
    return "none" if value is None else f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def server_frames() -> str:
    rows = []
    for kind in protocol.SERVER_FRAMES:
        schemas = properties(kind)
        content = describe(schemas["content"]).replace("``", "empty")
        metadata = "by its event" if kind is protocol.Status else describe(schemas["metadata"])
        rows.append((f"`{schemas['type']['const']}`", content, metadata, first_line(kind)))
    return table(("type", "`content`", "`metadata`", "meaning"), rows)


def events(kinds: Iterable[Model], common: Model | None = None) -> str:
    """Return a table of events; fields that all of them share are those of `common`."""
    rows = []
    for kind in kinds:
        name, text = properties(kind)["event"]["const"], getattr(kind, "text", "")
        rows.append((f"`{name}`", f"`{text}`", own_fields(kind, common), doc(kind)))
    beside = f"`metadata`: {link(common)} and" if common else "`metadata`"
    return table(("`event`", "`content`", beside, "meaning"), rows)


def shape(kind: Model) -> str:
    head = ("field", "type")
    rows = ((mark(kind, name), describe(schema)) for name, schema in own(kind).items())
    parent = named_parent(kind)
    added = f" All of {link(parent)}, and:" if parent else ""
    return f"#### {kind.__name__}\n\n{doc(kind)}{added}\n\n{table(head, rows)}"


def part_shape(kind: type) -> str:
    schema = TypeAdapter(kind).json_schema()
    rows = (
        (f"`{name}`" if name in schema["required"] else f"`{name}?`", describe(part))
        for name, part in schema["properties"].items()
    )
    text = " ".join((kind.__doc__ or "").split())
    return f"#### {kind.__name__}\n\n{text}\n\n{table(('field', 'type'), rows)}"


def own_fields(kind: Model, common: Model | None) -> str:
    """Return the fields for one cell; inherited ones as a link to the shape that has them."""
    parent = named_parent(kind)
    inherited = [link(parent)] if parent and parent is not common else []
    listed = [f"{mark(kind, name)} {describe(schema)}" for name, schema in own(kind).items()]
    return "; ".join([*inherited, *listed])


def own(kind: Model) -> dict[str, Any]:
    parent = named_parent(kind)
    skipped = {*IMPLIED, *(parent.model_fields if parent else ())}
    return {name: schema for name, schema in properties(kind).items() if name not in skipped}


def named_parent(kind: Model) -> Model | None:
    return next((base for base in kind.__mro__[1:] if base in SHAPES), None)


def mark(kind: Model, name: str) -> str:
    """Return the field's name, with `?` if it may be absent."""
    return f"`{name}`" if kind.model_fields[name].is_required() else f"`{name}?`"


def link(kind: Model) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def properties(kind: Model) -> dict[str, Any]:
    found: dict[str, Any] = kind.model_json_schema()["properties"]
    return found


def doc(kind: Model) -> str:
    return " ".join((kind.__doc__ or "").split())


def first_line(kind: Model) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
