from django.apps import AppConfig


class AgentsiteConfig(AppConfig):
    """The site itself, installed for its system checks and its `prepare` command."""

    name = "agentsite"

    def ready(self) -> None:
        from agentsite import checks  # noqa: F401  (registers them)
