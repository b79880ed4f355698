"""Has the index of search forget what was taken back, where there is one already.

On SQLite its triggers are made anew after every migration; on Postgres they are changed here.
"""

from typing import Any

from django.db import migrations

FORGET = """
    DELETE FROM conversations_searchentry
    WHERE message_id IN (SELECT id FROM conversations_message WHERE withdrawn)
"""
FORGET_IN_SQLITE = """
    INSERT INTO conversations_searchindex (conversations_searchindex, rowid, owner_id, text)
    SELECT 'delete', e.id, e.owner_id, e.text FROM conversations_searchentry e
    WHERE e.message_id IN (SELECT id FROM conversations_message WHERE withdrawn)
"""
CHANGE_POSTGRES = """
    CREATE OR REPLACE FUNCTION conversations_search_message() RETURNS trigger
    LANGUAGE plpgsql AS $body$
    BEGIN
        DELETE FROM conversations_searchentry WHERE message_id = NEW.id;
        INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
        SELECT s.id, s.owner_id, NEW.id, conversations_search_text(NEW.parts)
        FROM conversations_chatsession s
        WHERE s.id = NEW.session_id AND NOT NEW.withdrawn
            AND conversations_search_text(NEW.parts) <> '';
        RETURN NULL;
    END $body$;

    DROP TRIGGER conversations_search_message_changed ON conversations_message;

    CREATE TRIGGER conversations_search_message_changed
    AFTER UPDATE OF parts, withdrawn ON conversations_message
    FOR EACH ROW WHEN (OLD.parts <> NEW.parts OR OLD.withdrawn <> NEW.withdrawn)
    EXECUTE FUNCTION conversations_search_message();
"""


def forget(apps: Any, editor: Any) -> None:
    with editor.connection.cursor() as cursor:
        if editor.connection.vendor == "postgresql":
            cursor.execute("SELECT to_regclass('conversations_search_document') IS NOT NULL")
            if cursor.fetchone()[0]:
                cursor.execute(CHANGE_POSTGRES)
        else:
            cursor.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'conversations_searchindex'"
            )
            if cursor.fetchone():
                cursor.execute(FORGET_IN_SQLITE)
        cursor.execute(FORGET)


class Migration(migrations.Migration):
    dependencies = [("conversations", "0013_beginnings")]
    operations = [migrations.RunPython(forget, migrations.RunPython.noop)]
