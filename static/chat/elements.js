/** A new copy of the first element in a `<template>`. */
export function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

/** Set an element's text unless it says that already: what is selected stays selected. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
