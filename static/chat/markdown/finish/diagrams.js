/**
 * Draws diagrams: Mermaid runs in a frame that may neither reach this page nor fetch anything.
 */

const MAX_CHARS = 20_000;
const MAX_HEIGHT = 1_200;

/**
 * Show the diagram that `code` describes in `frame`; `page` is the address of the frame's page.
 * @param {HTMLIFrameElement} frame
 * @param {string} page
 * @param {string} code
 */
export function drawDiagram(frame, page, code) {
  frame.className = "diagram-frame";
  frame.setAttribute("sandbox", "allow-scripts");
  frame.referrerPolicy = "no-referrer";
  drawings.set(frame, { code: code.slice(0, MAX_CHARS), isDark: prefersDark() });
  frame.src = page;
}

/** @type {WeakMap<HTMLIFrameElement, { code: string, isDark: boolean }>} */
const drawings = new WeakMap();

addEventListener("message", ({ source, data }) => {
  const frames = [...document.querySelectorAll("iframe")];
  const frame = frames.find(({ contentWindow }) => contentWindow === source);
  const drawing = frame && drawings.get(frame);
  if (!drawing) return;
  if (data === "ready") {
    // The frame has no origin of its own that could be named.
    frame.contentWindow?.postMessage(drawing, "*");
  } else {
    const height = Number(data?.height);
    if (height > 0) frame.style.height = `${Math.min(height, MAX_HEIGHT)}px`;
  }
});

function prefersDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
