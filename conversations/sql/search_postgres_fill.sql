-- What was said before there was an index.

INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
SELECT s.id, s.owner_id, m.id, conversations_search_text(m.parts)
FROM conversations_message m JOIN conversations_chatsession s ON s.id = m.session_id
WHERE NOT m.withdrawn AND conversations_search_text(m.parts) <> '' ORDER BY m.created_at;

INSERT INTO conversations_searchentry (session_id, owner_id, text)
SELECT id, owner_id, title FROM conversations_chatsession WHERE title <> '';
