"use strict";
// The roofline of a machine with a point for each step, and the memory that a plan holds.

const CHART = { width: 640, height: 320, left: 62, right: 14, top: 14, bottom: 42 };

function ticks(low, high) {
  const found = [];
  for (let k = Math.ceil(Math.log10(low)); k <= Math.floor(Math.log10(high)); k += 1) found.push(10 ** k);
  return found;
}

// points: {label, intensity, attained, share, direction, on, pick}
function roofline(points, machine) {
  const { width, height, left, right, top, bottom } = CHART;
  const ridge = machine.flops / machine.bandwidth;
  const xs = [...points.map((p) => p.intensity), ridge];
  const low = 10 ** Math.floor(Math.log10(Math.min(...xs, 0.1)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...xs, 10) * 1.5));
  const top_ = machine.flops * 2;
  const floor = Math.min(machine.bandwidth * low, ...points.map((p) => p.attained)) / 1.5;
  const x = (v) => left + ((Math.log10(v) - Math.log10(low)) / (Math.log10(high) - Math.log10(low))) * (width - left - right);
  const y = (v) => height - bottom - ((Math.log10(v) - Math.log10(floor)) / (Math.log10(top_) - Math.log10(floor))) * (height - top - bottom);
  const grid = [
    ...ticks(low, high).map((t) => [
      s("line", { class: "grid", x1: x(t), x2: x(t), y1: top, y2: height - bottom }),
      s("text", { class: "tick", x: x(t), y: height - bottom + 16, "text-anchor": "middle" }, String(t)),
    ]),
    ...ticks(floor, top_).map((t) => [
      s("line", { class: "grid", x1: left, x2: width - right, y1: y(t), y2: y(t) }),
      s("text", { class: "tick", x: left - 6, y: y(t) + 4, "text-anchor": "end" }, scaled(t, "")),
    ]),
  ];
  const roof = `M${x(low)},${y(machine.bandwidth * low)} L${x(ridge)},${y(machine.flops)} L${x(high)},${y(machine.flops)}`;
  const marks = points.map((p) =>
    s("circle", {
      class: `point ${p.direction}${p.on ? " on" : ""}`, cx: x(p.intensity), cy: y(p.attained), r: 4 + 10 * Math.sqrt(p.share),
      "data-step": p.id, onclick: p.pick,
    }, s("title", {}, p.label)));
  return s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", id: "roofline",
    "aria-label": `roofline of ${machine.name}: ${points.length} steps; the table below has their numbers` },
    grid, s("path", { class: "roof", d: roof }), marks,
    s("text", { class: "axis", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "operations a byte"),
    s("text", { class: "axis", x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle",
      transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, "operations a second at best"),
    s("text", { class: "roofname", x: x(high) - 4, y: y(machine.flops) - 8, "text-anchor": "end" }, `${scaled(machine.flops, "flop/s")}`),
    s("text", { class: "roofname", x: x(low) + 34, y: y(machine.bandwidth * low) - 4 }, `${scaled(machine.bandwidth, "B/s")}`));
}

// A row for each tensor over the steps in which it lives. tensors: {name, type, size, first, last}; steps: numbers.
function lifetimes(tensors, first, last) {
  const row = 22, left = 190, width = 640;
  const step = (width - left - 70) / Math.max(1, last - first + 1);
  const most = Math.max(1, ...tensors.map((t) => t.size));
  const height = row * tensors.length + 24;
  return s("svg", { class: "chart lifetimes", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${tensors.length} tensors over ${last - first + 1} steps` },
    tensors.map((t, k) => [
      s("text", { class: "tick", x: left - 8, y: row * k + 15, "text-anchor": "end" }, t.name.slice(0, 26)),
      s("rect", { class: `life${t.result ? " result" : ""}`, x: left + step * (t.first - first), y: row * k + 4,
        width: step * (t.last - t.first + 1), height: 4 + 12 * (t.size / most), rx: 2 }, s("title", {}, `${t.name}: ${t.type}`)),
      s("text", { class: "tick", x: Math.min(left + step * (t.last - first + 1) + 6, width - 60), y: row * k + 15 }, bytes(t.size)),
    ]),
    Array.from({ length: last - first + 1 }, (_, k) =>
      s("text", { class: "tick", x: left + step * (k + 0.5), y: height - 6, "text-anchor": "middle" }, String(k + 1))));
}
