"""What the page says of the model, and where it asks again."""

from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from realtime.model_service import ModelStatus
from realtime.process import model_status

GB = 1e9


@dataclass(frozen=True)
class ModelCard:
    """The site's own model as people are introduced to it; `status` is how far it is."""

    label: str
    size: str
    status: ModelStatus

    @property
    def percent(self) -> float:
        return 100 * (self.status.fraction or 0)


def get_model_card() -> ModelCard | None:
    """None where the model is somebody else's server."""
    status = model_status()
    if status is None:
        return None
    return ModelCard(status.model, f"{settings.LOCAL_MODEL_WEIGHTS.size / GB:.1f} GB", status)


@never_cache
@require_safe
def model(request: HttpRequest) -> JsonResponse:
    """For visitors who have no socket yet: the metadata of `model.status`."""
    status = model_status()
    told: dict[str, Any] = asdict(status) if status else {"state": "ready"}
    return JsonResponse(told)
