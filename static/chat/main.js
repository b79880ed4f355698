/** Assembles the chat page: creates its objects, connects them, and routes keys and clicks. */

import { Chat } from "./chat.js";
import { Conversation } from "./conversation/conversation.js";
import { clientIdOf } from "./conversation/unsent_messages.js";
import { Approvals, answerOf } from "./log/approval.js";
import { copyMessage } from "./log/copy_message.js";
import { PageHistory } from "./log/history.js";
import { ReadingPlace } from "./log/reading_place.js";
import { Transcript } from "./log/transcript.js";
import { loadMarkdown } from "./markdown/loading.js";
import { renewToken } from "./page/api.js";
import { ChatScreen } from "./page/chat_screen.js";
import { ConnectionLine } from "./page/connection_line.js";
import { byId, closest, within } from "./page/elements.js";
import { bequeath, inherit, KeptTexts } from "./page/kept.js";
import { closeAccount, leaveToBrowser, routeKeys, Shortcuts } from "./page/keys.js";
import { ModelPanel } from "./page/model.js";
import { PageTitle } from "./page/page_title.js";
import { data, words } from "./page/words.js";
import { AgentPicker } from "./sending/agent_picker.js";
import { Composer } from "./sending/composer.js";
import { Connection, followPage } from "./sending/connection.js";
import { Draft } from "./sending/draft.js";
import { Outbox } from "./sending/outbox.js";
import { Queue } from "./sending/queue.js";
import { Sender } from "./sending/sender.js";
import { SessionList } from "./sessions/list.js";
import { SessionManager } from "./sessions/manager.js";
import { Navigation } from "./sessions/navigation.js";
import { pressInRename } from "./sessions/rename.js";

const address = new URL(data.urls.socket, location.href);
address.protocol = address.protocol.replace("http", "ws");

const scroller = byId("scroller");
/** @param {string} text */
const announce = (text) => byId("announcer").replaceChildren(text);

// Parts of the page

inherit(data.user, document.querySelector("a.sign-in") !== null);
const outbox = new Outbox(data.user);
const kept = new KeptTexts(() => outbox.user);
const connection = new Connection(address.href, (user) => user === outbox.user);
const conversation = new Conversation(data);
const transcript = new Transcript({
  ...{ log: byId("log"), scroller, jump: byId("jump") },
  restore: (element) => manager.feedback.restore(element),
});
const composer = new Composer({
  form: within(document, "form[id=composer]"),
  input: within(document, "textarea[id=prompt]"),
  send: within(document, "button[id=send]"),
  stop: byId("stop"),
  hint: byId("composer-hint"),
  urgent: byId("urgent"),
  editing: byId("editing"),
});
const getCurrent = () => conversation.sessionId;
const queue = new Queue(byId("queue"), kept);
const sessions = new SessionList(byId("session-list"), getCurrent);
const title = new PageTitle(byId("title"));

// Controllers

const approvals = new Approvals({ connection, conversation, kept });
const isConnected = () => connection.state === "open" || !outbox.user;
const screen = new ChatScreen({
  ...{ conversation, transcript, composer, queue, title, approvals, isConnected },
});
const picker = new AgentPicker(byId("welcome"), document.querySelector("select#answering"));
const sender = new Sender({
  ...{ connection, outbox, composer, conversation, picker },
  draw: () => screen.draw(),
  follow: () => transcript.follow(),
});
const draft = new Draft({
  ...{ composer, kept, getSession: getCurrent, reopen: (edit) => sender.reopen(edit) },
});
const history = new PageHistory({
  ...{ conversation, transcript, scroller, announce },
  earlier: byId("earlier"),
  later: byId("later"),
});
const chat = new Chat({
  ...{ connection, outbox, sender, conversation, transcript, history, approvals, screen },
  ...{ composer, queue, draft, kept, sessions, title, announce },
});
const manager = new SessionManager({ sessions, connection, title, announce, getCurrent, kept });
transcript.adopt(conversation);
const line = {
  line: byId("connection"),
  text: byId("connection-text"),
  retry: byId("connection-retry"),
  signIn: within(document, "a[id=connection-sign-in]"),
};
new ConnectionLine(line, { connection, outbox, announce });
const panel = document.getElementById("model");
if (panel) new ModelPanel(panel, { connection, announce });
const shortcuts = new Shortcuts({
  dialog: within(document, "dialog[id=shortcuts]"),
  newChat: byId("new-chat"),
});
byId("show-shortcuts").addEventListener("click", () => shortcuts.show());

