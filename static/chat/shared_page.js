/** A shared conversation: code in colour, with a button to copy it, and room to scroll. */

import { finishBlocks } from "./markdown/blocks.js";

finishBlocks(document);
