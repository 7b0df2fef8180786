"use strict";
// The state of the page, what changes it, and what asks the server.

const start = JSON.parse(byId("start").textContent);
const TABS = {
  line: ["Line", valuePane, ["stages", "flow"]],
  rewrites: ["Rewrites", rewritesPane, ["rewrites"]],
  kernels: ["Kernels", kernelsPane, ["flow"]],
  code: ["Code", codePane, ["code"]],
  cost: ["Cost", costPane, ["flow"]],
  node: ["Node", nodePane, []],
  versions: ["Versions", versionsPane, ["stages", "flow"]],
};
const WAIT = 60; // milliseconds without a keystroke

const fromLink = readLink();
const app = {
  server: start.server,
  settings: { layer: null, values: {}, inputs: [], nodes: 100000, degree: 16, device: "cpu", profile: "even", machine: 0, ...start.settings, ...(fromLink ? fromLink.settings : {}) },
  machines: start.machines || [],
  view: null, tab: "line", line: 1, picked: null, pinned: null,
  step: { section: 0, at: 0 },
  code: { language: "cpp", stage: "asm", kernel: null, open: false },
  node: { node: 0, profile: "even", at: 0 },
  nodeView: null, machineView: null,
  asking: false, pending: null, timer: null,

  // ---------------------------------------------------------------------------------- changes

  change(values) {
    const focus = document.activeElement && byId("pane").contains(document.activeElement) ? focusKey(document.activeElement) : null;
    Object.assign(this, values);
    this.draw();
    if (focus) refocus(focus);
    this.fetch();
  },

  choose(values) {
    Object.assign(this.settings, values);
    if (this.settings.machine < this.machines.length) this.settings.device = this.machines[this.settings.machine].device;
    this.draw();
    this.later();
  },

  pick(step) {
    if (step.kind === "kernel") this.change({ tab: "code", code: { ...this.code, language: "cpp", kernel: step.name } });
    else this.change({ tab: "kernels", picked: step.id });
  },

  pin() { this.change({ pinned: this.view }); },

  goTo(line) { this.editor.go(line, 1); this.lineChanged(line); },

  lineChanged(line) {
    this.line = line;
    if (this.tab === "line") this.drawPane();
    this.light(line);
    ["source", "machine"].forEach((id) => revealSoon(id, ".lit"));
  },

  // ------------------------------------------------------------------------------- pointing

  point(line) { this.light(line || this.line, line !== null); },

  pointMany(lines) {
    this.editor.light(new Set(lines));
  },

  pointCode(of, line) {
    for (const row of document.querySelectorAll(".listing .row")) row.classList.toggle("on", of !== null && row.dataset.of === String(of));
    this.editor.light(new Set(line ? [line] : []));
    if (of !== null) ["source", "machine"].forEach((id) => revealSoon(id, ".on"));
  },

  // Light what comes from the statement at a line; the editor's own line is lit where it is pointed at from elsewhere.
  light(line, pointed = false) {
    const statement = this.view && this.view.values.find((v) => v.line <= line && line <= v.last);
    const first = statement ? statement.line : line;
    for (const row of byId("pane").querySelectorAll("[data-line]")) row.classList.toggle("lit", row.dataset.line === String(first));
    for (const row of byId("pane").querySelectorAll("[data-lines]")) row.classList.toggle("lit", row.dataset.lines.split(" ").includes(String(first)));
    const last = statement ? statement.last : line;
    this.editor.light(pointed ? new Set(Array.from({ length: last - first + 1 }, (_, k) => first + k)) : new Set());
  },

  hover(line) {
    if (line === this.hovered) return;
    this.hovered = line;
    this.light(line || this.line, line !== null);
    if (line) ["source", "machine"].forEach((id) => revealSoon(id, ".lit"));
  },

  // ------------------------------------------------------------------------------- drawing

  draw() {
    drawTabs();
    drawControls();
    this.drawPane();
  },

  drawPane() {
    const pane = byId("pane");
    const view = this.view;
    if (!view) { show(pane, note("Reading …")); return; }
    const broken = view.diagnostics.some((d) => d.severity === "error");
    const place_ = { ...this, sizes: this.sizes(), machine: this.machines[this.settings.machine] };
    const waiting = () => [note(view.loading ? "The compiler is starting …" : "Computing …")];
    let found;
    if (view.problem) found = [h("p", { class: "problem" }, view.problem)];
    else if (broken && !(this.tab === "line" && view.values.length)) found = [note("The program has mistakes: they are under the text.")];
    else if (TABS[this.tab][2].some((part) => !view.parts[part]) && this.tab !== "line") found = waiting();
    else found = TABS[this.tab][1](place_) || waiting();
    const tops = keepScroll();
    show(pane, found);
    tops();
    this.light(this.line);
    if (this.tab === "kernels") requestAnimationFrame(() => drawArrows(view.parts.flow));
  },

  sizes() {
    const flow = this.view && this.view.parts.flow;
    return sizesOf(this.settings, flow ? flow.sizes : {});
  },

  // ------------------------------------------------------------------------------- asking

  later() {
    if (!this.server) { this.drawPane(); return; }
    clearTimeout(this.timer);
    this.began = this.began || performance.now();
    byId("status").textContent = "…";
    this.timer = setTimeout(() => this.ask(TABS[this.tab][2]), WAIT);
  },

  // Ask for what the open view needs and the page has not.
  fetch() {
    if (!this.view) return;
    const missing = TABS[this.tab][2].filter((part) => !this.view.parts[part]);
    if (this.server && missing.length && !this.view.problem && !this.view.loading && !this.view.diagnostics.some((d) => d.severity === "error")) this.ask(missing);
    if (this.tab === "code" && this.code.open) this.askMachine();
    if (this.tab === "node") this.askNode();
  },

  // One question at a time: what changes meanwhile is asked for once, when the answer is there.
  async ask(parts) {
    this.pending = parts;
    if (this.asking) return;
    this.asking = true;
    while (this.pending) {
      const wanted = this.pending;
      this.pending = null;
      await this.askOnce(wanted);
    }
    this.asking = false;
  },

  async askOnce(parts) {
    const text = this.editor.text, key = this.key();
    const kept = this.view && this.view.text === text && this.view.asked === key ? this.view.parts : {};
    let found;
    try {
      found = await post("/api/view", { text, settings: this.sent(), parts });
    } catch (error) {
      byId("status").textContent = "the server does not answer";
      return;
    }
    if (this.pending) return;
    if (found.problem && !found.diagnostics) { byId("status").textContent = found.problem; this.began = null; return; }
    if (found.machines && found.machines.length) this.machines = found.machines;
    this.take({ ...found, parts: { ...kept, ...found.parts }, asked: key });
    if (found.loading || !this.machines.length) setTimeout(() => this.ask(TABS[this.tab][2]), 200);
  },

  // Show a view. What was computed for another text or other sizes is forgotten.
  take(view) {
    const stale = !this.view || this.view.text !== view.text || this.view.asked !== view.asked;
    if (stale) { this.machineView = null; this.nodeView = null; }
    this.view = view;
    this.settings.layer = view.layer;
    const kernels = view.parts.code && view.parts.code[this.code.language];
    if (kernels && !kernels.some((k) => k.name === this.code.kernel)) this.code = { ...this.code, kernel: null };
    this.editor.mark(view.diagnostics);
    drawMistakes(view);
    this.draw();
    byId("status").textContent = view.loading ? "the compiler is starting" : "";
    if (this.began && !view.loading) {
      const began = this.began;
      this.began = null;
      requestAnimationFrame(() => setTimeout(() => { document.body.dataset.shownMs = (performance.now() - began).toFixed(1); }));
    }
    document.body.dataset.shown = String(Number(document.body.dataset.shown || 0) + 1);
    this.fetch();
  },

  async askMachine() {
    const kernels = this.view.parts.code && this.view.parts.code[this.code.language];
    if (!kernels || !kernels.length) return;
    const { kernel, stage, target, key } = wantedCode(this);
    if (this.machineView && this.machineView.key === key) return;
    const asked = (this.machineAsked = `${key} ${this.key()} ${this.view.text}`);
    const found = this.server
      ? await post("/api/machine", { text: this.view.text, settings: this.sent(), language: this.code.language, kernel: kernel.name, stage, target })
      : start.view.machine[key];
    if (asked === this.machineAsked) { this.machineView = { ...found, key }; if (this.tab === "code") this.drawPane(); }
  },

  async askNode() {
    const { node, profile } = this.node;
    const key = `${profile}/${node}`;
    if (this.view.diagnostics.some((d) => d.severity === "error") || this.view.loading) return;
    if (this.nodeView && this.nodeView.key === key) return;
    const asked = (this.nodeAsked = `${key} ${this.key()} ${this.view.text}`);
    const found = this.server ? await post("/api/node", { text: this.view.text, settings: this.sent(), node, profile }) : start.view.nodes[key];
    if (asked === this.nodeAsked) { this.nodeView = { ...found, key }; if (this.tab === "node") this.drawPane(); }
  },

  sent() {
    const { layer, values, inputs, nodes, degree, device } = this.settings;
    return { layer, values, inputs, nodes, degree, device };
  },

  key() {
    const { layer, ...rest } = this.sent();
    return JSON.stringify(rest);
  },
};

