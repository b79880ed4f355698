-- What is searched on Postgres: made once, changed by migrations.


-- What punctuation joins is several words, as it is on SQLite; the parser would make it one name.
-- With a space before it, the owner's lexeme is none that can come out of a text.
ALTER TABLE conversations_searchentry ADD COLUMN document tsvector GENERATED ALWAYS AS (
    to_tsvector('simple', translate(
        text, $$!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~$$, repeat(' ', 32)
    )) || array_to_tsvector(ARRAY[' ' || owner_id::text])
) STORED;

CREATE INDEX conversations_search_document ON conversations_searchentry USING gin (document);
