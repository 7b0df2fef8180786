"use strict";
// What is beside the text: a function for each view, from the state to elements.

// A line of code that is for a line of the text: pointing at one lights the other.
function place(line, classes, ...children) {
  const row = h("div", { class: `${classes}${line ? " placed" : ""}`, "data-line": line || null }, ...children);
  if (line) {
    row.addEventListener("mouseenter", () => app.point(line));
    row.addEventListener("mouseleave", () => app.point(null));
  }
  return row;
}

const lineLink = (line) =>
  line ? h("button", { type: "button", class: "line", "data-line": line, onclick: () => app.goTo(line) }, `line ${line}`) : null;

const note = (...children) => h("p", { class: "note" }, ...children);

const equation = ([text, type, line]) =>
  place(line, "equation", h("code", {}, coloured(text)), type ? h("span", { class: "type" }, type) : null);

const section = (title, ...children) => h("section", { class: "block" }, h("h3", {}, title), ...children);

function choice(label, names, chosen, onchange, id) {
  return h("label", { class: "choice" }, h("span", {}, label),
    h("select", { id, onchange: (event) => onchange(event.target.value) },
      Object.entries(names).map(([name, text]) => h("option", { value: name, selected: name === chosen }, text))));
}

// ------------------------------------------------------------------------------------------ the line

const MOST_CARDS = 100;

function valuePane({ view, line, sizes }) {
  const { stages, flow } = view.parts;
  const here = view.values.filter((v) => v.line <= line && line <= v.last);
  const all = here.length ? here : view.values;
  const first = here.length ? here[0].line : null;
  const heading = here.length ? `Line ${line}` : "All values";
  const cards = all.slice(0, MOST_CARDS).map((v) =>
    place(v.line, "card",
      h("div", { class: "cardhead" }, h("b", {}, v.name), h("span", { class: "kind" }, v.kind === "define" ? "value" : v.kind),
        h("span", { class: "type" }, v.type), here.length ? null : lineLink(v.line)),
      here.length && v.rule ? h("code", { class: "rule" }, coloured(v.rule)) : null,
      here.length ? dims(v, sizes) : null));
  const more = all.length > MOST_CARDS ? note(`and ${all.length - MOST_CARDS} more, as loops are written out`) : null;
  if (!here.length || !stages) return [h("h2", {}, heading), h("div", { class: "cards" }, cards), more];
  const of = (name) => stages[name].filter(([, , l]) => l === first);
  const steps = flow ? flow.steps.filter((step) => step.lines.includes(first)) : [];
  return h("div", { class: "own" },
    h("h2", {}, heading), h("div", { class: "cards" }, cards), more,
    section("As it is written", of("written").map(equation)),
    section("After the rules", of("optimised").length ? of("optimised").map(equation) : note("Nothing is left of it by itself: it is part of other lines' values.")),
    section("In the gradients", of("backward").length ? of("backward").map(equation) : note("No gradient is computed for it by itself.")),
    section("Computed in", steps.length
      ? h("div", { class: "chips" }, steps.map((step) => h("button", { type: "button", class: `chip ${step.direction}`,
          onclick: () => app.pick(step) }, titleOf(step), h("small", {}, step.direction))))
      : note("No kernel: it is an input.")));
}

function dims(v, sizes) {
  const rows = { node: "N", source: "N_src", target: "N_dst", edge: "E", pair: "P", graph: "B" }[v.domain];
  const shape = [...(rows ? [[`${v.domain}s`, Math.round(sizes[rows])]] : []), ...v.dims.map(([n, size]) => [n, sizes[n] ?? size])];
  const numbers = shape.reduce((product, [, size]) => product * size, 1);
  const width = { float: 4, int: 8, bool: 1 }[v.number];
  return h("table", { class: "dims" }, h("tbody", {},
    shape.map(([name, size]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, size.toLocaleString("en")))),
    h("tr", { class: "total" }, h("th", { scope: "row" }, "stored"), h("td", {}, bytes(numbers * width)))));
}

// -------------------------------------------------------------------------------------- the rewrites

