from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path

from mysite.views import help_page

urlpatterns = [
    path("help/", help_page, name="help"),
    path("members/in/", LoginView.as_view(template_name="mysite/login.html"), name="login"),
    path("office/", admin.site.urls),
    path("assistant/api/", include("conversations.urls")),
    path("assistant/api/", include("realtime.urls")),
]
