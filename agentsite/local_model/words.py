"""What people are told of the model: one short line each."""

from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from agentsite.local_model.faults import Fault
from agentsite.local_model.weights import Weights
from realtime.model_service import ModelState, ModelStatus

MB = 1_000_000
FAULTS: dict[Fault, str | Promise] = {
    Fault.UNREACHABLE: gettext_lazy(
        "The model could not be fetched: neither its official source nor the mirror gave it. "
        "Is there a network?"
    ),
    Fault.MIRROR_OFF: gettext_lazy(
        "The model could not be fetched: its official source did not give it, and the mirror is "
        "switched off."
    ),
    Fault.WRONG_HASH: gettext_lazy(
        "What was fetched is not the model: its SHA-256 is wrong. It was thrown away."
    ),
    Fault.NO_ROOM: gettext_lazy(
        "The disk is too full for the model: {needed} MB are needed, {free} MB are free."
    ),
    Fault.NO_FOLDER: gettext_lazy("The cache folder for the model cannot be used: {reason}."),
    Fault.NO_MEMORY: gettext_lazy(
        "There is too little memory for the model: it needs {needed} MB, {available} MB are free."
    ),
    Fault.NO_AVX2: gettext_lazy(
        "This computer's processor cannot run the model: it has no AVX2 instructions."
    ),
    Fault.NO_RUNTIME: gettext_lazy("The program that runs the model cannot be loaded: {reason}."),
    Fault.NOT_A_MODEL: gettext_lazy("{file} is not a model that can be loaded."),
    Fault.CRASHES: gettext_lazy("The model's process keeps ending ({reason})."),
}


def describe_fault(fault: Fault, values: dict[str, Any]) -> str:
    """The line for a fault; sizes come in bytes and are told in MB."""
    shown = {
        name: round(value / MB) if isinstance(value, int) else value
        for name, value in values.items()
    }
    return str(FAULTS[fault]).format(**shown)


def starting(weights: Weights) -> ModelStatus:
    return _status(weights, "starting", _("starting the model"))


def fetching(weights: Weights, done: int) -> ModelStatus:
    """`done` in bytes."""
    fraction = min(1.0, done / weights.size)
    detail = _("fetching the model, {percent} %").format(percent=int(100 * fraction))
    return _status(weights, "fetching", detail, round(fraction, 3))


def loading(weights: Weights) -> ModelStatus:
    return _status(weights, "loading", _("loading the model"))


def restarting(weights: Weights) -> ModelStatus:
    return _status(weights, "starting", _("the model has stopped and is started again"))


def ready(weights: Weights) -> ModelStatus:
    return _status(weights, "ready", _("the model is ready"))


def failed(weights: Weights, fault: Fault, values: dict[str, Any]) -> ModelStatus:
    return _status(weights, "failed", describe_fault(fault, values))


def _status(
    weights: Weights, state: ModelState, detail: str, fraction: float | None = None
) -> ModelStatus:
    return ModelStatus(weights.label, state, detail, fraction)
