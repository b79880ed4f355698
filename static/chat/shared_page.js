/** A shared conversation: highlights code, adds copy buttons, and makes wide blocks scrollable. */

import { finishBlocks } from "./markdown/finish/blocks.js";

finishBlocks(document);
