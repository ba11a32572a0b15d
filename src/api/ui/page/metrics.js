// Prometheus' text format, as far as /metrics uses it.

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// The samples of a response: name, labels, value.
export function samples(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one))]));
    found.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return found;
}

// The sum over all labels; undefined if there is no such metric.
export function total(all, name) {
  const values = all.filter((sample) => sample.name === name);
  return values.length ? values.reduce((sum, sample) => sum + sample.value, 0) : undefined;
}

// An upper bound of the quantile of a histogram; undefined while it is empty.
export function quantile(all, name, share) {
  const buckets = all.filter((sample) => sample.name === `${name}_bucket`).map((sample) => [sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le), sample.value]).sort((one, other) => one[0] - other[0]);
  const count = buckets.at(-1)?.[1];
  if (!count) return undefined;
  const bound = buckets.find(([, value]) => value >= share * count)?.[0];
  return bound === Infinity ? buckets.at(-2)?.[0] : bound;
}
