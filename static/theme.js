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
    if (root.dataset.ownTheme) save(theme);
  }

  /**
   * Keep the colours in the account, whose choice holds on every device.
   * @param {string} theme
   */
  function save(theme) {
    root.dataset.ownTheme = theme;
    const token = /csrftoken=(\w+)/.exec(document.cookie)?.[1] ?? "";
    fetch(root.dataset.preferences ?? "", {
      method: "PATCH",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify({ theme }),
    }).catch(() => {});
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

  apply(root.dataset.ownTheme ?? read(KEY));
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  // The server writes dates in this zone.
  // biome-ignore lint/suspicious/noDocumentCookie: not every browser has the Cookie Store API
  document.cookie = `agentsite_zone=${timeZone};path=/;max-age=31536000;samesite=lax`;
  root.dataset.list = read(LIST_KEY) ?? "open";
  addEventListener("storage", (event) => {
    if (event.key === KEY && !root.dataset.ownTheme) apply(event.newValue);
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
