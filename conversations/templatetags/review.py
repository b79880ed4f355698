"""Words and numbers of the review pages."""

from django import template
from django.utils.safestring import SafeString

from conversations.drawing import format_ms
from conversations.rendering import render_markdown

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


@register.filter
def markdown(text: str) -> SafeString:
    """Text of a model as sanitised HTML."""
    return render_markdown(text)
