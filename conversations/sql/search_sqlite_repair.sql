-- Brings entries and index up to what was written without triggers. Parted by blank lines.

DELETE FROM conversations_searchentry WHERE message_id IS NULL AND NOT EXISTS (
    SELECT 1 FROM conversations_chatsession s WHERE s.id = session_id
    AND s.title = text AND s.owner_id = conversations_searchentry.owner_id
);

DELETE FROM conversations_searchentry WHERE message_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM conversations_search_said said
    WHERE said.message_id = conversations_searchentry.message_id
    AND said.text = conversations_searchentry.text
    AND said.owner_id = conversations_searchentry.owner_id
);

INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
SELECT * FROM conversations_search_said WHERE text <> '' AND message_id NOT IN (
    SELECT message_id FROM conversations_searchentry WHERE message_id IS NOT NULL
);

INSERT INTO conversations_searchentry (session_id, owner_id, text)
SELECT id, owner_id, title FROM conversations_chatsession WHERE title <> '' AND id NOT IN (
    SELECT session_id FROM conversations_searchentry WHERE message_id IS NULL
);

INSERT INTO conversations_searchindex (conversations_searchindex) VALUES ('rebuild');
