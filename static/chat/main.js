/** Puts the chat page together. */

import { AgentPicker } from "./agent_picker.js";
import { answerOf } from "./approval.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { Connection, followPage } from "./connection.js";
import { ConnectionLine } from "./connection_line.js";
import { copyMessage } from "./copy_message.js";
import { Draft } from "./draft.js";
import { ModelPanel } from "./model.js";
import { MoreMessages } from "./more_messages.js";
import { Outbox } from "./outbox.js";
import { Queue } from "./queue.js";
import { PageTitle } from "./page_title.js";
import { ReadingPlace } from "./reading_place.js";
import { SessionList } from "./session_list.js";
import { Shortcuts } from "./shortcuts.js";
import { SessionManager } from "./session_manager.js";
import { Transcript } from "./transcript.js";
import { data, words } from "./words.js";

const find = (id) => document.getElementById(id);
const address = new URL(data.urls.socket, location.href);
address.protocol = address.protocol.replace("http", "ws");

const outbox = new Outbox(data.user);
const connection = new Connection(address.href, (user) => user === outbox.user);
const transcript = new Transcript({
  log: find("log"),
  scroller: find("scroller"),
  jump: find("jump"),
});
const composer = new Composer({
  form: find("composer"),
  input: find("prompt"),
  send: find("send"),
  stop: find("stop"),
  hint: find("composer-hint"),
  urgent: find("urgent"),
  editing: find("editing"),
});
const sessions = new SessionList(find("session-list"), () => chat.conversation.sessionId);
const announce = (text) => find("announcer").replaceChildren(text);
const chat = new Chat({
  connection,
  outbox,
  transcript,
  composer,
  queue: new Queue(find("queue")),
  sessions,
  picker: new AgentPicker(find("welcome")),
  title: new PageTitle(find("title")),
  announce,
});
const scroller = find("scroller");
const earlier = new MoreMessages({ element: find("earlier"), scroller }, (history) =>
  chat.addEarlier(history),
);
const later = new MoreMessages({ element: find("later"), scroller }, (history) =>
  chat.addLater(history),
);
const shortcuts = new Shortcuts({ dialog: find("shortcuts"), newChat: find("new-chat") });
find("show-shortcuts").addEventListener("click", () => shortcuts.show());
const draft = new Draft(composer, () => ({
  user: outbox.user,
  session: chat.conversation.sessionId,
}));
Object.assign(chat, { earlier, later, draft });
new SessionManager({
  sessions,
  connection,
  announce,
  getCurrent: () => chat.conversation.sessionId,
});
const line = {
  line: find("connection"),
  text: find("connection-text"),
  retry: find("connection-retry"),
  signIn: find("connection-sign-in"),
};
const countUnsent = () => outbox.unsent.length;
new ConnectionLine(line, { connection, countUnsent, announce });

const model = { panel: find("model"), detail: find("model-detail"), progress: find("model-progress") };
new ModelPanel(model, { connection, announce });

const ACTIONS = {
  continue: () => chat.submit(words.continue),
  regenerate: (id) => chat.submit("", { regenerate: id }),
  retry: (id) => chat.submit("", { regenerate: id }),
  revise: (id) => chat.revise(id),
  drop: (id) => chat.drop(chat.conversation.get(id)),
  resend: (id) => chat.sender.resend(id.replace("prompt:", "")),
  edit: (id) => chat.sender.edit(id.replace("prompt:", "")),
};

/** The button goes away with what it does: the focus goes back to where one types. */
function act(button) {
  const { messageId } = button.closest(".message").dataset;
  composer.focus();
  ACTIONS[button.dataset.action](messageId);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (button) act(button);
  const copy = event.target.closest("[data-copy]");
  if (copy) copyMessage(copy, chat);
  const answer = event.target.closest("[data-answer]");
  if (answer) chat.respond(answerOf(answer));
  if (event.target.closest("[data-starter], #jump, #connection-retry")) composer.focus();
  const starter = event.target.closest("[data-starter]");
  if (starter) chat.submit(starter.textContent);
  const menu = document.querySelector(".account[open]");
  if (menu && !menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  const menu = document.querySelector(".account[open]");
  if (!menu || event.key !== "Escape") return;
  menu.open = false;
  menu.firstElementChild.focus();
});

/** What the form would ask the server for, without leaving the page. */
function switchBranch(event) {
  const button = event.submitter;
  event.preventDefault();
  const shown = button.closest(".message");
  chat.switchTo(button.value, { shown, isNext: !button.nextElementSibling });
}

find("jump").addEventListener("click", () => chat.showLatest());
document.addEventListener("submit", (event) => {
  if (event.target.matches(".switcher")) switchBranch(event);
});

composer.enable();
draft.restore();
new ReadingPlace({ transcript, scroller, earlier }).restore();
followPage(connection);
// A page that comes back from the browser's memory is shown again, not loaded again.
addEventListener("pageshow", () => {
  if (outbox.user) connection.start();
});
