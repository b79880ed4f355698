"""Counts planned releases of runs, which are no attempts."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0025_push'),
    ]

    operations = [
        migrations.AddField(
            model_name='run',
            name='releases',
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
    ]
