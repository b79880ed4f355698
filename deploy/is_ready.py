"""Ends with status 0 if the web process beside it may be sent requests, else with 1.

The health check of the container image, which has no curl.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException


def is_ready() -> bool:
    """Ask `/readyz/` as one of the site's hosts, since Django refuses others."""
    host = os.environ.get("ALLOWED_HOSTS", "").split(",")[0] or "localhost"
    try:
        connection = HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=4)
        connection.request("GET", "/readyz/", headers={"Host": host})
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False


if __name__ == "__main__":
    sys.exit(not is_ready())
