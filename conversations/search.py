"""Sessions by what is said in them."""

from typing import Any

from django.db.models import Exists, F, Func, OuterRef, Q, QuerySet, TextField

from conversations.models import ChatSession, Message


class SpokenText(Func):
    """The text parts of a message as one text."""

    output_field = TextField()
    arity = 1
    template = "NULL"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = (
            "(SELECT group_concat(json_extract(part.value, '$.text'), ' ')"
            " FROM json_each(%(expressions)s) AS part"
            " WHERE json_extract(part.value, '$.type') = 'text')"
        )
        return self.as_sql(compiler, connection, template=template, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = (
            "(SELECT string_agg(part ->> 'text', ' ')"
            " FROM jsonb_array_elements(%(expressions)s) AS part"
            " WHERE part ->> 'type' = 'text')"
        )
        return self.as_sql(compiler, connection, template=template, **context)


def containing(sessions: QuerySet[ChatSession], words: str) -> QuerySet[ChatSession]:
    """Those of `sessions` with `words` in the title or in what somebody said."""
    spoken = Message.objects.filter(session=OuterRef("pk")).annotate(spoken=SpokenText(F("parts")))
    return sessions.filter(
        Q(title__icontains=words) | Exists(spoken.filter(spoken__icontains=words))
    )
