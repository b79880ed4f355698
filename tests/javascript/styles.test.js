/** Style sheets that older browsers can use. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const BASE = readFileSync(new URL("../../static/base.css", import.meta.url), "utf8");

test("every colour has a value for browsers without light-dark()", () => {
  const fallback = BASE.split("@supports not (color: light-dark(")[1] ?? "";
  const colours = [...BASE.matchAll(/(--[\w-]+): light-dark\((#\w+),/g)];
  assert.ok(colours.length > 15);
  for (const [, name, light] of colours) {
    assert.ok(fallback.includes(`${name}: ${light};`), name);
  }
});
