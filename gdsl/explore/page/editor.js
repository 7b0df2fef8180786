"use strict";
// A textarea over the same text with colours, marks under mistakes, and lit lines.

class Editor {
  constructor(onText, onLine, onHover) {
    this.area = byId("text");
    this.under = byId("under");
    this.marks = [];
    this.lit = new Set();
    this.line = 1;
    this.area.addEventListener("input", () => { this.draw(); onText(); });
    for (const event of ["keyup", "click", "focus", "input"]) {
      this.area.addEventListener(event, () => this.moved(onLine));
    }
    this.area.addEventListener("keydown", (event) => this.indent(event));
    this.area.addEventListener("mousemove", (event) => onHover(this.lineAt(event.clientY)));
    this.area.addEventListener("mouseleave", () => onHover(null));
  }

  get text() { return this.area.value; }

  set text(value) {
    this.area.value = value;
    this.area.setSelectionRange(0, 0);
    this.draw();
  }

  moved(onLine) {
    const line = this.text.slice(0, this.area.selectionStart).split("\n").length;
    if (line === this.line) return;
    this.line = line;
    this.light(this.lit);
    onLine(line);
  }

  // Enter keeps the indent. Tab leaves the text, as it does everywhere else on a page.
  indent(event) {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.isComposing) return;
    const before = this.text.slice(0, this.area.selectionStart).split("\n").pop();
    const spaces = before.match(/^ */)[0] + (/\{\s*$/.test(before) ? "    " : "");
    if (!spaces) return;
    event.preventDefault();
    // As if it were typed, so that it can be undone; the event of that draws it.
    document.execCommand("insertText", false, "\n" + spaces);
  }

  lineAt(y) {
    const first = this.under.firstChild.getBoundingClientRect();
    const line = Math.floor((y - first.top) / first.height) + 1;
    return line >= 1 && line <= this.under.childElementCount ? line : null;
  }

  go(line, column) {
    const start = this.text.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0) + column - 1;
    this.area.focus();
    this.area.setSelectionRange(start, start);
    this.line = line;
    this.light(this.lit);
  }

  mark(diagnostics) {
    this.marks = diagnostics;
    this.draw();
  }

  light(lines) {
    this.lit = lines;
    [...this.under.children].forEach((row, k) => {
      row.classList.toggle("lit", lines.has(k + 1));
      row.classList.toggle("here", k + 1 === this.line);
    });
  }

  draw() {
    const lines = this.text.split("\n");
    let start = 0;
    show(this.under, lines.map((line, k) => {
      const end = start + line.length;
      const marks = this.marks.filter((m) => m.start <= end && m.end > start && (m.start < end || m.line === k + 1));
      const row = h("div", { class: "row", "data-line": k + 1 }, marks.length ? marked(line, start, marks) : coloured(line), "\u200b");
      start = end + 1;
      return row;
    }));
    this.light(this.lit);
  }
}

// A line with its mistakes underlined.
function marked(line, offset, marks) {
  const found = [];
  let at = offset;
  for (const [text, kind] of pieces(line)) {
    for (const char of text) {
      const mark = marks.find((m) => m.start <= at && at < m.end);
      const classes = [kind, mark ? mark.severity : ""].filter(Boolean).join(" ");
      const last = found[found.length - 1];
      if (last && last.classes === classes) last.text += char;
      else found.push({ text: char, classes });
      at += char.length;
    }
  }
  if (marks.some((m) => m.start >= at)) found.push({ text: " ", classes: marks[0].severity });
  return found.map(({ text, classes }) => (classes ? h("span", { class: classes }, text) : text));
}
