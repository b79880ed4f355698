"""GET /healthz/: may this process be sent requests?"""

import redis
from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

REDIS_TIMEOUT_S = 2


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """`{"ok": bool, "<part>": bool, ...}`; 200 when all parts answer, else 503."""
    parts = {"database": database_answers()}
    if settings.REDIS_URL:
        parts["redis"] = redis_answers(settings.REDIS_URL)
    ok = all(parts.values())
    return JsonResponse({"ok": ok, **parts}, status=200 if ok else 503)


def database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFault:
        return False
    return True


def redis_answers(url: str) -> bool:
    patience = {"socket_connect_timeout": REDIS_TIMEOUT_S, "socket_timeout": REDIS_TIMEOUT_S}
    try:
        with redis.Redis.from_url(url, **patience) as client:
            client.ping()
    except redis.RedisError:
        return False
    return True
