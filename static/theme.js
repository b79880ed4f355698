// Runs before the first paint, so that a stored theme does not flash.
(() => {
  const KEY = "agentsite.theme";
  const root = document.documentElement;

  function read() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  }

  /** @param {string | null} theme */
  function apply(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  function isDark() {
    if (root.dataset.theme) return root.dataset.theme === "dark";
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function toggle() {
    const theme = isDark() ? "light" : "dark";
    apply(theme);
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Storage is blocked: the choice holds for this page.
    }
  }

  apply(read());
  addEventListener("storage", (event) => {
    if (event.key === KEY) apply(event.newValue);
  });
  addEventListener("click", (event) => {
    const { target } = event;
    if (target instanceof Element && target.closest("[data-theme-switch]")) toggle();
  });
})();
