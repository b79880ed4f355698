"""Static files as production serves them."""

import re
from typing import Any

from django.core.files.base import ContentFile
from servestatic.storage import CompressedManifestStaticFilesStorage

OWN_MODULES = re.compile(r"^chat/.*\.js$")
COMMENTS = re.compile(rb"^[ \t]*/\*\*(?:(?!\*/).)*\*/[ \t]*\n", re.MULTILINE | re.DOTALL)


class HashedFiles(CompressedManifestStaticFilesStorage):
    """Names carry a hash of the content, `import "./x.js"` inside modules included.

    The page's own modules are served without their comments: types and reasons are a seventh of
    what a first visit would fetch.
    """

    support_js_module_import_aggregation = True

    def _save(self, name: str, content: Any) -> str:
        if OWN_MODULES.match(name):
            content = ContentFile(COMMENTS.sub(b"", b"".join(content.chunks())))
        return str(super()._save(name, content))
