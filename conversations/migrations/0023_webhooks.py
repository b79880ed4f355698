"""Endpoints of webhooks, and what is to be delivered to them."""

import conversations.models.people
import django.db.models.deletion
import django.utils.timezone
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conversations', '0022_run_steps'),
    ]

    operations = [
        migrations.CreateModel(
            name='WebhookEndpoint',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('url', models.URLField(max_length=500, verbose_name='address')),
                ('events', models.JSONField(default=list, verbose_name='events')),
                ('has_text', models.BooleanField(default=False, verbose_name='with the text of the reply')),
                ('is_active', models.BooleanField(default=True, verbose_name='active')),
                ('secret', models.CharField(default=conversations.models.people.make_webhook_secret, editable=False, max_length=100, verbose_name='secret')),
                ('created_at', models.DateTimeField(auto_now_add=True, verbose_name='created')),
            ],
            options={
                'verbose_name': 'webhook endpoint',
                'verbose_name_plural': 'webhook endpoints',
            },
        ),
        migrations.CreateModel(
            name='WebhookDelivery',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('event', models.CharField(choices=[('run.ended', 'a reply has ended'), ('approval.requested', 'a reply awaits an approval'), ('feedback.given', 'a reply was rated')], max_length=20, verbose_name='event')),
                ('data', models.JSONField(default=dict, verbose_name='ids')),
                ('created_at', models.DateTimeField(auto_now_add=True, db_index=True, verbose_name='when')),
                ('attempts', models.PositiveSmallIntegerField(default=0, verbose_name='attempts')),
                ('due_at', models.DateTimeField(default=django.utils.timezone.now, null=True, verbose_name='next attempt')),
                ('delivered_at', models.DateTimeField(null=True, verbose_name='delivered')),
                ('last_status', models.PositiveSmallIntegerField(null=True, verbose_name='last status')),
                ('last_error', models.CharField(blank=True, max_length=60, verbose_name='last error')),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='conversations.run')),
                ('endpoint', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='conversations.webhookendpoint')),
            ],
            options={
                'verbose_name': 'webhook delivery',
                'verbose_name_plural': 'webhook deliveries',
                'indexes': [models.Index(condition=models.Q(('due_at__isnull', False)), fields=['due_at'], name='due_webhooks')],
            },
        ),
    ]