function rewritesPane({ view, step }) {
  const sections = view.parts.rewrites;
  if (!sections) return null;
  const found = sections[step.section];
  const count = found.steps.length;
  const at = Math.min(step.at, count);
  const names = Object.fromEntries(sections.map((p, k) => [k, `${p.title} (${p.steps.length})`]));
  const stepTo = (k) => app.change({ step: { section: step.section, at: Math.max(0, Math.min(count, k)) } });
  const fired = at ? found.steps[at - 1] : null;
  return [
    h("h2", {}, "Rewrites, step by step"),
    h("div", { class: "bar", id: "stepper", onkeydown: (event) => {
        const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (move && event.target.tagName === "BUTTON") { event.preventDefault(); stepTo(at + move); }
      } },
      choice("of", names, String(step.section), (k) => app.change({ step: { section: Number(k), at: 0 } }), "section"),
      h("button", { type: "button", id: "back", disabled: at === 0, onclick: () => stepTo(at - 1) }, "◀ back"),
      h("input", { type: "range", id: "at", min: 0, max: count, value: at, "aria-label": "step", oninput: (event) => stepTo(Number(event.target.value)) }),
      h("button", { type: "button", id: "next", disabled: at === count, onclick: () => stepTo(at + 1) }, "next ▶"),
      h("output", {}, count ? `${at} of ${count}` : "no rule fired")),
    fired ? h("div", { class: "fired" },
      h("div", {}, h("b", {}, fired.rule.replaceAll("_", " ")), saving(fired), lineLink(fired.line)),
      fired.equation ? h("code", { class: "law" }, fired.equation) : null,
      fired.before ? h("div", { class: "turn" }, h("code", { class: "gone" }, fired.before), h("span", { "aria-label": "becomes" }, "→"), h("code", { class: "new" }, fired.after)) : null)
      : note(count ? "The program before any rule. Go on with the arrow keys." : "Nothing to simplify here."),
    at ? h("div", { class: "twin" }, state(found, at - 1, at, "gone", "before"), state(found, at, at - 1, "new", "after"))
      : h("div", {}, state(found, 0, 0, "", "")),
  ];
}

// What a rule saves on the graph at hand, and what it costs.
function saving(fired) {
  const parts = [[fired.operations, scaled(Math.abs(fired.operations), "flop")], [fired.bytes, bytes(Math.abs(fired.bytes))]].filter(([n]) => Math.abs(n) >= 1);
  return parts.map(([n, text]) => h("span", { class: n > 0 ? "saved" : "spent" }, `${text} ${n > 0 ? "less" : "more"}`));
}

// A program with the lines marked that another state has not.
function state(found, at, other, mark, title) {
  const others = new Set(found.states[other].map((n) => found.texts[n][0]));
  return h("div", { class: "state" }, title ? h("h4", {}, title) : null, found.states[at].map((n) => {
    const row = equation(found.texts[n]);
    if (mark && !others.has(found.texts[n][0])) row.classList.add(mark);
    return row;
  }));
}

// --------------------------------------------------------------------------------------- the kernels

function kernelsPane({ view, sizes, machine, picked }) {
  const flow = view.parts.flow;
  if (!flow) return null;
  const column = (direction) => {
    const steps = flow.steps.filter((step) => step.direction === direction);
    return h("div", { class: `column ${direction}` },
      h("h3", {}, direction), steps.length ? steps.map((step) => box(step, flow, sizes, machine, picked)) : note("nothing"));
  };
  return [
    h("h2", {}, "Kernels and what flows between them"),
    note("A box is a fused kernel, or a step of torch (dashed). Arrows are tensors; orange ones are kept from forward to backward."),
    modulesNote(flow),
    h("div", { class: "flow", id: "flow" }, column("forward"), column("backward"), s("svg", { class: "arrows", "aria-hidden": "true" })),
  ];
}

const modulesNote = (flow) =>
  flow.modules.length ? note(`Beside these, the modules of torch that the layer has run as they are, and are not counted: ${flow.modules.join(", ")}.`) : null;

const titleOf = (step) => (step.kind === "torch" ? `torch: ${step.name}` : step.name);

