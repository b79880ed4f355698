-- What is searched on Postgres.

-- What punctuation joins is several words, as it is on SQLite; the parser would make it one name.
-- With a space before it, the owner's lexeme is none that can come out of a text.
ALTER TABLE conversations_searchentry ADD COLUMN document tsvector GENERATED ALWAYS AS (
    to_tsvector('simple', translate(
        text, $$!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~$$, repeat(' ', 32)
    )) || array_to_tsvector(ARRAY[' ' || owner_id::text])
) STORED;

CREATE INDEX conversations_search_document ON conversations_searchentry USING gin (document);

CREATE FUNCTION conversations_search_text(parts jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $body$
    SELECT coalesce(left(string_agg(part ->> 'text', E'\n\n'), 100000), '')
    FROM jsonb_array_elements(parts) AS part WHERE part ->> 'type' = 'text'
$body$;

CREATE FUNCTION conversations_search_message() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    DELETE FROM conversations_searchentry WHERE message_id = NEW.id;
    INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
    SELECT s.id, s.owner_id, NEW.id, conversations_search_text(NEW.parts)
    FROM conversations_chatsession s
    WHERE s.id = NEW.session_id AND NOT NEW.withdrawn
        AND conversations_search_text(NEW.parts) <> '';
    RETURN NULL;
END $body$;

CREATE FUNCTION conversations_search_session() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    DELETE FROM conversations_searchentry WHERE session_id = NEW.id AND message_id IS NULL;
    INSERT INTO conversations_searchentry (session_id, owner_id, text)
    SELECT NEW.id, NEW.owner_id, NEW.title WHERE NEW.title <> '';
    UPDATE conversations_searchentry SET owner_id = NEW.owner_id
    WHERE session_id = NEW.id AND owner_id <> NEW.owner_id;
    RETURN NULL;
END $body$;

CREATE TRIGGER conversations_search_message_made AFTER INSERT ON conversations_message
FOR EACH ROW WHEN (NEW.parts <> '[]') EXECUTE FUNCTION conversations_search_message();

CREATE TRIGGER conversations_search_message_changed
AFTER UPDATE OF parts, withdrawn ON conversations_message
FOR EACH ROW WHEN (OLD.parts <> NEW.parts OR OLD.withdrawn <> NEW.withdrawn)
EXECUTE FUNCTION conversations_search_message();

CREATE TRIGGER conversations_search_session_made AFTER INSERT ON conversations_chatsession
FOR EACH ROW WHEN (NEW.title <> '') EXECUTE FUNCTION conversations_search_session();

CREATE TRIGGER conversations_search_session_changed
AFTER UPDATE OF title, owner_id ON conversations_chatsession
FOR EACH ROW WHEN (OLD.title <> NEW.title OR OLD.owner_id <> NEW.owner_id)
EXECUTE FUNCTION conversations_search_session();

INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
SELECT s.id, s.owner_id, m.id, conversations_search_text(m.parts)
FROM conversations_message m JOIN conversations_chatsession s ON s.id = m.session_id
WHERE NOT m.withdrawn AND conversations_search_text(m.parts) <> '' ORDER BY m.created_at;

INSERT INTO conversations_searchentry (session_id, owner_id, text)
SELECT id, owner_id, title FROM conversations_chatsession WHERE title <> '';
