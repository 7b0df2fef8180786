"use strict";
// Sources beside machine code, lit both ways.

const LANGUAGES = { cpp: "C++ (CPU)", triton: "Triton (GPU)" };
const TRITON = { ttir: "TTIR", ttgir: "TTGIR", llir: "LLVM IR" };

// The stages that there are of a language, for a GPU; a page without a server has some.
function stagesOf(language, target, server) {
  if (language === "cpp") return { asm: "assembly" };
  if (!server) return { ptx: "PTX" };
  return target.startsWith("gfx") ? { amdgcn: "AMDGCN", ...TRITON } : { ptx: "PTX", sass: "SASS", ...TRITON };
}

// What of the machine code is looked at, and a name for it.
function wantedCode(state) {
  const { code, view, server } = state;
  const kernels = view.parts.code[code.language];
  const target = (server && state.machines[state.settings.machine]?.target) || "sm_90";
  const stages = stagesOf(code.language, target, server);
  const stage = stages[code.stage] ? code.stage : Object.keys(stages)[0];
  const kernel = kernels.find((k) => k.name === code.kernel) || kernels[0];
  return { kernel, stage, stages, target, key: `${code.language}/${kernel.name}/${stage}${code.language === "triton" && server ? `/${target}` : ""}` };
}

function codePane(state_) {
  const { view, code, machineView } = state_;
  const parts = view.parts.code;
  if (!parts) return null;
  const kernels = parts[code.language];
  const heading = h("h2", {}, "Code");
  const choose = (change) => app.change({ code: { ...code, ...change } });
  if (!kernels.length) return [heading, note("This program has no kernels: torch computes all of it.")];
  const { kernel, stage, stages, key } = wantedCode(state_);
  const names = Object.fromEntries(kernels.map((k) => [k.name, `${k.name} (${k.direction})`]));
  const bar = h("div", { class: "bar" },
    choice("in", LANGUAGES, code.language, (language) => choose({ language, kernel: null }), "language"),
    choice("kernel", names, kernel.name, (name) => choose({ kernel: name }), "kernel"),
    choice("to", stages, stage, (name) => choose({ stage: name, open: true }), "stage"),
    h("button", { type: "button", id: "compile", "aria-pressed": String(code.open), onclick: () => choose({ open: !code.open }) }, code.open ? "Hide machine code" : "Show machine code"));
  const found = machineView && machineView.key === key ? machineView : null;
  return [heading, bar,
    h("div", { class: code.open ? "listings" : "listings one" },
      h("div", { class: "listing", id: "source", tabindex: 0, "aria-label": "source" }, kernel.lines.map((text, k) =>
        row(text, kernel.origins[k], k, "source", code.language === "triton" ? "#" : "//"))),
      code.open ? h("div", { class: "listing", id: "machine", tabindex: 0, "aria-label": "machine code" }, machine(found, kernel)) : null),
    code.open && found && !found.problem ? note(`${stages[stage]} for ${found.target}: ${found.lines.length} lines`,
      found.registers ? `, ${found.registers} registers, ${found.spills} bytes spilled` : "", found.left_out ? `, and ${found.left_out} more that are not shown` : "", ".") : null];
}

function machine(found, kernel) {
  if (!found) return h("p", { class: "note" }, "Compiling …");
  if (found.problem) return h("p", { class: "problem" }, found.problem);
  return found.lines.map((text, k) => row(text, found.of[k] === null ? null : kernel.origins[found.of[k]], found.of[k], "machine", ";"));
}

// of: the line of the source that a line is, or is for.
function row(text, line, of, kind, comment) {
  const at = text.indexOf(comment);
  const parts = at >= 0 ? [text.slice(0, at), h("span", { class: "comment" }, text.slice(at))] : [text];
  const element = h("div", { class: `row ${kind}${line ? " placed" : ""}`, "data-of": of, "data-line": line || null }, parts, "\u200b");
  element.addEventListener("mouseenter", () => app.pointCode(of, line));
  element.addEventListener("mouseleave", () => app.pointCode(null, null));
  return element;
}

// Bring the first line that is lit into sight, where none is: once the pointer rests.
const waiting = {};

function revealSoon(list, mark) {
  clearTimeout(waiting[list]);
  waiting[list] = setTimeout(() => {
    const frame = byId(list);
    const rows = frame ? [...frame.querySelectorAll(mark)] : [];
    const seen = (row) => row.offsetTop + row.offsetHeight > frame.scrollTop && row.offsetTop < frame.scrollTop + frame.clientHeight;
    if (rows.length && !rows.some(seen)) frame.scrollTo({ top: rows[0].offsetTop - frame.clientHeight / 3 });
  }, 120);
}
