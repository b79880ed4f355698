"""What a run goes on from when its worker is lost."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0021_sign_outs")]

    operations = [
        migrations.AddField(
            model_name="runevent",
            name="step",
            field=models.JSONField(blank=True, null=True),
        ),
    ]
