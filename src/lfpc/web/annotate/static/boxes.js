// Nested boxes of one picture, without a page: what may be added, moved and removed. A box is [x0, y0, x1, y1] in fractions;
// a target is its boxes, tightest first; `at` is the selected box, {t, b}, and b = -1 stands for a target that has none yet.
const TOLERANCE = 1e-9;

export function contains(outer, inner) {
  return (
    outer[0] <= inner[0] + TOLERANCE && outer[1] <= inner[1] + TOLERANCE && outer[2] >= inner[2] - TOLERANCE && outer[3] >= inner[3] - TOLERANCE
  );
}

// Corners in any order, cut off at the picture and put on whole pixels; null where nothing is left.
export function fromCorners(a, b, size) {
  const edge = (value, side) => Math.min(Math.max(Math.round(value * side), 0), side) / side;
  const xs = [edge(a[0], size.width), edge(b[0], size.width)].sort((p, q) => p - q);
  const ys = [edge(a[1], size.height), edge(b[1], size.height)].sort((p, q) => p - q);
  return xs[0] < xs[1] && ys[0] < ys[1] ? [xs[0], ys[0], xs[1], ys[1]] : null;
}

// Where `box` belongs among the boxes of a target: {at}, or {refusal} where it would not be nested.
export function placeAmong(nested, box) {
  let at = 0;
  while (at < nested.length && contains(box, nested[at])) {
    if (contains(nested[at], box)) return { refusal: `this is B${at + 1} already` };
    at++;
  }
  const blocking = nested.findIndex((other, i) => i >= at && !contains(other, box));
  if (blocking < 0) return { at };
  return { refusal: `not nested: it has to lie inside B${blocking + 1}, or contain all of it` };
}

// Adds `box` to target `t` (a new one where t is their number): {targets, at}, or {refusal}.
export function added(targets, t, box) {
  const nested = targets[t] ?? [];
  const place = placeAmong(nested, box);
  if (place.refusal) return place;
  const copy = [...targets];
  copy[t] = nested.toSpliced(place.at, 0, box);
  return { targets: copy, at: { t, b: place.at } };
}

export function removed(targets, { t, b }) {
  const nested = targets[t].toSpliced(b, 1);
  if (!nested.length) {
    const rest = targets.toSpliced(t, 1);
    return { targets: rest, at: rest.length ? { t: Math.min(t, rest.length - 1), b: 0 } : null };
  }
  return { targets: targets.toSpliced(t, 1, nested), at: { t, b: Math.min(b, nested.length - 1) } };
}

export function replaced(targets, { t, b }, box) {
  return targets.toSpliced(t, 1, targets[t].toSpliced(b, 1, box));
}

// How far each edge of a box may go: no further in than the next tighter box, no further out than the next wider one.
function limits(targets, { t, b }) {
  return { inner: targets[t][b - 1] ?? null, outer: targets[t][b + 1] ?? [0, 0, 1, 1] };
}

// The box with its edges moved by (dx, dy), as far as the neighbours allow. `edges` says which of x0, y0, x1, y1 move.
export function moved(targets, at, edges, dx, dy, size) {
  const box = targets[at.t][at.b];
  const { inner, outer } = limits(targets, at);
  const shift = [dx, dy, dx, dy].map((d, i) => (edges[i] ? d : 0));
  const least = [1 / size.width, 1 / size.height];
  let next = box.map((value, i) => value + shift[i]);
  if (edges.every(Boolean)) next = slid(box, dx, dy, inner, outer);
  for (const i of [0, 1]) {
    const low = i, high = i + 2;
    if (edges[low]) next[low] = clamp(next[low], outer[low], Math.min(inner ? inner[low] : 1, next[high] - least[i]));
    if (edges[high]) next[high] = clamp(next[high], Math.max(inner ? inner[high] : 0, next[low] + least[i]), outer[high]);
  }
  const snapped = snap(next, edges, size);
  const fits = contains(outer, snapped) && (!inner || contains(snapped, inner)) && snapped[0] < snapped[2] && snapped[1] < snapped[3];
  const stopped = Math.abs(next[0] - box[0] - shift[0]) + Math.abs(next[1] - box[1] - shift[1]) +
    Math.abs(next[2] - box[2] - shift[2]) + Math.abs(next[3] - box[3] - shift[3]) > 1e-12;
  return { box: fits ? snapped : contains(outer, next) && (!inner || contains(next, inner)) ? next : box, stopped };
}

// Moved as a whole: the shape stays, so the shift itself is cut.
function slid(box, dx, dy, inner, outer) {
  const x = clamp(dx, Math.max(outer[0] - box[0], inner ? inner[2] - box[2] : -1), Math.min(outer[2] - box[2], inner ? inner[0] - box[0] : 1));
  const y = clamp(dy, Math.max(outer[1] - box[1], inner ? inner[3] - box[3] : -1), Math.min(outer[3] - box[3], inner ? inner[1] - box[1] : 1));
  return [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
}

function snap(box, edges, { width, height }) {
  return box.map((value, i) => (edges[i] ? Math.round(value * (i % 2 ? height : width)) / (i % 2 ? height : width) : value));
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// A wider box around the widest box of a target: half of its sides more on every side, at least 8 pixels, as far as the picture goes.
export function grown(nested, size) {
  const box = nested.at(-1);
  const x = Math.max((box[2] - box[0]) / 4, 8 / size.width), y = Math.max((box[3] - box[1]) / 4, 8 / size.height);
  return fromCorners([box[0] - x, box[1] - y], [box[2] + x, box[3] + y], size);
}

// The smallest box at a point: what a click means.
export function boxAt(targets, [x, y]) {
  let best = null, bestArea = Infinity;
  targets.forEach((nested, t) =>
    nested.forEach((box, b) => {
      const area = (box[2] - box[0]) * (box[3] - box[1]);
      if (x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3] && area < bestArea) [best, bestArea] = [{ t, b }, area];
    }),
  );
  return best;
}

// The box `step` places further, over all targets.
export function neighbour(targets, at, step) {
  const all = targets.flatMap((nested, t) => nested.map((_, b) => ({ t, b })));
  if (!all.length) return null;
  const here = all.findIndex((one) => at && one.t === at.t && one.b === at.b);
  return all[here < 0 ? (step > 0 ? 0 : all.length - 1) : (here + step + all.length) % all.length];
}
