// What tests ask of the page beside what selectors find.

const shade = (text) => {
  const found = text.match(/[\d.]+/g).map(Number);
  return found.length > 3 && found[3] === 0 ? null : found.slice(0, 3);
};

// The colour behind an element: of itself or of what it lies in.
function behind(element) {
  for (; element; element = element.parentElement) {
    const found = shade(getComputedStyle(element).backgroundColor);
    if (found) return found;
  }
  return [255, 255, 255];
}

function luminance(colour) {
  const [r, g, b] = colour.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// Texts that are too pale: less contrast than 4.5, which the W3C asks for.
function pale() {
  const written = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.replace("\u200b", "").trim());
  const all = [...document.querySelectorAll("body *")].filter(
    (e) => e.offsetParent && e.id !== "text" && !e.disabled && !e.closest("svg") && written(e));
  return all
    .map((e) => {
      const lights = [luminance(shade(getComputedStyle(e).color)), luminance(behind(e))];
      return [(Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05), e.className, e.textContent.slice(0, 30)];
    })
    .filter(([ratio]) => ratio < 4.5);
}

// Whether one of the lit rows of a listing can be seen.
function litInSight(id) {
  const frame = document.getElementById(id);
  const seen = (row) => row.offsetTop + row.offsetHeight > frame.scrollTop && row.offsetTop < frame.scrollTop + frame.clientHeight;
  return [...frame.querySelectorAll(".lit")].some(seen);
}

const texts = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);

const points = () => [...document.querySelectorAll("#roofline .point")].map((p) => [p.getAttribute("cx"), p.getAttribute("cy")]);

// The cursor behind the last character of the text, with nothing measured yet.
function toTheEnd() {
  const area = document.getElementById("text");
  delete document.body.dataset.shownMs;
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

// How the text and the colours under it are set: these must not differ.
const set = (id) => {
  const style = getComputedStyle(document.getElementById(id));
  return [style.font, style.padding, style.tabSize, style.whiteSpace].join("; ");
};

// Where the first letter of a line is beside the edge of the text that is typed in.
function indentOf(line) {
  const row = document.querySelector(`#under .row[data-line="${line}"]`);
  const range = document.createRange();
  range.selectNodeContents(row);
  return range.getClientRects()[0].left - document.getElementById("text").getBoundingClientRect().left;
}

const colouredText = () => [...document.getElementById("under").children].map((row) => row.textContent.slice(0, -1)).join("\n");
