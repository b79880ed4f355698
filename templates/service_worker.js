// Shows a page of its own when the site cannot be reached. It keeps nothing of what people write:
// only that page, and the files that it needs.
const PAGE = {{ page|safe }};
const FILES = {{ files|safe }};
const CACHE = "agentsite-offline";
const HEADERS = {
  "Content-Type": "text/html; charset=utf-8",
  "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'",
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

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(activate()));
addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  if (request.mode === "navigate") event.respondWith(open(event));
  else if (FILES.includes(new URL(request.url).pathname)) event.respondWith(read(request));
});
