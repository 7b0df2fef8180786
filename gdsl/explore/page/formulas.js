"use strict";
// Formulas as terms, [number, {name: power}], worked out for the sizes that are chosen; and numbers in words.

const value = (terms, sizes) =>
  terms.reduce((sum, [number, powers]) => {
    let product = number;
    for (const [name, power] of Object.entries(powers)) product *= (sizes[name] ?? 1) ** power;
    return sum + product;
  }, 0);

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

function formula(terms) {
  if (!terms.length) return "0";
  const texts = terms.map(([number, powers]) => {
    const names = Object.entries(powers).map(([name, power]) => (power === 1 ? name : `${name}${superscript(power)}`));
    return names.length && number === 1 ? names.join("·") : [shortNumber(number), ...names].join("·");
  });
  return texts.join(" + ").replaceAll("+ -", "− ");
}

const superscript = (power) => String(power).split("").map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join("");
const shortNumber = (number) => (Number.isInteger(number) ? String(number) : number.toPrecision(4));

function scaled(number, unit, steps = ["", "k", "M", "G", "T", "P"]) {
  if (!Number.isFinite(number)) return "–";
  let k = 0;
  while (Math.abs(number) >= 999.5 && k < steps.length - 1) { number /= 1000; k += 1; }
  const text = number >= 100 || Number.isInteger(number) ? number.toFixed(0) : number.toPrecision(number < 1 ? 2 : 3);
  return `${text} ${steps[k]}${unit}`;
}

const bytes = (number) => scaled(number, "B");
const seconds = (number) =>
  number >= 1 ? `${number.toPrecision(3)} s` : number >= 1e-3 ? `${(number * 1e3).toPrecision(3)} ms` : `${(number * 1e6).toPrecision(3)} µs`;

// The degrees of a graph with a mean, by profile, as numbers of edges at evenly spread places from the least to the most.
const PROFILES = { even: "all nodes alike", skewed: "few nodes with most edges" };
const PLACES = 400;

function degrees(profile, mean, nodes) {
  if (profile === "even") return Array(PLACES).fill(mean);
  // A power law with exponent 2.5, cut where a node would have more edges than there are nodes.
  const raw = Array.from({ length: PLACES }, (_, k) => (1 - (k + 0.5) / PLACES) ** (-1 / 1.5));
  const scale = (mean * PLACES) / sum(raw);
  return raw.map((d) => Math.min(d * scale, nodes));
}

// The number behind each name that a formula may have.
function sizesOf(settings, sizes) {
  const found = degrees(settings.profile, settings.degree, settings.nodes);
  const mean = sum(found) / PLACES;
  const squares = sum(found.map((d) => d * d)) / PLACES;
  const N = settings.nodes;
  const own = { N, N_src: N, N_dst: N, N_own: N, E: N * settings.degree, B: Math.max(1, Math.round(N / 32)) };
  own.P = mean ? (own.E * squares) / mean : 0;
  const chosen = Object.entries(settings.values).filter(([name, v]) => name in sizes && /^\d+$/.test(v));
  return { ...sizes, ...Object.fromEntries(chosen.map(([name, v]) => [name, Number(v)])), ...own };
}
