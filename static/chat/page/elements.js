/** Helpers that find, create and change elements of the page. */

/**
 * The element with that id; the page's template must contain it.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/**
 * The first element in `root` that matches; the page's template must contain it. A selector that
 * begins with a tag name determines the type of the result.
 * @template {string} S
 * @param {ParentNode} root
 * @param {S} selector
 * @returns {ElementOf<S>}
 */
export function within(root, selector) {
  return /** @type {any} */ (root.querySelector(selector));
}

/**
 * All elements in `root` that match.
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {HTMLElement[]}
 */
export function all(root, selector) {
  return [...root.querySelectorAll(/** @type {"div"} */ (selector))];
}

/**
 * The nearest matching ancestor of an event's target, or the target itself.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function closest({ target }, selector) {
  return target instanceof Element ? target.closest(selector) : null;
}

/**
 * A new copy of the first element in a `<template>`.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function fromTemplate(id) {
  const { content } = /** @type {HTMLTemplateElement} */ (document.getElementById(id));
  return /** @type {HTMLElement} */ (content.firstElementChild?.cloneNode(true));
}

/** After a dialog: if the drawer that opened it is closed, focus the button that opens that. */
export function focusLost() {
  const focused = document.activeElement;
  const isLost = focused === document.body || !focused?.checkVisibility();
  if (isLost) within(document, ".topbar [data-drawer]").focus();
}

/**
 * The field with that name in a form.
 * @param {HTMLFormElement} form
 * @param {string} name
 * @returns {HTMLInputElement}
 */
export function fieldOf(form, name) {
  return /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
}

/**
 * Set an element's text unless it is the same already: that keeps the selection.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
