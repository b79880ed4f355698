"""Template filters of the review pages."""

from django import template

from conversations.review.drawing import format_ms

register = template.Library()


@register.filter
def duration(ms: float) -> str:
    """Format a duration in milliseconds for people."""
    return format_ms(ms)


@register.filter
def grouped(number: int) -> str:
    """Format a number with commas between thousands."""
    return f"{number:,}"


@register.filter
def unlocalized(number: float) -> str:
    """Format a number for an SVG attribute, independent of the language."""
    return f"{number:g}"