async function post(url, data) {
  const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) });
  const type = answer.headers.get("Content-Type") || "";
  return type.startsWith("application/json") ? answer.json() : { problem: `the compiler failed on this program (${answer.status}); please report it` };
}

// ------------------------------------------------------------------------------------- the page's parts

show(byId("tabs"), Object.entries(TABS).map(([name, [title]]) =>
  h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "pane", onclick: () => app.change({ tab: name }) }, title)));

function drawTabs() {
  for (const tab of byId("tabs").children) {
    const chosen = tab.id === `tab-${app.tab}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  byId("pane").setAttribute("aria-labelledby", `tab-${app.tab}`);
}

byId("tabs").addEventListener("keydown", (event) => {
  const names = Object.keys(TABS), at = names.indexOf(app.tab);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: names.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  app.change({ tab: names[(to + names.length) % names.length] });
  byId(`tab-${app.tab}`).focus();
});

function drawMistakes(view) {
  const lines = view.text.split("\n");
  show(byId("mistakes"), view.diagnostics.slice(0, 20).map((d) => {
    const text = (lines[d.line - 1] || "").replaceAll("\t", " ");
    const width = Math.max(1, Math.min(d.end - d.start, text.length - d.column + 1));
    const gutter = " ".repeat(String(d.line).length);
    return h("article", { class: `mistake ${d.severity}` },
      h("button", { type: "button", onclick: () => app.editor.go(d.line, d.column) }, h("b", {}, d.severity), ` ${d.message}`, h("small", {}, `line ${d.line}, column ${d.column}`)),
      h("pre", {}, `${d.line} | ${text}\n${gutter} | ${" ".repeat(d.column - 1)}`, h("span", { class: "caret" }, "^".repeat(width))),
      d.detail ? h("p", {}, d.detail) : null,
      d.expected.length ? h("p", {}, `expected ${d.expected.join(", ")}`) : null,
      d.hint ? h("p", { class: "hint" }, h("b", {}, "hint"), ` ${d.hint}`) : null);
  }));
}

// Made anew where a program has other arguments; else what is there gets its value, unless a hand is on it.
function drawControls() {
  const form = byId("controls"), view = app.view, set = app.settings;
  const args = view ? view.arguments : [], inputs = view ? view.inputs : [], layers = view ? view.layers : [];
  const now = (a) => set.values[a.name] ?? a.value;
  const shape = JSON.stringify([args.map((a) => [a.name, a.kind]), inputs.map((i) => i.name), layers, app.machines.length]);
  if (form.dataset.shape !== shape) {
    const focus = form.contains(document.activeElement) ? document.activeElement.id : null;
    form.dataset.shape = shape;
    show(form, controls(args, inputs, layers, set, now));
    if (focus && byId(focus)) byId(focus).focus();
    return;
  }
  const put = (id, value, property = "value") => {
    const element = byId(id);
    if (element && element !== document.activeElement) element[property] = value;
  };
  const putSize = (name, value) => {
    put(`size-${name}-number`, value);
    const range = byId(`size-${name}`);
    put(`size-${name}`, places(value, Number(range.dataset.low), Number(range.dataset.high)));
  };
  for (const a of args) {
    if (a.kind === "size") putSize(a.name, Number(now(a)));
    else put(`${a.kind === "flag" ? "flag" : "arg"}-${a.name}`, a.kind === "flag" ? now(a) === "true" : now(a), a.kind === "flag" ? "checked" : "value");
  }
  for (const i of inputs) put(`flag-with ${i.name}`, set.inputs.includes(i.name), "checked");
  putSize("nodes", set.nodes);
  putSize("degree", set.degree);
  put("layer", view ? view.layer : "");
}

function controls(args, inputs, layers, set, now) {
  const given = (name, text) => app.choose({ values: { ...app.settings.values, [name]: text } });
  const passed = (name, on) => app.choose({ inputs: on ? [...app.settings.inputs, name] : app.settings.inputs.filter((n) => n !== name) });
  return [
    layers.length > 1 ? choice("layer", Object.fromEntries(layers.map((n) => [n, n])), app.view.layer, (layer) => app.choose({ layer }), "layer") : null,
    args.filter((a) => a.kind === "size").map((a) => slider(a.name, Number(now(a)), 1, 1024, (v) => given(a.name, String(v)))),
    args.filter((a) => a.kind === "constant").map((a) => h("label", { class: "choice" }, h("span", {}, a.name),
      h("input", { type: "text", id: `arg-${a.name}`, value: now(a), disabled: !app.server, onchange: (event) => given(a.name, event.target.value) }))),
    h("div", { class: "flags" },
      args.filter((a) => a.kind === "flag").map((a) => flag(a.name, now(a) === "true", (on) => given(a.name, String(on)))),
      inputs.map((i) => flag(`with ${i.name}`, set.inputs.includes(i.name), (on) => passed(i.name, on)))),
    h("div", { class: "graph" },
      slider("nodes", set.nodes, 100, 1e8, (v) => app.choose({ nodes: v })),
      slider("degree", set.degree, 1, 1024, (v) => app.choose({ degree: v })),
      choice("degrees", PROFILES, set.profile, (profile) => app.choose({ profile }), "profile"),
      app.machines.length ? choice("machine", Object.fromEntries(app.machines.map((m, k) => [k, m.name])), String(set.machine), (k) => app.choose({ machine: Number(k) }), "device") : null),
  ];
}

// Where a slider of powers stands for a number.
const places = (v, low, high) => Math.max(0, Math.min(1000, (1000 * Math.log(Math.max(v, low) / low)) / Math.log(high / low)));

// A slider of powers with a number beside it.
function slider(name, at, low, high, onchange) {
  const id = `size-${name}`;
  return h("label", { class: "slider" }, h("span", {}, name),
    h("input", { type: "range", id, "data-low": low, "data-high": high, min: 0, max: 1000, step: 5, value: places(at, low, high), oninput: (event) => {
      const v = round(low * (high / low) ** (Number(event.target.value) / 1000));
      byId(`${id}-number`).value = v;
      onchange(v);
    } }),
    h("input", { type: "text", inputmode: "numeric", "aria-label": `${name}, as a number`, id: `${id}-number`, value: at, onchange: (event) => {
      const v = Number(event.target.value);
      if (!Number.isFinite(v) || v < 1) return;
      byId(id).value = places(v, low, high);
      onchange(Math.round(v));
    } }));
}

// Sizes that people choose: few digits.
function round(v) {
  if (v < 20) return Math.round(v);
  const unit = 10 ** (Math.floor(Math.log10(v)) - 1);
  return Math.round(v / unit) * unit;
}

const flag = (name, on, onchange) =>
  h("label", { class: "flag" }, h("input", { type: "checkbox", id: `flag-${name}`, checked: on, disabled: !app.server, onchange: (event) => onchange(event.target.checked) }), name);

function focusKey(element) {
  return element.id ? `#${CSS.escape(element.id)}` : element.closest("[data-step]") ? `[data-step="${element.closest("[data-step]").dataset.step}"] button` : null;
}

function refocus(key) {
  const found = byId("pane").querySelector(key);
  if (found && !found.disabled) found.focus();
  else if (key === "#next" || key === "#back") byId(key === "#next" ? "back" : "next")?.focus();
  else if (key === "#nodenext" || key === "#nodeback") byId(key === "#nodenext" ? "nodeback" : "nodenext")?.focus();
}

// Listings stay where they are when they are drawn again.
function keepScroll() {
  const tops = ["source", "machine"].map((id) => [id, byId(id) ? byId(id).scrollTop : 0]);
  return () => tops.forEach(([id, top]) => { if (byId(id)) byId(id).scrollTop = top; });
}

// --------------------------------------------------------------------------------------------- links

// A link is the text itself, behind the #, which no browser sends to a server.
function readLink() {
  try {
    const found = new URLSearchParams(location.hash.slice(1));
    return found.has("text") ? { text: found.get("text"), settings: JSON.parse(found.get("settings") || "{}") } : null;
  } catch (error) {
    return null;
  }
}

function link() {
  const found = new URLSearchParams({ text: app.editor.text, settings: JSON.stringify(app.settings) });
  return `${location.href.split("#")[0]}#${found}`;
}

byId("share").addEventListener("click", async () => {
  history.replaceState(null, "", link());
  try {
    await navigator.clipboard.writeText(link());
    byId("status").textContent = "copied";
  } catch (error) {
    byId("status").textContent = "the link is in the address bar";
  }
});

byId("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});

window.addEventListener("resize", () => { if (app.tab === "kernels" && app.view) drawArrows(app.view.parts.flow); });

// ------------------------------------------------------------------------------------------- the file

// Follow the file that was given, for those who type elsewhere; what was typed here is never taken away.
let inFile = start.text;

async function follow() {
  if (document.visibilityState !== "visible") return;
  try {
    const { text } = await (await fetch("/api/file")).json();
    if (text === null || text === inFile) return;
    const own = app.editor.text !== inFile && app.editor.text !== text;
    inFile = text;
    if (own) { byId("status").textContent = "the file has changed: reload the page to see it"; return; }
    app.editor.text = text;
    app.later();
  } catch (error) {
    byId("status").textContent = "the server does not answer";
  }
}

// --------------------------------------------------------------------------------------------- start

app.editor = new Editor(() => app.later(), (line) => app.lineChanged(line), (line) => app.hover(line));
byId("file").textContent = start.name || "";
byId("controls").addEventListener("submit", (event) => event.preventDefault());
app.editor.text = app.server && fromLink ? fromLink.text : start.text;
if (app.server) {
  app.draw();
  app.ask(TABS[app.tab][2]);
  if (start.watched) setInterval(follow, 1000);
} else {
  byId("text").readOnly = true;
  byId("share").hidden = true;
  app.take({ ...start.view, asked: app.key() });
}
