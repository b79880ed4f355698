/** A shared conversation: highlights code, adds copy buttons, and makes wide blocks scrollable. */

import { finishBlocks } from "./markdown/blocks.js";

finishBlocks(document);
