"""A language model of the site's own: fetched once, served on loopback by a child process.

Nothing but this package knows how; the rest sees one more OpenAI-compatible server.
"""