function box(step, flow, sizes, machine, picked) {
  const moved = value(step.bytes, sizes), flops = value(step.flops, sizes);
  const links = flow.links.filter((link) => link.to === step.id);
  const open = picked === step.id;
  const parts = [...step.walks.map((w) => [`walk ${w.walk}: ${w.what}`, w]), ...step.stores.map((v) => ["write", v]), ...step.totals.map((v) => ["total", v])];
  const seen = new Set();
  const shown = parts.filter(([, v]) => open || (!seen.has(v.text) && seen.add(v.text)));
  const element = h("article", { class: `box ${step.kind} ${step.direction}${open ? " open" : ""}`, "data-step": step.id, "data-lines": step.lines.join(" ") },
    h("button", { type: "button", class: "boxhead", "aria-expanded": String(open), onclick: () => app.change({ picked: open ? null : step.id }) },
      h("b", {}, titleOf(step)), h("small", {}, step.over ? `over the ${step.over}` : "")),
    h("ul", {}, shown.map(([what, v]) => h("li", {}, h("span", { class: "what" }, what), h("code", {}, coloured(open || v.text.length < 90 ? v.text : v.text.slice(0, 88) + "…")), h("span", { class: "type" }, v.type)))),
    h("footer", {}, moved || flops ? `${bytes(moved)} · ${scaled(flops, "flop")}` : "a view, which costs nothing", machine && (moved || flops) ? ` · ${seconds(timeOf(moved, flops, machine))} at best` : ""),
    open ? h("div", { class: "more" },
      h("dl", {}, h("dt", {}, "bytes"), h("dd", {}, formula(step.bytes)), h("dt", {}, "flops"), h("dd", {}, formula(step.flops)),
        links.length ? [h("dt", {}, "reads"), h("dd", {}, links.map((l) => h("div", {}, `${l.name}: ${l.type}, ${bytes(value(l.bytes, sizes))}, from ${titleOf(flow.steps[l.from])}`)))] : null,
        step.why.length ? [h("dt", {}, "why"), h("dd", {}, step.why.map((w) => h("div", {}, w)))] : null),
      h("div", { class: "chips" }, step.lines.map(lineLink), step.kind === "kernel" ? h("button", { type: "button", class: "chip", onclick: () => app.pick(step) }, "its code") : null)) : null);
  element.addEventListener("mouseenter", () => app.pointMany(step.lines));
  element.addEventListener("mouseleave", () => app.point(null));
  return element;
}

const timeOf = (moved, flops, machine) => Math.max(moved / machine.bandwidth, flops / machine.flops);

