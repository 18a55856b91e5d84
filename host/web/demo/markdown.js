// The little of Markdown that agents write, as DOM nodes: nothing that came
// from outside is ever parsed as HTML.

/** Returns the URL if it is an http or https link, else undefined. */
export function safeLink(url) {
  try {
    const { protocol, href } = new URL(url);
    return protocol === "http:" || protocol === "https:" ? href : undefined;
  } catch {
    return undefined;
  }
}

/** Makes an element with properties and children. */
export function el(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

export function anchor(url, label, className = "") {
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer", className }, label);
}

const inlineRules = [
  [/`([^`]+)`/, (m) => el("code", {}, m[1])],
  [/\[([^\]]+)\]\(([^\s)]+)\)/, (m) => (safeLink(m[2]) ? anchor(safeLink(m[2]), m[1]) : m[0])],
  [/\*\*(\S(?:.*?\S)?)\*\*/, (m) => el("strong", {}, ...inline(m[1]))],
  [/(?<![\w*])\*(\S(?:.*?\S)?)\*(?![\w*])/, (m) => el("em", {}, ...inline(m[1]))],
  [/(?<!\w)_(\S(?:.*?\S)?)_(?!\w)/, (m) => el("em", {}, ...inline(m[1]))],
  [/https?:\/\/[^\s<>]*[^\s<>.,;:!?'")\]]/, (m) => anchor(m[0], m[0])],
];

/** The nodes of one line. */
function inline(text) {
  const nodes = [];
  while (text) {
    let first;
    for (const [pattern, make] of inlineRules) {
      const match = pattern.exec(text);
      if (match && (!first || match.index < first.match.index)) first = { match, make };
    }
    if (!first) break;
    const { match, make } = first;
    if (match.index > 0) nodes.push(text.slice(0, match.index));
    nodes.push(make(match));
    text = text.slice(match.index + match[0].length);
  }
  if (text) nodes.push(text);
  return nodes;
}

const bullet = /^\s*[-*]\s+(.*)$/;
const number = /^\s*\d+[.)]\s+(.*)$/;

/** The nodes of a text: paragraphs, lists and fenced code. */
export function markdown(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let paragraph;
  let list;
  while (lines.length) {
    const line = lines.shift();
    if (line.startsWith("```")) {
      const code = [];
      while (lines.length && !lines[0].startsWith("```")) code.push(lines.shift());
      lines.shift();
      blocks.push(el("pre", {}, el("code", {}, code.join("\n"))));
      paragraph = list = undefined;
      continue;
    }
    const item = bullet.exec(line) ?? number.exec(line);
    if (item) {
      const tag = bullet.test(line) ? "UL" : "OL";
      if (list?.tagName !== tag) blocks.push((list = el(tag)));
      list.append(el("li", {}, ...inline(item[1])));
      paragraph = undefined;
      continue;
    }
    list = undefined;
    if (!line.trim()) {
      paragraph = undefined;
      continue;
    }
    if (paragraph) paragraph.append(el("br"));
    else blocks.push((paragraph = el("p")));
    paragraph.append(...inline(line));
  }
  return blocks;
}
