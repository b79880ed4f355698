-- What keeps the entries on Postgres. Run again in every database after a change of this file;
-- a trigger that goes or is renamed must be dropped here.

CREATE OR REPLACE FUNCTION conversations_search_text(parts jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $body$
    SELECT coalesce(left(string_agg(part ->> 'text', E'\n\n'), 100000), '')
    FROM jsonb_array_elements(parts) AS part WHERE part ->> 'type' = 'text'
$body$;

CREATE OR REPLACE FUNCTION conversations_search_message() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    DELETE FROM conversations_searchentry WHERE message_id = NEW.id;
    INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
    SELECT s.id, s.owner_id, NEW.id, conversations_search_text(NEW.parts)
    FROM conversations_chatsession s
    WHERE s.id = NEW.session_id AND NOT NEW.withdrawn
        AND conversations_search_text(NEW.parts) <> '';
    RETURN NULL;
END $body$;

CREATE OR REPLACE FUNCTION conversations_search_session() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    DELETE FROM conversations_searchentry WHERE session_id = NEW.id AND message_id IS NULL;
    INSERT INTO conversations_searchentry (session_id, owner_id, text)
    SELECT NEW.id, NEW.owner_id, NEW.title WHERE NEW.title <> '';
    UPDATE conversations_searchentry SET owner_id = NEW.owner_id
    WHERE session_id = NEW.id AND owner_id <> NEW.owner_id;
    RETURN NULL;
END $body$;

CREATE OR REPLACE TRIGGER conversations_search_message_made AFTER INSERT ON conversations_message
FOR EACH ROW WHEN (NEW.parts <> '[]') EXECUTE FUNCTION conversations_search_message();

CREATE OR REPLACE TRIGGER conversations_search_message_changed
AFTER UPDATE OF parts, withdrawn ON conversations_message
FOR EACH ROW WHEN (OLD.parts <> NEW.parts OR OLD.withdrawn <> NEW.withdrawn)
EXECUTE FUNCTION conversations_search_message();

CREATE OR REPLACE TRIGGER conversations_search_session_made AFTER INSERT ON conversations_chatsession
FOR EACH ROW WHEN (NEW.title <> '') EXECUTE FUNCTION conversations_search_session();

CREATE OR REPLACE TRIGGER conversations_search_session_changed
AFTER UPDATE OF title, owner_id ON conversations_chatsession
FOR EACH ROW WHEN (OLD.title <> NEW.title OR OLD.owner_id <> NEW.owner_id)
EXECUTE FUNCTION conversations_search_session();
