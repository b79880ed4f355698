/** markdown-it, with its types. */

import vendored from "../../../vendor/markdown-it.js";

export const MarkdownIt = /** @type {MarkdownIt} */ (/** @type {unknown} */ (vendored));
export const { utils } = MarkdownIt("commonmark");
