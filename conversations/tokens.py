"""How many tokens a text is, without the model's own tokenizer."""

BYTES_PER_TOKEN = 4
"""Of UTF-8: near the truth for English, and for scripts whose letters take more bytes."""


def byte_count(text: str) -> int:
    """In UTF-8, of any text."""
    return len(text.encode("utf-8", "surrogatepass"))


def tokens_in(size: int) -> int:
    """How many tokens so many bytes are; never zero for what is not empty."""
    return -(-size // BYTES_PER_TOKEN)


def estimate_tokens(text: str) -> int:
    """How many tokens `text` is."""
    return tokens_in(byte_count(text))
