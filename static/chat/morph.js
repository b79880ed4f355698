/** Make `present` like `node` and leave alone what is alike: it keeps its selection and its place. */
export function morph(present, node) {
  if (present.nodeName !== node.nodeName) {
    present.replaceWith(node);
  } else if (present.nodeType === Node.TEXT_NODE) {
    morphText(present, node.data);
  } else {
    morphAttributes(present, node);
    morphChildren(present, node);
  }
}

/** The children of `present` behind the first `kept` ones become like those of `node`. */
export function morphChildren(present, node, kept = 0) {
  const wanted = [...node.childNodes];
  wanted.forEach((child, index) => {
    const old = present.childNodes[kept + index];
    if (old) morph(old, child);
    else present.append(child);
  });
  while (present.childNodes.length > kept + wanted.length) present.lastChild.remove();
}

function morphText(present, text) {
  if (present.data === text) return;
  if (text.startsWith(present.data)) present.appendData(text.slice(present.length));
  else present.data = text;
}

function morphAttributes(present, node) {
  const wanted = [...node.attributes];
  const isAlike = ({ name, value }) => present.getAttribute(name) === value;
  if (present.attributes.length === wanted.length && wanted.every(isAlike)) return;
  for (const { name } of [...present.attributes]) present.removeAttribute(name);
  for (const { name, value } of wanted) present.setAttribute(name, value);
}
