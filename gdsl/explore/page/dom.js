"use strict";
// Elements from values. What a program says goes into text nodes, and is never read as HTML.

function h(tag, given, ...children) {
  const element = document.createElement(tag);
  return fill(element, given, children);
}

function s(tag, given, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), given, children);
}

function fill(element, given, children) {
  for (const [name, value] of Object.entries(given || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

function show(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
}

const byId = (id) => document.getElementById(id);

// A program's words, as an element with colours.
const KEYWORDS = new Set(
  ("layer param buffer const global graph node source target edge module linear mlp message aggregate update pool def " +
    "nodes reduce init for in if else return at by over and or not true false none").split(" ")
);
const TOKEN = /(#[^\n]*)|("[^"\n]*")|((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*'*)(\s*\()?|([-+*/@<>=!~]+)/g;

// Pieces of a line, as [text, class], which together are the line.
function pieces(line) {
  const found = [];
  let at = 0;
  for (const m of line.matchAll(TOKEN)) {
    if (m.index > at) found.push([line.slice(at, m.index), ""]);
    const word = m[4];
    if (word) {
      const kind = KEYWORDS.has(word) ? "keyword" : m[5] ? "call" : "";
      found.push([word, kind]);
      if (m[5]) found.push([m[5], ""]);
    } else {
      found.push([m[0], m[1] ? "comment" : m[2] ? "string" : m[3] ? "number" : "operator"]);
    }
    at = m.index + m[0].length;
  }
  if (at < line.length) found.push([line.slice(at), ""]);
  return found;
}

const coloured = (line) => pieces(line).map(([text, kind]) => (kind ? h("span", { class: kind }, text) : text));
