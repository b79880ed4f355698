"""Words and numbers of the review pages."""

from django import template

from conversations.review.drawing import format_ms

register = template.Library()


@register.filter
def duration(ms: float) -> str:
    """Milliseconds for people."""
    return format_ms(ms)


@register.filter
def grouped(number: int) -> str:
    """With a comma between thousands."""
    return f"{number:,}"


@register.filter
def unlocalized(number: float) -> str:
    """A number for an attribute, whatever the language."""
    return f"{number:g}"
