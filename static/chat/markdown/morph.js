/**
 * Make `present` equal to `node`, but leave equal nodes untouched: they keep selection and scroll
 * position.
 * @param {ChildNode} present
 * @param {ChildNode} node
 */
export function morph(present, node) {
  if (isDrawn(present, node)) return;
  if (present instanceof Text && node instanceof Text) {
    morphText(present, node.data);
  } else if (
    present instanceof Element &&
    node instanceof Element &&
    present.nodeName === node.nodeName
  ) {
    morphAttributes(present, node);
    morphChildren(present, node);
  } else {
    present.replaceWith(node);
  }
}

/**
 * Whether `present` shows the formula that `node` has as TeX.
 * @param {ChildNode} present
 * @param {ChildNode} node
 */
function isDrawn(present, node) {
  const tex = present instanceof Element ? present.getAttribute("data-tex") : null;
  return (
    tex !== null && node instanceof Element && node.matches(".math") && node.textContent === tex
  );
}

/**
 * Make the children of `present` after the first `kept` ones equal to those of `node`.
 * @param {Element} present
 * @param {Node} node
 */
export function morphChildren(present, node, kept = 0) {
  const wanted = [...node.childNodes];
  wanted.forEach((child, index) => {
    const old = present.childNodes[kept + index];
    if (old) morph(old, child);
    else present.append(child);
  });
  while (present.childNodes.length > kept + wanted.length) present.lastChild?.remove();
}

/**
 * @param {Text} present
 * @param {string} text
 */
function morphText(present, text) {
  if (present.data === text) return;
  if (text.startsWith(present.data)) present.appendData(text.slice(present.length));
  else present.data = text;
}

/**
 * @param {Element} present
 * @param {Element} node
 */
function morphAttributes(present, node) {
  const wanted = [...node.attributes];
  const isAlike = wanted.every(({ name, value }) => present.getAttribute(name) === value);
  if (present.attributes.length === wanted.length && isAlike) return;
  for (const { name } of [...present.attributes]) present.removeAttribute(name);
  for (const { name, value } of wanted) present.setAttribute(name, value);
}
