"""Times between moments, reckoned by the database: Django's own would call Python for every row."""

from typing import Any

from django.db.models import FloatField, Func


class Seconds(Func):
    """From the second moment to the first, as a number."""

    output_field = FloatField()
    arity = 2

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template, joiner = "((julianday(%(expressions)s)) * 86400.0)", ") - julianday("
        return self.as_sql(compiler, connection, template=template, arg_joiner=joiner, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template, joiner = "extract(epoch FROM (%(expressions)s))", " - "
        return self.as_sql(compiler, connection, template=template, arg_joiner=joiner, **context)
