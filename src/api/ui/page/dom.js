// Elements, and texts for people. Text from the wire only ever becomes a text node: nothing here parses HTML.

// An element. `props` are attributes; `on` has listeners, `class` may be a list, and null or false leaves one out.
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

// An element of SVG.
export function svg(tag, props, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || (value === false && !name.startsWith("aria-"))) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "class") element.setAttribute("class", Array.isArray(value) ? value.filter(Boolean).join(" ") : value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : visible(String(child)));
  }
}

// Replaces what an element contains.
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

// Characters that hide or reorder text are shown by their number: in what others sent, they deceive.
export function visible(text) {
  return text.replace(HIDDEN, (character) => `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}
const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/gu;

const grouped = new Intl.NumberFormat("en");

export const number = (value) => (value === null || value === undefined ? "–" : grouped.format(value));

// A count in few characters: 950, 1.2k, 34k, 1.2M.
export function short(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return String(value);
  const [unit, size] = value < 999_500 ? ["k", 1e3] : value < 999_500_000 ? ["M", 1e6] : ["G", 1e9];
  const scaled = value / size;
  return `${scaled < 9.95 ? scaled.toFixed(1) : Math.round(scaled)}${unit}`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return `${value} B`;
  const [unit, size] = value < 999_500 ? ["kB", 1e3] : value < 999_500_000 ? ["MB", 1e6] : ["GB", 1e9];
  const scaled = value / size;
  return `${scaled < 9.95 ? scaled.toFixed(1) : Math.round(scaled)} ${unit}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 0) return `−${duration(-seconds)}`;
  const ms = seconds * 1000;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} m`;
}

// A reward in few characters, exact to four digits.
export const decimal = (value) =>
  value === null || value === undefined ? "–" : Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));

const sameDay = (one, other) => one.toDateString() === other.toDateString();
const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

// A time of the wall clock: only the time for today.
export function clock(seconds) {
  if (!seconds) return "–";
  const date = new Date(seconds * 1000);
  return sameDay(date, new Date()) ? time.format(date) : day.format(date);
}

export const clockFull = (seconds) => (seconds ? full.format(new Date(seconds * 1000)) : "no time was recorded");

const exact = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, timeZoneName: "short" });

// To the millisecond.
export const clockExact = (seconds) => (seconds ? exact.format(new Date(seconds * 1000)) : "no time was recorded");

export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

// Copies a text, and says so on the button.
export async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without a secure context there is no clipboard: the old way.
    const area = h("textarea", { class: "offscreen" });
    area.value = text;
    document.body.append(area);
    area.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Not copied";
    area.remove();
  }
  setTimeout(() => { button.textContent = before; }, 1200);
}

export const copyButton = (text, label = "Copy") =>
  h("button", { type: "button", class: "small", on: { click: (event) => copy(event.currentTarget, typeof text === "function" ? text() : text) } }, label);