// Keys: the first handler that accepts a key ends the search

routeKeys([
  pressInRename,
  (event) => queue.press(event),
  (event) => manager.feedback.press(event),
  (event) => manager.toast.press(event),
  (event) => manager.menu.press(event),
  (event) => manager.search.press(event),
  (event) => shortcuts.press(event),
  closeAccount,
  leaveToBrowser,
  (event) => navigation.press(event),
  (event) => composer.press(event),
]);

// Clicks in the log

/** @type {Record<string, (id: string) => void>} */
const ACTIONS = {
  continue: () => chat.submit(words.continue),
  regenerate: (id) => chat.submit("", { regenerate: id }),
  retry: (id) => chat.submit("", { regenerate: id }),
  revise: (id) => chat.revise(conversation.get(id)),
  drop: (id) => {
    const message = conversation.get(id);
    if (message) chat.drop(message);
  },
  resend: (id) => sender.resend(clientIdOf(id)),
  edit: (id) => sender.edit(clientIdOf(id)),
};

/**
 * The button disappears with its action, so the focus returns to the composer.
 * @param {HTMLElement} button
 */
function act(button) {
  const message = /** @type {HTMLElement} */ (button.closest(".message"));
  composer.focus();
  ACTIONS[button.dataset.action ?? ""](message.dataset.messageId ?? "");
}

/**
 * Send a starter; one that ends with "…" is the beginning of a message, which the user completes.
 * @param {string} text
 */
function begin(text) {
  if (text.endsWith("…")) composer.begin(text.slice(0, -1));
  else chat.submit(text);
}

document.addEventListener("click", (event) => {
  const button = closest(event, "[data-action]");
  if (button) act(button);
  const copy = closest(event, "[data-copy]");
  if (copy) copyMessage(copy, conversation);
  const answer = closest(event, "[data-answer]");
  if (answer) chat.respond(answerOf(answer));
  if (closest(event, "[data-starter], #jump, #connection-retry")) composer.focus();
  const isBlankPart = closest(event, ".composer-box") && !closest(event, "button, select");
  if (isBlankPart) composer.focus();
  const starter = closest(event, "[data-starter]");
  if (starter) begin(starter.textContent);
  if (closest(event, "a.sign-in")) bequeath(outbox.user);
  // A link that replaced the page would end the reply that is being written.
  const link = /** @type {HTMLAnchorElement | null} */ (closest(event, ".rendered a[href^=http]"));
  if (link) link.target = "_blank";
  const menu = within(document, "details.account[open]");
  if (menu && !closest(event, ".account")) menu.open = false;
});

/**
 * Do what the form would request from the server, without leaving the page.
 * @param {SubmitEvent} event
 */
function switchBranch(event) {
  const button = /** @type {HTMLButtonElement} */ (event.submitter);
  event.preventDefault();
  const shown = /** @type {HTMLElement} */ (button.closest(".message"));
  chat.switchTo(button.value, { shown, isNext: !button.nextElementSibling });
}

// What renders replies is there before the first one is.
byId("prompt").addEventListener("input", () => loadMarkdown(), { once: true });
byId("jump").addEventListener("click", () => chat.showLatest());
document.addEventListener("submit", (event) => {
  renewToken(/** @type {HTMLFormElement} */ (event.target));
  if (closest(event, ".switcher")) switchBranch(event);
});

/** Some browsers lay the on-screen keyboard over the page: the page then takes what is left. */
function fitKeyboard() {
  const { visualViewport: seen, innerHeight } = window;
  const { style } = document.documentElement;
  if (seen?.scale === 1 && seen.height < innerHeight) {
    style.setProperty("--visible", `${seen.height}px`);
    scrollTo(0, 0);
  } else {
    style.removeProperty("--visible");
  }
}

window.visualViewport?.addEventListener("resize", fitKeyboard);
composer.enable();
draft.restore();
// Without one, the browser's own page is shown when the site cannot be reached.
if (data.user) navigator.serviceWorker?.register(data.urls.worker).catch(() => {});
const place = new ReadingPlace({ transcript, scroller, earlier: history.earlier });
place.restore();
const navigation = new Navigation({
  ...{ connection, conversation, history, sender, picker, draft, composer, queue, manager, title },
  ...{ place, announce },
});
followPage(connection);
// A page that returns from the back/forward cache is shown again, not loaded again.
addEventListener("pageshow", () => {
  if (outbox.user) connection.start();
});
