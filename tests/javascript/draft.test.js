/** Drafts that the browser does not store live as long as the page. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

globalThis.document = { getElementById: () => ({ textContent: "{}" }), documentElement: {} };
globalThis.addEventListener = () => {};
const { KeptTexts } = await import("../../static/chat/page/kept.js");
const { Draft } = await import("../../static/chat/sending/draft.js");

/** Storage of a browser that is full after `max` characters; undefined: it is blocked. */
class Storage {
  items = new Map();

  constructor(max) {
    this.max = max;
  }

  getItem(key) {
    return this.items.get(key) ?? null;
  }

  setItem(key, text) {
    if (text.length > this.max) throw new Error("full");
    this.items.set(key, text);
  }

  removeItem(key) {
    this.items.delete(key);
  }
}

let session = "a";
let composer;
let draft;

beforeEach(() => {
  session = "a";
  globalThis.window = { localStorage: new Storage(10), sessionStorage: new Storage(10) };
  composer = { input: new EventTarget(), draft: "", revision: null, replace: (text) => type(text) };
  const kept = new KeptTexts(() => "ann");
  draft = new Draft({ composer, kept, getSession: () => session, reopen() {} });
});

function type(text) {
  composer.input.value = composer.draft = text;
  composer.input.dispatchEvent(new Event("input"));
}

function goTo(to) {
  session = to;
  draft.open(composer.draft);
}

test("it is there after another conversation was shown, though the storage is full", () => {
  type("short");
  type("longer than its storage");
  goTo("b");
  assert.equal(composer.draft, "");
  goTo("a");
  assert.equal(composer.draft, "longer than its storage");
  type("short");
  goTo("b");
  goTo("a");
  assert.equal(composer.draft, "short");
});

test("the same without any storage", () => {
  globalThis.window = {};
  type("half a sentence");
  goTo("b");
  goTo("a");
  assert.equal(composer.draft, "half a sentence");
  type("");
  goTo("b");
  goTo("a");
  assert.equal(composer.draft, "");
});
