"""The words that staff sort sessions by."""

from django.contrib import admin

from conversations.review_models import Label


@admin.register(Label)
class LabelAdmin(admin.ModelAdmin):
    """Few, so as Django does it."""

    list_display = ("name",)
    search_fields = ("name",)
