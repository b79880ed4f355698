// One conversation: what has been said is on the page already, what comes is added to it.
const data = JSON.parse(document.getElementById("data").textContent);
const said = document.getElementById("said");
const note = document.getElementById("note");
const form = document.getElementById("ask");
const socket = new WebSocket(data.socket);
const asked = {};
let sessionId = data.session_id;

function send(type, fields) {
  socket.send(JSON.stringify({ type, session_id: sessionId, ...fields }));
}

function articleOf(messageId) {
  let article = document.getElementById(`m${messageId}`);
  if (!article) {
    article = document.createElement("article");
    article.id = `m${messageId}`;
    said.append(article);
  }
  return article;
}

function onStatus({ session_id, content, metadata }) {
  note.textContent = content;
  if (metadata.event === "accepted") {
    articleOf(metadata.user_message_id).textContent = asked[metadata.client_message_id];
    articleOf(metadata.message_id);
    if (!sessionId) {
      sessionId = session_id;
      send("resume");
    }
  } else if (metadata.parts) {
    // A message that is new here, or what was missed of the reply that is being written.
    const texts = metadata.parts.filter((part) => part.type === "text").map((part) => part.text);
    articleOf(metadata.message_id).textContent = texts.join("\n\n");
  }
}

const on = {
  status: onStatus,
  token: ({ content, metadata }) => articleOf(metadata.message_id).append(content),
  complete: ({ metadata }) => {
    // Markdown that the server has rendered and sanitised.
    articleOf(metadata.message_id).innerHTML = metadata.html;
    note.textContent = "";
  },
  error: ({ content }) => (note.textContent = content),
};

socket.onopen = () => {
  if (sessionId) send("resume", { metadata: data.cursor });
  form.querySelector("button").disabled = false;
};
socket.onmessage = ({ data: text }) => {
  const frame = JSON.parse(text);
  on[frame.type]?.(frame);
};
// The page comes back with all that was shown, and goes on from there.
socket.onclose = function comeBack() {
  setTimeout(() => fetch(location.href).then(() => location.reload(), comeBack), 2000);
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const id = `${Date.now()}-${Math.random()}`;
  asked[id] = form.elements.content.value;
  send("chat", { content: asked[id], metadata: { client_message_id: id } });
  form.reset();
});
