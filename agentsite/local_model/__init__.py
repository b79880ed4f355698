"""Tells the embedded model its name, which it would otherwise guess."""

from django.conf import settings


def introduce(instructions: str) -> str:
    """Return `instructions`, preceded by the model's name if the embedded model answers."""
    if settings.MODEL_KIND != "local":
        return instructions
    label = settings.LOCAL_MODEL_WEIGHTS.label
    return (
        f"You are {label}, a small language model that runs on this website's own computer. "
        f"{instructions}"
    )
