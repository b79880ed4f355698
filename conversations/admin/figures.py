"""The dashboard: figures of all sessions, in plots with their tables."""

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from conversations.figures import Figures, percentile, read_figures
from conversations.plots import Plot, Series, plot_bars, plot_lines

SEE = "conversations.see_figures"
PERIODS = (7, 30, 90)


def figures_view(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """`?days=` is one of `PERIODS`."""
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    asked = request.GET.get("days", "")
    days = int(asked) if asked in map(str, PERIODS) else 30
    figures = read_figures(days)
    context = {
        **site.each_context(request),
        "title": _("Figures"),
        "days": days,
        "periods": PERIODS,
        "plots": list_plots(figures),
        "figures": figures,
    }
    return TemplateResponse(request, "admin/conversations/figures.html", context)


def list_plots(figures: Figures) -> list[Plot]:
    """All plots of the page, in order."""
    days = list(figures.days)

    def bars(title: str, unit: str, *series: Series) -> Plot:
        return plot_bars(title, unit, days, series)

    sessions, tokens = figures.column("sessions"), figures.column("tokens")
    costs = [None if cost is None else float(cost) for cost in figures.column("cost")]
    replies, failed = figures.column("replies"), figures.column("failed")
    well = [all_ - bad for all_, bad in zip(replies, failed, strict=True)]
    return [
        bars(_("Sessions begun"), _("sessions a day"), Series("calm", _("sessions"), sessions)),
        bars(
            _("Replies"),
            _("replies a day"),
            Series("calm", _("not failed"), well),
            Series("bad", _("failed"), failed),
        ),
        bars(_("Tokens"), _("tokens a day, in and out"), Series("calm", _("tokens"), tokens)),
        bars(
            _("Cost"),
            _("a day, in the currency of the price list"),
            Series("calm", _("cost"), costs),
        ),
        _times(_("Wait for the first token"), figures, "first_token"),
        _times(_("From asking to stop until stopped"), figures, "stop"),
        bars(
            _("Feedback"),
            _("verdicts a day"),
            Series("good", _("good"), figures.column("good")),
            Series("bad", _("bad"), figures.column("bad")),
        ),
    ]


def _times(title: str, figures: Figures, name: str) -> Plot:
    counts = figures.column(name)
    series = [
        Series("calm", _("half of them within"), [percentile(day, 0.5) for day in counts]),
        Series("warn", _("95 of 100 within"), [percentile(day, 0.95) for day in counts]),
    ]
    return plot_lines(title, _("milliseconds"), list(figures.days), series)