// Arrows between boxes that lie where the browser has put them.
function drawArrows(flow) {
  const frame = byId("flow");
  if (!frame || !flow) return;
  const origin = frame.getBoundingClientRect();
  const svg = frame.querySelector("svg.arrows");
  svg.setAttribute("width", frame.scrollWidth);
  svg.setAttribute("height", frame.scrollHeight);
  const at = (id) => {
    const r = frame.querySelector(`[data-step="${id}"]`).getBoundingClientRect();
    return { left: r.left - origin.left, right: r.right - origin.left, top: r.top - origin.top, bottom: r.bottom - origin.top, width: r.width };
  };
  const order = flow.steps.map((step) => step.id);
  const lanes = {};
  show(svg, s("defs", {}, ["", "kept"].map((kind) => s("marker", { id: `head${kind}`, class: kind, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M0,0 L8,4 L0,8 z" })))),
    [...new Map(flow.links.map((l) => [`${l.from}-${l.to}`, l])).values()].map((link) => {
      const a = at(link.from), b = at(link.to);
      let d;
      if (link.kept) {
        const [x1, x2] = b.left > a.right ? [a.right, b.left] : [a.right, b.right];
        const bend = b.left > a.right ? (x1 + x2) / 2 : Math.max(x1, x2) + 18;
        const y1 = (a.top + a.bottom) / 2, y2 = b.top + 14 + 5 * ((lanes[`k${link.to}`] = (lanes[`k${link.to}`] || 0) + 1) % 5);
        d = `M${x1},${y1} C${bend},${y1} ${bend},${y2} ${x2},${y2}`;
      } else if (order.indexOf(link.to) === order.indexOf(link.from) + 1) {
        const x = a.left + a.width / 2;
        d = `M${x},${a.bottom} L${x},${b.top}`;
      } else {
        const lane = (lanes[link.from] = lanes[link.from] || Object.keys(lanes).length % 4);
        // Outside of both columns: to the left of the forward one, to the right of the backward one.
        const side = flow.steps[link.from].direction === "forward" ? "left" : "right";
        const x = side === "left" ? a.left - 16 - 4 * lane : a.right + 16 + 4 * lane;
        d = `M${a[side]},${a.bottom - 12} C${x},${a.bottom - 12} ${x},${b.top + 12} ${b[side]},${b.top + 12}`;
      }
      return s("path", { class: `arrow ${link.kept ? "kept" : ""}`, d, "marker-end": `url(#head${link.kept ? "kept" : ""})` }, s("title", {}, `${link.name}: ${link.type}`));
    }));
}

// ------------------------------------------------------------------------------------------ the cost

function costPane({ view, sizes, machine, settings, picked }) {
  const flow = view.parts.flow;
  if (!flow) return null;
  if (!machine) return [h("h2", {}, "Cost"), note("This machine is being measured …")];
  const steps = flow.steps.map((step) => {
    const moved = value(step.bytes, sizes), flops = value(step.flops, sizes);
    return { step, moved, flops, time: timeOf(moved, flops, machine), bound: moved / machine.bandwidth >= flops / machine.flops ? "memory" : "arithmetic" };
  }).filter((row) => row.moved > 0);
  const total = sum(steps.map((row) => row.time));
  const points = steps.filter((row) => row.flops > 0).map((row) => ({
    id: row.step.id, label: `${row.step.name}: ${(row.flops / row.moved).toPrecision(3)} operations a byte`, direction: row.step.direction,
    intensity: row.flops / row.moved, attained: Math.min(machine.flops, (machine.bandwidth * row.flops) / row.moved),
    share: row.time / total, on: picked === row.step.id, pick: () => app.change({ picked: row.step.id }),
  }));
  const part = (direction) => steps.filter((row) => row.step.direction === direction);
  const totals = ["forward", "backward"].map((d) => h("div", { class: `total ${d}` }, h("b", {}, d),
    h("span", {}, bytes(sum(part(d).map((r) => r.moved)))), h("span", {}, scaled(sum(part(d).map((r) => r.flops)), "flop")),
    h("span", { class: "time" }, `${seconds(sum(part(d).map((r) => r.time)))} at best`)));
  return [
    h("h2", {}, `Cost on ${machine.name}`),
    h("div", { class: "totals", id: "totals" }, totals),
    modulesNote(flow),
    roofline(points, machine),
    note("Points are steps at the most that their operations a byte allow; area is the share of the time. ● forward ○ backward. Bytes are counted as if no cache held a gathered row."),
    section("Steps", h("div", { class: "scroll" }, h("table", { class: "steps" },
      h("thead", {}, h("tr", {}, ["step", "bytes", "operations", "at best"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, steps.map((row) => h("tr", { class: picked === row.step.id ? "on" : "", "data-lines": row.step.lines.join(" ") },
        h("th", { scope: "row" }, h("button", { type: "button", class: `chip ${row.step.direction}`, onclick: () => app.change({ picked: row.step.id }) }, titleOf(row.step))),
        h("td", {}, bytes(row.moved), h("small", { class: "formula" }, formula(row.step.bytes))),
        h("td", {}, scaled(row.flops, ""), h("small", { class: "formula" }, formula(row.step.flops))),
        h("td", {}, seconds(row.time), h("small", { class: "bound" }, `bound by ${row.bound}`)))))))),
    ...["forward", "backward"].map((d) => memory(flow, d, sizes)),
    section("Degrees", histogram(settings)),
  ];
}

function memory(flow, direction, sizes) {
  const tensors = flow.memory[direction].map((t) => ({ ...t, size: value(t.bytes, sizes) }));
  if (!tensors.length) return null;
  const first = Math.min(...tensors.map((t) => t.first)), last = Math.max(...tensors.map((t) => t.last));
  const alive = Array.from({ length: last - first + 1 }, (_, k) => sum(tensors.filter((t) => t.first <= first + k && first + k <= t.last).map((t) => t.size)));
  return section(`Memory, ${direction}: ${bytes(Math.max(...alive))} at the peak`, lifetimes(tensors, first, last),
    note(direction === "forward" ? "By step; orange is what the layer gives and what the backward pass reads." : "By step; orange are the gradients."));
}

function histogram(settings) {
  const found = degrees(settings.profile, settings.degree, settings.nodes);
  const at = (q) => found[Math.min(PLACES - 1, Math.floor(q * PLACES))].toFixed(0);
  const hubs = found.filter((d) => d > 16384);
  const held = hubs.length ? ` ${((100 * sum(hubs)) / sum(found)).toFixed(0)}% of the edges are at hubs, which all threads walk together.` : "";
  return note(`${PROFILES[settings.profile]}: median ${at(0.5)}, 90% up to ${at(0.9)}, 99% up to ${at(0.99)}, most ${at(1)} edges.${held}`);
}

// ------------------------------------------------------------------------------------------ one node

function nodePane({ node, nodeView }) {
  const choose = (change) => app.change({ node: { ...node, ...change } });
  const bar = (count) => h("div", { class: "bar" },
    choice("degrees", { even: "all alike", skewed: "one hub" }, node.profile, (profile) => choose({ profile, at: 0 }), "nodeprofile"),
    choice("node", Object.fromEntries(Array.from({ length: 12 }, (_, k) => [k, String(k)])), String(node.node), (k) => choose({ node: Number(k), at: 0 }), "nodenumber"),
    count ? [h("button", { type: "button", id: "nodeback", disabled: node.at === 0, onclick: () => choose({ at: node.at - 1 }) }, "◀ back"),
      h("button", { type: "button", id: "nodenext", disabled: node.at >= count - 1, onclick: () => choose({ at: node.at + 1 }) }, "next ▶"),
      h("output", {}, `${node.at + 1} of ${count}`)] : null);
  const heading = h("h2", {}, "One node, step by step");
  if (!nodeView) return [heading, bar(0), note("Computing …")];
  if (nodeView.problem) return [heading, bar(0), h("p", { class: "problem" }, nodeView.problem)];
  const at = Math.min(node.at, nodeView.steps.length - 1), step = nodeView.steps[at];
  const most = Math.max(1e-9, ...step.rows.flatMap(([, numbers]) => numbers.map((v) => Math.abs(v ?? 0))));
  return [
    heading, bar(nodeView.steps.length),
    h("div", { class: "nodeview" }, ring(nodeView, step),
      h("div", { class: "nodesteps" },
        place(step.line, "card", h("div", { class: "cardhead" }, h("b", {}, step.name), h("span", { class: "type" }, step.type), lineLink(step.line)), h("code", { class: "rule" }, coloured(step.text))),
        h("table", { class: "numbers" }, h("tbody", {}, step.rows.map(([label, numbers, count]) => h("tr", {},
          h("th", { scope: "row" }, label || `node ${nodeView.node}`),
          h("td", {}, heat(numbers, most)),
          h("td", { class: "digits" }, numbers.slice(0, 4).map((v) => (v === null ? "not finite" : v.toPrecision(3))).join("  "), count > 4 ? " …" : ""))))),
        step.left_out ? note(`and ${step.left_out} more edges`) : null)),
    note("By the torch reference, in evaluation mode, on a graph of twelve nodes and inputs drawn at random."),
  ];
}

function heat(numbers, most) {
  return s("svg", { class: "heat", viewBox: `0 0 ${numbers.length * 9} 16`, width: numbers.length * 9, height: 16, "aria-hidden": "true" },
    numbers.map((v, k) => s("rect", { class: v === null ? "none" : v < 0 ? "minus" : "plus", x: k * 9, y: 0, width: 8, height: 16, rx: 1.5, opacity: v === null ? 1 : 0.08 + 0.92 * Math.min(1, Math.abs(v) / most) })));
}

function ring(view, step) {
  const at = (k) => {
    const turn = (2 * Math.PI * k) / view.nodes - Math.PI / 2;
    return [120 + 92 * Math.cos(turn), 120 + 92 * Math.sin(turn)];
  };
  const mine = view.edges.filter(([, to]) => to === view.node);
  const near = new Set(mine.map(([from]) => from));
  const others = view.edges.filter(([a, b]) => b !== view.node && a < b);
  const line = ([a, b], kind) => { const [x1, y1] = at(a), [x2, y2] = at(b); return s("line", { class: kind, x1, y1, x2, y2 }); };
  return s("svg", { class: "ring", viewBox: "0 0 240 240", role: "img", "aria-label": `node ${view.node} and the ${mine.length} nodes with edges into it` },
    others.map((e) => line(e, "edge")), mine.map((e) => line(e, step.edges ? "edge mine on" : "edge mine")),
    Array.from({ length: view.nodes }, (_, k) => { const [cx, cy] = at(k); return [
      s("circle", { class: k === view.node ? "self" : near.has(k) ? "near" : "far", cx, cy, r: 12 }),
      s("text", { x: cx, y: cy + 4, "text-anchor": "middle" }, String(k))]; }));
}

// -------------------------------------------------------------------------------------- two versions

function versionsPane({ view, pinned, sizes, machine }) {
  const pin = h("button", { type: "button", id: "pin", onclick: () => app.pin() }, pinned ? "Keep this version instead" : "Keep this version");
  const heading = [h("h2", {}, "Two versions"), h("div", { class: "bar" }, pin, pinned ? h("button", { type: "button", onclick: () => app.change({ pinned: null }) }, "Forget it") : null)];
  if (!pinned) return [...heading, note("Keep the program as it is now, then change it: what differs is shown here, in the text, in the IR and in what it costs.")];
  if (!view.parts.flow || !view.parts.stages) return heading;
  const numbers = (v) => {
    const of = (d) => v.parts.flow.steps.filter((step) => step.direction === d);
    const all = (steps, key) => sum(steps.map((step) => value(step[key], sizes)));
    const rows = { "kernels": (d) => of(d).filter((step) => step.kind === "kernel").length, "steps of torch": (d) => of(d).filter((step) => step.kind === "torch").length,
      "bytes": (d) => all(of(d), "bytes"), "operations": (d) => all(of(d), "flops"),
      ...(machine ? { "at best": (d) => sum(of(d).map((step) => timeOf(value(step.bytes, sizes), value(step.flops, sizes), machine))) } : {}) };
    return Object.fromEntries(["forward", "backward"].flatMap((d) => Object.entries(rows).map(([name, f]) => [`${d}: ${name}`, f(d)])));
  };
  const unit = (name, n) => (name.endsWith("bytes") ? bytes(n) : name.endsWith("operations") ? scaled(n, "") : name.endsWith("best") ? seconds(n) : String(n));
  const before = numbers(pinned), after = numbers(view);
  const stage = (name) => diff(pinned.parts.stages[name].map((l) => l[0]), view.parts.stages[name].map((l) => l[0]));
  return [...heading,
    h("table", { class: "steps" }, h("thead", {}, h("tr", {}, ["", "kept", "now", ""].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, Object.keys(before).map((name) => {
        const change = before[name] ? (100 * (after[name] - before[name])) / before[name] : 0;
        return h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, unit(name, before[name])), h("td", { class: "number" }, unit(name, after[name])),
          h("td", { class: `number ${change < -0.5 ? "better" : change > 0.5 ? "worse" : ""}` }, Math.abs(change) > 0.5 ? `${change > 0 ? "+" : ""}${change.toFixed(0)}%` : "="));
      }))),
    section("Text", diff(pinned.text.split("\n"), view.text.split("\n"))),
    section("After the rules", stage("optimised")),
    section("Gradients", stage("backward"))];
}

// Lines that went and came, by their longest common part.
function diff(a, b) {
  const table = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) for (let j = b.length - 1; j >= 0; j -= 1) table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  const rows = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { rows.push([" ", "", a[i]]); i += 1; j += 1; }
    else if (i < a.length && (j === b.length || table[i + 1][j] >= table[i][j + 1])) { rows.push(["−", "gone", a[i]]); i += 1; }
    else { rows.push(["+", "new", b[j]]); j += 1; }
  }
  if (rows.every(([, mark]) => !mark)) return note("the same");
  return h("div", { class: "diff" }, rows.map(([sign, mark, text]) => h("div", { class: `row ${mark}` }, h("span", { class: "sign" }, sign), h("code", {}, coloured(text)))));
}
