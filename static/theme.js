// Runs before the first paint, so that neither a stored theme nor a closed list flashes.
(() => {
  const KEY = "agentsite.theme";
  const LIST_KEY = "agentsite.list";
  const root = document.documentElement;

  /** @param {string} key */
  function read(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  }

  /**
   * @param {string} key
   * @param {string} value
   */
  function store(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // Storage is blocked: the choice holds for this page.
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
    store(KEY, theme);
  }

  /** Close or open the list of conversations beside a conversation, where there is room for it. */
  function toggleList() {
    const list = root.dataset.list === "closed" ? "open" : "closed";
    root.dataset.list = list;
    store(LIST_KEY, list);
    const buttons = /** @type {NodeListOf<HTMLElement>} */ (
      document.querySelectorAll("[data-drawer]")
    );
    for (const button of buttons) if (button.offsetParent) button.focus();
  }

  apply(read(KEY));
  root.dataset.list = read(LIST_KEY) ?? "open";
  addEventListener("storage", (event) => {
    if (event.key === KEY) apply(event.newValue);
  });
  addEventListener("change", ({ target }) => {
    if (!(target instanceof HTMLInputElement) || !target.matches("[data-reveal]")) return;
    const type = target.checked ? "text" : "password";
    for (const field of target.form?.querySelectorAll("[autocomplete$=password]") ?? []) {
      field.setAttribute("type", type);
    }
  });
  addEventListener("click", (event) => {
    const { target } = event;
    if (!(target instanceof Element)) return;
    if (target.closest("[data-theme-switch]")) toggle();
    if (target.closest("[data-drawer]") && matchMedia("(min-width: 60rem)").matches) {
      // The same button opens the drawer where there is no room.
      event.preventDefault();
      toggleList();
    }
  });
})();
