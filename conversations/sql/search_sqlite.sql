-- What is searched on SQLite. Statements are parted by blank lines; each names what it makes.

CREATE VIRTUAL TABLE conversations_searchindex USING fts5(
    owner_id, text, content='conversations_searchentry', content_rowid='id',
    tokenize='unicode61 remove_diacritics 2'
);

CREATE VIEW conversations_search_said (session_id, owner_id, message_id, text) AS
SELECT s.id, s.owner_id, m.id, (
    SELECT substr(group_concat(json_extract(part.value, '$.text'), char(10, 10)), 1, 100000)
    FROM json_each(m.parts) AS part WHERE json_extract(part.value, '$.type') = 'text'
)
FROM conversations_message m JOIN conversations_chatsession s ON s.id = m.session_id
WHERE NOT m.withdrawn;

CREATE TRIGGER conversations_search_entry_made
AFTER INSERT ON conversations_searchentry BEGIN
    INSERT INTO conversations_searchindex (rowid, owner_id, text)
    VALUES (NEW.id, NEW.owner_id, NEW.text);
END;

CREATE TRIGGER conversations_search_entry_moved
AFTER UPDATE OF owner_id ON conversations_searchentry BEGIN
    INSERT INTO conversations_searchindex (conversations_searchindex, rowid, owner_id, text)
    VALUES ('delete', OLD.id, OLD.owner_id, OLD.text);
    INSERT INTO conversations_searchindex (rowid, owner_id, text)
    VALUES (NEW.id, NEW.owner_id, NEW.text);
END;

CREATE TRIGGER conversations_search_entry_gone
AFTER DELETE ON conversations_searchentry BEGIN
    INSERT INTO conversations_searchindex (conversations_searchindex, rowid, owner_id, text)
    VALUES ('delete', OLD.id, OLD.owner_id, OLD.text);
END;

CREATE TRIGGER conversations_search_message_made
AFTER INSERT ON conversations_message WHEN NEW.parts <> '[]' BEGIN
    INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
    SELECT * FROM conversations_search_said WHERE message_id = NEW.id AND text <> '';
END;

CREATE TRIGGER conversations_search_message_changed
AFTER UPDATE OF parts ON conversations_message WHEN OLD.parts <> NEW.parts BEGIN
    DELETE FROM conversations_searchentry WHERE message_id = NEW.id;
    INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
    SELECT * FROM conversations_search_said WHERE message_id = NEW.id AND text <> '';
END;

CREATE TRIGGER conversations_search_message_withdrawn
AFTER UPDATE OF withdrawn ON conversations_message WHEN NEW.withdrawn BEGIN
    DELETE FROM conversations_searchentry WHERE message_id = NEW.id;
END;

CREATE TRIGGER conversations_search_session_made
AFTER INSERT ON conversations_chatsession WHEN NEW.title <> '' BEGIN
    INSERT INTO conversations_searchentry (session_id, owner_id, text)
    VALUES (NEW.id, NEW.owner_id, NEW.title);
END;

CREATE TRIGGER conversations_search_session_named
AFTER UPDATE OF title ON conversations_chatsession WHEN OLD.title <> NEW.title BEGIN
    DELETE FROM conversations_searchentry WHERE session_id = NEW.id AND message_id IS NULL;
    INSERT INTO conversations_searchentry (session_id, owner_id, text)
    SELECT NEW.id, NEW.owner_id, NEW.title WHERE NEW.title <> '';
END;

CREATE TRIGGER conversations_search_session_moved
AFTER UPDATE OF owner_id ON conversations_chatsession WHEN OLD.owner_id <> NEW.owner_id BEGIN
    UPDATE conversations_searchentry SET owner_id = NEW.owner_id WHERE session_id = NEW.id;
END;
