"""Static files as production serves them."""

from servestatic.storage import CompressedManifestStaticFilesStorage


class HashedFiles(CompressedManifestStaticFilesStorage):
    """Names carry a hash of the content, `import "./x.js"` inside modules included."""

    support_js_module_import_aggregation = True
