/** The page of a diagram, in its frame: draws what the page around it sends, and tells the height. */

/** @type {{ initialize(options: object): void, render(id: string, code: string): Promise<{ svg: string }> }} */
const library = /** @type {any} */ (globalThis).mermaid;
const place = /** @type {HTMLElement} */ (document.getElementById("diagram"));

addEventListener("message", async (event) => {
  if (event.source !== parent) return;
  const { code, isDark } = event.data;
  document.documentElement.style.colorScheme = isDark ? "dark" : "light";
  library.initialize({
    ...{ startOnLoad: false, securityLevel: "strict", theme: isDark ? "dark" : "default" },
    ...{ htmlLabels: false, flowchart: { htmlLabels: false } },
    ...{ maxTextSize: 20_000, maxEdges: 300, suppressErrorRendering: true },
  });
  try {
    const { svg } = await library.render("drawn", code);
    place.innerHTML = svg;
  } catch {
    place.textContent = place.dataset.failed ?? "";
  }
  parent.postMessage({ height: document.documentElement.scrollHeight }, "*");
});
parent.postMessage("ready", "*");
