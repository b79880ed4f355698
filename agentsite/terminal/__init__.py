"""A chat in a terminal with any site of this kind: `manage.py chat`.

Like the client that it uses, it needs aiohttp alone: `python -m agentsite.terminal`.
"""
