"""What staff fill in about a session."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from conversations import reviews
from conversations.review_models import Review


class ReviewForm(forms.ModelForm):
    """Assignee, labels, note, and whether it is done."""

    is_reviewed = forms.BooleanField(label=_("Reviewed"), required=False)
    version = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Review
        fields = ("assignee", "labels", "note")
        widgets = {
            "labels": forms.CheckboxSelectMultiple,
            "note": forms.Textarea(attrs={"rows": 3}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_suffix = ""
        self.fields["assignee"].queryset = reviews.list_staff()  # type: ignore[attr-defined]
        self.fields["labels"].queryset = reviews.list_labels()  # type: ignore[attr-defined]
        self.fields["labels"].required = False
        # Not where the session went on: whoever saves a note has not read what came later.
        self.initial["is_reviewed"] = reviews.is_up_to_date(self.instance)
        self.initial["version"] = reviews.version_of(self.instance)
        if self.instance.pk:
            self.initial["labels"] = list(self.instance.labels.all())

    @property
    def mark(self) -> bool | None:
        """Whether the session becomes reviewed or not; None where that was not touched."""
        changed = "is_reviewed" in self.changed_data
        return bool(self.cleaned_data["is_reviewed"]) if changed else None
