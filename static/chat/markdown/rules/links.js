/** Links: bare addresses, pictures as links, and the hosts that links lead to. */

import { CJK } from "./emphasis.js";

/** What text is before a character at which a rule may apply; a link may begin at `www.`. */
const PLAIN = /(?:[^\n!#$%&*+\-:<=>@[\\\]^_`{}~w]|w(?!ww\.))+/y;
/**
 * What a bare address ends at, besides the characters of `CJK`: spaces, marks that no address has,
 * and typographic punctuation.
 */
const END = '\\u0000-\\u0020<>"`|\\\\^\\u007f-\\u00a0\\u1680\\u2000-\\u206f\\ufeff\\ufff0-\\uffff';
const HOST =
  "[A-Za-z0-9_\\u00c0-\\u10ff\\u1200-\\u167f\\u1681-\\u1fff\\u2c00-\\u2dff\\ua000-\\ua95f\\-]+";
const REST = `[^${END}${CJK.source.slice(1, -1)}]*`;
const ADDRESS = new RegExp(`^(${HOST}(?:\\.${HOST})*)(?::[0-9]+)?(?:[/?#]${REST})?`, "u");
const USER = new RegExp(`^[^${END}/?#]*@`, "u");
const SCHEME = /(?:^|[^A-Za-z0-9/.@+-])(https?)$/i;
const MAILBOX = /(?:^|[^A-Za-z0-9/.@:+_-]|(mailto:))([A-Za-z0-9.+_-]+)$/i;
const NAME = /^_[A-Za-z0-9.+_-]{0,64}(?=@[A-Za-z0-9])/;
const MAIL_HOST = /^@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+/;
/** What is looked at before and after an address: rules that look further take quadratic time. */
const NAME_CHARS = 80;
const TRIMMED_CHARS = 100;
const ENTITY = /&[A-Za-z0-9]+;$/;
/** @type {Record<string, string>} */
const PAIRS = { ")": "(", "]": "[", "}": "{" };

/**
 * Add the rules of bare addresses, `http://`, `https://`, `www.` and e-mail.
 * @param {Parser} parser
 */
export function linkAddresses(parser) {
  parser.inline.ruler.at("text", takeText);
  parser.inline.ruler.before("emphasis", "mail_name", takeName);
  parser.inline.ruler.push("link_www", linkWww);
  parser.inline.ruler.push("link_address", linkAddress);
  parser.inline.ruler.push("link_email", linkEmail);
}

/** @type {InlineRule} */
function takeText(state, silent) {
  PLAIN.lastIndex = state.pos;
  const [found = ""] = PLAIN.exec(state.src) ?? [];
  const words = found.slice(0, state.posMax - state.pos);
  if (!words) return false;
  if (!silent) state.pending += words;
  state.pos += words.length;
  return true;
}

/** @type {InlineRule} */
function linkWww(state, silent) {
  const { src, pos, posMax } = state;
  const before = src.slice(Math.max(0, pos - 1), pos);
  if (!src.startsWith("www.", pos) || /[A-Za-z0-9/.@+-]/.test(before)) return false;
  const words = matchAddress(src.slice(pos, posMax));
  return words.split(".").length > 2 && pushLink(state, silent, "", words, `http://${words}`);
}

/** @type {InlineRule} */
function linkAddress(state, silent) {
  const { src, pos, posMax, pending } = state;
  const [, scheme] = src.startsWith("://", pos)
    ? (SCHEME.exec(pending.slice(-NAME_CHARS)) ?? [])
    : [];
  if (!scheme) return false;
  const words = matchAddress(src.slice(pos + 3, posMax));
  return !!words && pushLink(state, silent, scheme, `://${words}`, `${scheme}://${words}`);
}

/**
 * Take the rest of a mailbox's name that has `_` in it: no emphasis begins there.
 * @type {InlineRule}
 */
function takeName(state, silent) {
  const { src, pos, posMax } = state;
  const [name] = src[pos] === "_" ? (NAME.exec(src.slice(pos, posMax)) ?? []) : [];
  if (!name || !/[A-Za-z0-9]/.test(src[pos - 1] ?? "")) return false;
  if (!silent) state.pending += name;
  state.pos += name.length;
  return true;
}

/** @type {InlineRule} */
function linkEmail(state, silent) {
  const { src, pos, posMax, pending } = state;
  if (src[pos] !== "@") return false;
  const [, scheme = "", name] = MAILBOX.exec(pending.slice(-NAME_CHARS)) ?? [];
  const [host] = MAIL_HOST.exec(src.slice(pos, posMax)) ?? [];
  if (!name || !host || /[-_]$/.test(host) || src[pos + host.length] === "@") return false;
  return pushLink(state, silent, scheme + name, host, `mailto:${name}${host}`);
}

/**
 * The host and the path at the start of `text`; empty if there is no sound host.
 * @param {string} text
 */
function matchAddress(text) {
  const [address = "", host = ""] = ADDRESS.exec(text) ?? [];
  const hasSoundName = !host.split(".").slice(-2).join("").includes("_");
  return hasSoundName && !USER.test(text.slice(host.length)) ? trim(address) : "";
}

/**
 * The address without the punctuation of the sentence around it.
 * @param {string} address
 */
function trim(address) {
  let shown = address;
  for (let count = 0; count < TRIMMED_CHARS; count += 1) {
    const last = shown.slice(-1);
    const opening = PAIRS[last];
    if (last === ";") {
      const [entity = ";"] = ENTITY.exec(shown.slice(-NAME_CHARS)) ?? [];
      shown = shown.slice(0, -entity.length);
    } else if (last && ("?!.,:*_~'".includes(last) || (opening && isOver(shown, last, opening)))) {
      shown = shown.slice(0, -1);
    } else {
      break;
    }
  }
  return shown;
}

/**
 * @param {string} text
 * @param {string} closing
 * @param {string} opening
 */
function isOver(text, closing, opening) {
  return text.split(closing).length > text.split(opening).length;
}

/**
 * Make a link of the end of the pending text, which is `before`, and of `after`; not in links, nor
 * while the parser looks for the end of the words of a link.
 * @param {InlineState} state
 * @param {boolean} silent
 * @param {string} before
 * @param {string} after
 * @param {string} href
 */
function pushLink(state, silent, before, after, href) {
  const address = state.md.normalizeLink(href);
  if (silent || state.linkLevel > 0 || !state.md.validateLink(address)) return false;
  state.pending = state.pending.slice(0, state.pending.length - before.length);
  state.push("link_open", "a", 1).attrs = [["href", address]];
  state.push("text", "", 0).content = before + after;
  state.push("link_close", "a", -1);
  state.pos += after.length;
  return true;
}

/** @param {CoreState} at */
export function linkImages({ tokens, Token }) {
  for (const block of tokens) {
    let isInLink = false;
    block.children = (block.children ?? []).flatMap((token) => {
      if (token.type === "link_open" || token.type === "link_close") {
        isInLink = token.type === "link_open";
      }
      return token.type === "image" ? imageLink(Token, token, isInLink) : [token];
    });
  }
}

/**
 * A link to the picture; inside another link only its text.
 * @param {CoreState["Token"]} Token
 * @param {Token} image
 * @param {boolean} isInLink
 */
function imageLink(Token, image, isInLink) {
  const address = String(image.attrGet("src") ?? "");
  const words = new Token("text", "", 0);
  words.content = image.content || address;
  if (isInLink) return [words];
  const opening = new Token("link_open", "a", 1);
  opening.attrs = [
    ["href", address],
    ["class", "picture"],
  ];
  return [opening, words, new Token("link_close", "a", -1)];
}

/** @param {CoreState} at */
export function nameHosts({ tokens }) {
  for (const block of tokens) markLinks(block.children ?? []);
}

/**
 * Give each closing link token the host that the link's text does not show.
 * @param {Token[]} tokens
 */
function markLinks(tokens) {
  let host = "";
  let words = "";
  for (const token of tokens) {
    if (token.type === "link_open") {
      host = hostOf(String(token.attrGet("href") ?? ""));
      words = "";
    } else if (token.type === "link_close") {
      const isShown = hostOf(words) === host && !words.includes(" ");
      token.meta = { host: isShown ? "" : host };
    } else {
      words += token.content;
    }
  }
}

/** @param {string} href */
function hostOf(href) {
  const address = href.startsWith("www.") ? `http://${href}` : href;
  const [, authority = ""] = /^(?:[a-z][a-z0-9+.-]*:)?\/\/([^/?#]*)/i.exec(address) ?? [];
  const host = authority.slice(authority.lastIndexOf("@") + 1);
  const [, bracketed] = /^\[([^\]]*)/.exec(host) ?? [];
  return (bracketed ?? host.split(":")[0]).toLowerCase();
}
