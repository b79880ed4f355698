/** Switches notifications on this device on and off, on the page of settings. */

const section = /** @type {HTMLElement} */ (document.getElementById("notices"));
const { push = "", key = "", worker = "" } = section.dataset;
const KEY = "agentsite.notices";

/** @param {string} name */
function part(name) {
  return /** @type {HTMLElement} */ (document.getElementById(`notices-${name}`));
}

/**
 * @param {"POST" | "DELETE"} method
 * @param {object} body
 */
async function ask(method, body) {
  const token = section.querySelector("input")?.value ?? "";
  const headers = { "Content-Type": "application/json", "X-CSRFToken": token };
  const answer = await fetch(push, { method, headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${push}: ${answer.status}`);
}

async function subscription() {
  if (!key || !("PushManager" in window)) return null;
  const registration = await navigator.serviceWorker.register(worker);
  return registration.pushManager.getSubscription();
}

function isAsked() {
  return localStorage.getItem(KEY) === "on" && Notification.permission === "granted";
}

/** @param {PushSubscription} made */
async function store(made) {
  await ask("POST", { ...made.toJSON(), language: document.documentElement.lang });
}

/** Notify who is signed in now: the device may have been switched on by somebody else, or before. */
async function renew() {
  const made = isAsked() && (await subscription());
  if (made) await store(made);
}

async function show() {
  const isOn = isAsked() && (!key || Boolean(await subscription()));
  part("on").hidden = isOn || Notification.permission === "denied";
  part("off").hidden = !isOn;
  part("denied").hidden = Notification.permission !== "denied";
  section.hidden = false;
}

async function turnOn() {
  if ((await Notification.requestPermission()) === "granted") {
    if (key && "PushManager" in window) {
      await navigator.serviceWorker.register(worker);
      const registration = await navigator.serviceWorker.ready;
      const options = { userVisibleOnly: true, applicationServerKey: key };
      await store(await registration.pushManager.subscribe(options));
    }
    localStorage.setItem(KEY, "on");
  }
}

async function turnOff() {
  const made = await subscription();
  if (made) {
    await ask("DELETE", { endpoint: made.endpoint });
    await made.unsubscribe();
  }
  localStorage.removeItem(KEY);
}

/** @param {() => Promise<void>} change */
async function attempt(change) {
  part("failed").hidden = true;
  try {
    await change();
  } catch {
    part("failed").hidden = false;
  }
  await show();
}

if ("Notification" in window && "serviceWorker" in navigator) {
  part("on").addEventListener("click", () => attempt(turnOn));
  part("off").addEventListener("click", () => attempt(turnOff));
  attempt(renew);
}
