/** A new copy of the first element in a `<template>`. */
export function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

/** Whether a key belongs to what is being composed; Safari tells of the last one only by its code. */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** Set an element's text unless it says that already: what is selected stays selected. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
