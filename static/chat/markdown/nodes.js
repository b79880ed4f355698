/**
 * Turns Markdown tokens into DOM nodes.
 *
 * Nodes are created one by one, from a fixed set of elements and attributes; no text is ever parsed
 * as HTML. White space between blocks equals that of the server's HTML.
 */

const TAGS = new Set([
  ...["a", "blockquote", "br", "code", "div", "em", "h3", "h4", "h5", "h6", "hr", "input"],
  ...["label", "li", "ol", "p", "pre", "s", "span", "strong", "sup", "table", "tbody", "td"],
  ...["th", "thead", "tr", "ul"],
]);
/** @type {Record<string, string[]>} */
const ATTRIBUTES = {
  a: ["class"],
  blockquote: ["class", "dir"],
  div: ["class", "data-footnote"],
  input: ["type", "disabled", "checked"],
  li: ["class"],
  ol: ["start", "dir"],
  p: ["class"],
  span: ["class"],
  sup: ["class", "data-footnote"],
  table: ["dir"],
  td: ["align"],
  th: ["align"],
  ul: ["dir"],
};
const URL_SCHEMES = new Set(["http:", "https:", "mailto:"]);

/**
 * The nodes of a whole text or of one block.
 * @param {Token[]} tokens
 */
export function nodesOf(tokens) {
  const fragment = document.createDocumentFragment();
  /** @type {ParentNode[]} */
  const path = [fragment];
  tokens.forEach((token, index) => {
    if (token.type === "inline") appendInline(lastOf(path), token.children ?? []);
    else if (!token.hidden) appendBlock(path, token, tokens[index - 1], tokens[index + 1]);
  });
  return fragment;
}

/**
 * The element of one block.
 * @param {Token[]} tokens
 */
export function elementOf(tokens) {
  return /** @type {HTMLElement} */ (nodesOf(tokens).firstElementChild);
}

/**
 * @param {ParentNode[]} path
 * @param {Token} token
 * @param {Token | undefined} previous
 * @param {Token} next
 */
function appendBlock(path, token, previous, next) {
  const parent = lastOf(path);
  if (token.nesting === -1) {
    path.pop();
    addText(lastOf(path), "\n");
    return;
  }
  if (token.nesting === 0) {
    if (previous?.hidden && token.type === "hr") addText(parent, "\n");
    parent.append(leafOf(token), "\n");
    return;
  }
  if (previous?.hidden) addText(parent, "\n");
  const element = newElement(token);
  parent.append(element);
  path.push(element);
  const isInOneLine = next.type === "inline" || next.hidden;
  const isEmpty = next.nesting === -1 && next.tag === token.tag;
  if (!isInOneLine && !isEmpty) addText(element, "\n");
}

/** @param {Token} token */
function leafOf(token) {
  if (token.type === "math") return filled(token);
  return token.type === "hr" ? document.createElement("hr") : codeOf(token);
}

/** @param {Token} token */
function filled(token) {
  const element = newElement(token);
  addText(element, token.content);
  return element;
}

/** @param {Token} token */
function codeOf(token) {
  const block = document.createElement("pre");
  const language = token.type === "fence" ? languageOf(token.info) : "";
  if (language) block.dataset.language = language;
  const code = document.createElement("code");
  addText(code, token.content);
  block.append(code);
  return block;
}

/**
 * The language in the opening line of a code block; empty if it is no plain word.
 * @param {string} info
 */
export function languageOf(info) {
  const [word] = info.trim().toLowerCase().split(/\s+/);
  return /^[a-z0-9_+#.-]{1,30}$/.test(word) ? word : "";
}

/**
 * @param {ParentNode} block
 * @param {Token[]} tokens
 */
function appendInline(block, tokens) {
  const path = [block];
  for (const token of tokens) {
    const parent = lastOf(path);
    if (token.nesting === 1) {
      const element = newElement(token);
      parent.append(element);
      path.push(element);
    } else if (token.nesting === -1) {
      path.pop();
      if (token.meta?.host) appendHost(lastOf(path), String(token.meta.host));
    } else {
      appendWord(parent, token);
    }
  }
}

/**
 * @param {ParentNode} parent
 * @param {Token} token
 */
function appendWord(parent, token) {
  if (token.type === "softbreak" || token.type === "hardbreak") {
    parent.append(document.createElement("br"));
    addText(parent, "\n");
  } else if (token.type === "code_inline") {
    const code = document.createElement("code");
    addText(code, token.content);
    parent.append(code);
  } else if (token.type === "math" || token.type === "task") {
    parent.append(filled(token));
  } else {
    addText(parent, token.content);
  }
}

/**
 * Add the host that a link leads to, if its text does not show it.
 * @param {ParentNode} parent
 * @param {string} host
 */
function appendHost(parent, host) {
  const shown = document.createElement("span");
  shown.className = "link-host";
  shown.append(`(${host})`);
  addText(parent, " ");
  parent.append(shown);
}

/** @param {Token} token */
function newElement(token) {
  if (!TAGS.has(token.tag)) throw new Error(`no place for <${token.tag}>`);
  const element = document.createElement(token.tag);
  const address = String(token.attrGet("href") ?? "");
  if (token.tag === "a" && isAllowed(address)) element.setAttribute("href", address);
  for (const name of ATTRIBUTES[token.tag] ?? []) {
    const value = token.attrGet(name);
    if (value !== null) element.setAttribute(name, String(value));
  }
  if (token.tag === "a") {
    element.setAttribute("target", "_blank");
    element.setAttribute("rel", "noopener noreferrer nofollow");
  }
  return element;
}

/** @param {string} address */
function isAllowed(address) {
  try {
    return URL_SCHEMES.has(new URL(address).protocol);
  } catch {
    return false;
  }
}

/**
 * Merge adjacent texts into one node, as an HTML parser does.
 * @param {ParentNode} parent
 * @param {string} text
 */
function addText(parent, text) {
  if (!text) return;
  if (parent.lastChild instanceof Text) parent.lastChild.appendData(text);
  else parent.append(text);
}

/** @param {ParentNode[]} path */
function lastOf(path) {
  return path[path.length - 1];
}
