// How each part of an agent's message is shown.

import { anchor, el, markdown, safeLink } from "./markdown.js";

/** The nodes of a message. reply is called with what the user chose of quick replies. */
export function showParts(parts, reply) {
  return parts.map((part) => {
    const url = "url" in part ? safeLink(part.url) : undefined;
    const node = "url" in part && !url ? broken() : (Object.hasOwn(shown, part.type) ? shown[part.type] : shown.user_defined)(part, url, reply);
    node.dataset.part = part.type;
    return node;
  });
}

const shown = {
  text: ({ text }) => el("div", { className: "md" }, ...markdown(text)),
  image: ({ title, alt_text }, url) =>
    figure(el("img", { src: url, alt: alt_text ?? title ?? "", referrerPolicy: "no-referrer" }), title),
  video: ({ title, alt_text }, url) =>
    figure(el("video", { src: url, controls: true, preload: "metadata", ariaLabel: alt_text ?? title ?? "Video" }), title),
  link: ({ label }, url) => anchor(url, label || url, "linkbutton"),
  inline_error: ({ text }) => el("p", { className: "inlineerror" }, text),
  file: ({ name, size }, url) => {
    const link = anchor(url, "", "file");
    link.append(el("b", {}, name || new URL(url).pathname.split("/").pop() || url), el("span", {}, bytes(size)));
    return link;
  },
  quick_replies: ({ text, replies }, _url, reply) => {
    const choices = el("div", { className: "choices" });
    for (const { label, value } of replies) {
      const button = el("button", { type: "button", className: "choice" }, label);
      button.addEventListener("click", () => {
        for (const other of choices.children) other.disabled = true;
        button.classList.add("chosen");
        reply(value || label);
      });
      choices.append(button);
    }
    return el("div", {}, ...(text ? markdown(text) : []), choices);
  },
  user_defined: (part) =>
    el("details", { className: "data" }, el("summary", {}, "Data for the page"), el("pre", {}, JSON.stringify(part.data ?? part, null, 2))),
};

function figure(media, title) {
  media.addEventListener("error", () => media.replaceWith(broken()));
  return el("figure", {}, media, ...(title ? [el("figcaption", {}, title)] : []));
}

function broken() {
  return el("p", { className: "inlineerror" }, "This cannot be shown.");
}

function bytes(size) {
  if (!size) return "";
  const unit = size < 1e3 ? ["byte", 1] : size < 1e6 ? ["kilobyte", 1e3] : ["megabyte", 1e6];
  return new Intl.NumberFormat(undefined, { style: "unit", unit: unit[0], maximumFractionDigits: 1 }).format(size / unit[1]);
}
