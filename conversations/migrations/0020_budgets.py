"""What a site has spent, and what of a run is counted there."""

from typing import Any

from django.db import migrations, models
from django.db.models import F
from django.db.models.functions import Coalesce


def fill_counted(apps: Any, schema_editor: Any) -> None:
    """Runs that have asked for an approval go on: what they took before is counted already."""
    runs = apps.get_model("conversations", "Run").objects
    going_on = runs.filter(status__in=["queued", "running", "awaiting_input"])
    taken = Coalesce(F("input_tokens"), 0) + Coalesce(F("output_tokens"), 0)
    going_on.update(counted_tokens=taken)


class Migration(migrations.Migration):
    dependencies = [("conversations", "0019_security")]

    operations = [
        migrations.CreateModel(
            name="SiteUsage",
            fields=[
                ("slot", models.BigIntegerField(primary_key=True, serialize=False)),
                ("tokens", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.AddField(
            model_name="run",
            name="counted_tokens",
            field=models.PositiveBigIntegerField(db_default=0, default=0),
        ),
        migrations.RunPython(fill_counted, migrations.RunPython.noop),
    ]
