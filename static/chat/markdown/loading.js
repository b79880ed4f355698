/** Loads what renders Markdown on the page: a first visit shows no reply that grows. */

/** @type {typeof import("./stream.js") | null} */
let loaded = null;
/** @type {Promise<boolean> | null} */
let loading = null;

/** Start loading, unless that was done; resolves to whether it has been loaded. */
export function loadMarkdown() {
  loading ??= load();
  return loading;
}

/** The module, once it has been loaded. */
export function markdown() {
  return loaded;
}

async function load() {
  try {
    loaded = await import("./stream.js");
  } catch {
    // The next text asks again.
    loading = null;
  }
  return loaded !== null;
}
