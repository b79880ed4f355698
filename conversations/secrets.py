"""Tokens that are kept as hashes: a copy of the database lets nobody in."""

import hashlib
import secrets

TOKEN_BYTES = 32


def make_token() -> str:
    """256 random bits, fit for an address."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_token(token: str) -> str:
    """What is kept; a slow hash would add nothing to so much randomness."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
