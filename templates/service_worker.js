// Shows a page of its own when the site cannot be reached. It keeps nothing of what people write:
// only that page, and the files that it needs.
const PAGE = {{ page|safe }};
const FILES = {{ files|safe }};
const ICON = {{ icon|safe }};
const CACHE = "agentsite-offline";
const HEADERS = {
  "Content-Type": "text/html; charset=utf-8",
  "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'",
};

async function install() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES);
}

async function activate() {
  await registration.navigationPreload?.enable();
  const cache = await caches.open(CACHE);
  for (const { url } of await cache.keys()) {
    if (!FILES.includes(new URL(url).pathname)) await cache.delete(url);
  }
}

async function open({ request, preloadResponse }) {
  try {
    return (await preloadResponse) ?? (await fetch(request));
  } catch {
    return new Response(PAGE, { status: 503, headers: HEADERS });
  }
}

async function read(request) {
  try {
    return await fetch(request);
  } catch {
    return (await caches.match(request)) ?? Response.error();
  }
}

/** @param {PushEvent} event */
async function push({ data }) {
  const { title, body, session_id } = data.json();
  const pages = await clients.matchAll({ type: "window", includeUncontrolled: true });
  // Who sees the site need not be told.
  if (pages.some((page) => page.visibilityState === "visible")) return;
  await registration.showNotification(title, {
    ...{ body, tag: session_id, renotify: true, icon: ICON, data: `{{ session_url|safe }}`.replace("SESSION", session_id) },
  });
}

/** Open the conversation, in a page that shows it already if there is one. */
async function openSession({ notification }) {
  notification.close();
  const pages = await clients.matchAll({ type: "window", includeUncontrolled: true });
  const shown = pages.find((page) => new URL(page.url).pathname === notification.data);
  await (shown ? shown.focus() : clients.openWindow(notification.data));
}

addEventListener("push", (event) => event.waitUntil(push(event)));
addEventListener("notificationclick", (event) => event.waitUntil(openSession(event)));
addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(activate()));
addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  if (request.mode === "navigate") event.respondWith(open(event));
  else if (FILES.includes(new URL(request.url).pathname)) event.respondWith(read(request));
});
