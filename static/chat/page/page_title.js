/**
 * The title of the conversation and of the tab, and the notifications of this page: what shows
 * activity while the tab is in the background.
 */

import { data, fill, words } from "./words.js";

export class PageTitle {
  #isBusy = false;
  #isNew = false;

  /** @param {HTMLElement} heading */
  constructor(heading) {
    this.heading = heading;
    document.addEventListener("visibilitychange", () => this.#look());
  }

  /** @param {string} title */
  rename(title) {
    this.heading.textContent = title;
    this.#show();
  }

  /**
   * Show whether a reply is being written.
   * @param {boolean} isBusy
   */
  setBusy(isBusy) {
    if (isBusy === this.#isBusy) return;
    this.#isBusy = isBusy;
    this.#show();
  }

  /** Announce the end of a reply until the user looks at the page. */
  tellReply() {
    this.#isNew = document.visibilityState !== "visible";
    this.#show();
  }

  #look() {
    if (document.visibilityState !== "visible" || !this.#isNew) return;
    this.#isNew = false;
    this.#show();
  }

  #show() {
    const title = this.heading.textContent;
    const { plain, busy, replied } = words.titles;
    const shown = fill(this.#isBusy ? busy : this.#isNew ? replied : plain, {
      title,
      site: data.site,
    });
    if (document.title !== shown) document.title = shown;
  }
}

/** The key in local storage by which the page of settings switches notifications on. */
const KEY = "agentsite.notices";

/**
 * Show a notification, unless the page is in sight, the user has not asked for any, or the site has
 * its push service do it.
 * @param {string} text
 * @param {string} session_id
 */
export async function notify(text, session_id) {
  const hasPush = data.push && "PushManager" in window;
  if (hasPush || document.visibilityState === "visible" || !isOn()) return;
  const registration = await navigator.serviceWorker?.getRegistration();
  const options = {
    tag: session_id,
    // One that replaces another of the same conversation makes itself heard as well.
    renotify: true,
    data: data.urls.session.replace(/[0-9a-f-]{36}/, session_id),
  };
  await registration?.showNotification(text, options);
}

function isOn() {
  try {
    return localStorage.getItem(KEY) === "on" && Notification.permission === "granted";
  } catch {
    return false;
  }
}
