// Small charts as SVG, each with a text that says the same.

import { clock, h, svg } from "./dom.js";

const BINS = 24, HEIGHT = 28, WIDTH = 4;

// A histogram of numbers. Its range leaves out the highest twentieth, so that outliers do not flatten the rest.
export function histogram(label, values, format) {
  const sorted = [...values].sort((one, other) => one - other);
  const low = sorted[0], high = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.95))];
  const counts = new Array(BINS).fill(0);
  for (const value of values) counts[bin(value, low, high)] += 1;
  const median = sorted[Math.floor(sorted.length / 2)];
  return figure(counts.map((count) => [count, 0]), [h("div", {}, label), h("div", {}, `median ${format(median)}`)], `${label}: from ${format(low)} to ${format(high)}, median ${format(median)}`);
}

// How many of what happened in each part of the time, and how many of them failed.
export function sparkline(label, events) {
  const times = events.map((event) => event.at), low = Math.min(...times), high = Math.max(...times);
  const counts = Array.from({ length: BINS }, () => [0, 0]);
  for (const { at, isBad } of events) counts[bin(at, low, high)][isBad ? 1 : 0] += 1;
  return figure(counts, [h("div", {}, label), h("div", {}, `since ${clock(low)}`)], `${label}: ${events.length} since ${clock(low)}, ${events.filter((event) => event.isBad).length} failed`);
}

// Counts side by side over the whole width.
export function bars(label, counts) {
  const most = Math.max(1, ...counts), height = (count) => (count > 0 ? Math.max(1, (count / most) * HEIGHT) : 0);
  return svg("svg", { class: "bars", viewBox: `0 0 ${counts.length} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${label}: ${counts.join(", ")}` },
    counts.map((count, at) => svg("rect", { x: at + 0.04, y: HEIGHT - height(count), width: 0.92, height: height(count) }, svg("title", {}, String(count)))));
}

const bin = (value, low, high) => (high > low ? Math.min(BINS - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * BINS))) : 0);

function figure(counts, caption, description) {
  const most = Math.max(1, ...counts.map(([good, bad]) => good + bad));
  const bars = counts.flatMap(([good, bad], at) => {
    const height = (count) => (count ? Math.max(1, (count / most) * HEIGHT) : 0);
    const x = at * (WIDTH + 1), lower = height(good), upper = height(bad);
    return [lower ? svg("rect", { x, y: HEIGHT - lower, width: WIDTH, height: lower }) : null, upper ? svg("rect", { class: "bad", x, y: HEIGHT - lower - upper, width: WIDTH, height: upper }) : null];
  });
  const base = svg("rect", { x: 0, y: HEIGHT - 0.5, width: BINS * (WIDTH + 1), height: 0.5 });
  return h("figure", {}, svg("svg", { width: BINS * (WIDTH + 1), height: HEIGHT, role: "img", "aria-label": description }, base, bars), h("figcaption", {}, caption));
}
