"""Users' own settings."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('conversations', '0023_webhooks'),
    ]

    operations = [
        migrations.CreateModel(
            name='Preferences',
            fields=[
                ('user', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='+', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('language', models.CharField(blank=True, max_length=10, verbose_name='Language')),
                ('theme', models.CharField(blank=True, choices=[('system', 'As the device'), ('light', 'Light'), ('dark', 'Dark')], max_length=10, verbose_name='Colours')),
                ('enter', models.CharField(blank=True, choices=[('send', 'Sends the message'), ('newline', 'Makes a new line')], max_length=10, verbose_name='Enter key')),
                ('instructions', models.TextField(blank=True, max_length=4000, verbose_name='Instructions for the agent')),
                ('agent', models.CharField(blank=True, max_length=100, verbose_name='Agent of new conversations')),
                ('keeps_going', models.BooleanField(default=False, verbose_name='Replies go on while nobody watches')),
                ('push_text', models.BooleanField(default=False, verbose_name='Notifications show the beginning of the reply')),
            ],
        ),
    ]
