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

// The box with its edges moved by (dx, dy), as far as its neighbours allow: {box, stopped}. `edges` says which of x0, y0, x1, y1
// move; where both of an axis do, the box keeps its size. The next tighter box stays inside it, and it inside the next wider one.
export function moved(targets, { t, b }, edges, dx, dy, size) {
  const box = targets[t][b], inner = targets[t][b - 1], outer = targets[t][b + 1] ?? [0, 0, 1, 1];
  const axes = [
    [0, dx, size.width],
    [1, dy, size.height],
  ].map(([i, by, side]) => movedAxis(box[i], box[i + 2], [edges[i], edges[i + 2]], by, [outer[i], outer[i + 2]], inner && [inner[i], inner[i + 2]], side));
  const [x, y] = axes;
  return { box: [x.low, y.low, x.high, y.high], stopped: x.stopped || y.stopped };
}

// One axis: low and high edge, in whole pixels of `side` where that keeps the nesting.
function movedAxis(low, high, [lowMoves, highMoves], by, outer, inner, side) {
  if (!by || !(lowMoves || highMoves)) return { low, high, stopped: false };
  const pixel = 1 / side;
  const lowRange = [outer[0], inner ? inner[0] : (highMoves ? outer[1] : high) - pixel];
  const highRange = [inner ? inner[1] : (lowMoves ? outer[0] : low) + pixel, outer[1]];
  let least = -1, most = 1;
  if (lowMoves) [least, most] = [lowRange[0] - low, lowRange[1] - low];
  if (highMoves) [least, most] = [Math.max(least, highRange[0] - high), Math.min(most, highRange[1] - high)];
  const shift = least > most ? 0 : clamp(by, least, most); // a box thinner than a pixel stays as it is
  const snapped = (value, range) => clamp(Math.round((value + shift) * side) / side, ...range);
  const next = { low: lowMoves ? snapped(low, lowRange) : low, high: highMoves ? snapped(high, highRange) : high };
  const sound = least <= most && next.low < next.high;
  return { low: sound ? next.low : low, high: sound ? next.high : high, stopped: Math.abs(shift - by) > 1e-12 };
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
