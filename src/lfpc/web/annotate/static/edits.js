// What a person does to a sample. Every change can be undone, and is sent to the server at once.
import { added, contains, grown, moved, neighbour, placeAmong, removed, replaced } from "./boxes.js";
import { History } from "./history.js";
import { described, go, page, refresh, saver, select } from "./page.js";
import { $, hint, showStatus } from "./panel.js";
import { request } from "./saving.js";

const STEP = 4; // pixels of the screen that an arrow key moves by
const histories = new Map();

export function change(fields, at = page.at) {
  const { sample } = page;
  if (!sample) return;
  const kept = ({ targets, state, flagged, note }) => ({ targets, state, flagged, note, at: page.at });
  history().remember(kept(sample));
  Object.assign(sample, fields);
  page.at = at;
  refresh();
  saver.change(sample);
}

function history() {
  if (!histories.has(page.sample.id)) histories.set(page.sample.id, new History());
  return histories.get(page.sample.id);
}

export function travel(way) {
  if (!page.sample) return;
  const { targets, state, flagged, note } = page.sample;
  const found = history()[way]({ targets, state, flagged, note, at: page.at });
  if (!found) return showStatus(way === "undo" ? "Nothing to undo" : "Nothing to redo");
  const { at, ...fields } = found;
  Object.assign(page.sample, fields);
  page.at = at;
  refresh();
  saver.change(page.sample);
  showStatus(way === "undo" ? "Undone" : "Redone");
}

function aimedTarget() {
  return page.at ? page.at.t : page.sample.targets.length ? page.sample.targets.length - 1 : 0;
}

export function addBox(box) {
  page.draft = null;
  hint("");
  if (!box || !page.sample) return page.stage.draw();
  const result = added(page.sample.targets, aimedTarget(), box);
  if (result.refusal) {
    page.stage.draw();
    return showStatus(`Refused: ${result.refusal}`, true);
  }
  change({ targets: result.targets }, result.at);
  return showStatus(described(result.at));
}

export function drawing(box) {
  if (!box || !page.sample) {
    page.draft = null;
    hint("");
    return page.stage.draw();
  }
  const t = aimedTarget();
  const { refusal } = placeAmong(page.sample.targets[t] ?? [], box);
  page.draft = { box, t, refusal };
  hint(refusal ?? "");
  return page.stage.draw();
}

export function drag(at, edges, dx, dy) {
  const { box, stopped } = moved(page.sample.targets, at, edges, dx, dy, page.sample.picture);
  page.dragged = replaced(page.sample.targets, at, box);
  hint(stopped ? "B1 lies inside B2, B2 inside B3: the edge stops there" : "");
  page.stage.draw();
}

export function dropped() {
  hint("");
  const targets = page.dragged;
  page.dragged = null;
  if (targets && JSON.stringify(targets) !== JSON.stringify(page.sample.targets)) change({ targets });
  page.stage.draw();
}

export function nudge(edges, x, y) {
  if (!page.sample?.picture) return undefined;
  if (!page.at || page.at.b < 0) return page.stage.pan(x * 0.1, y * 0.1);
  const { picture, targets } = page.sample;
  const step = [Math.max(STEP * page.stage.grain[0], 1 / picture.width), Math.max(STEP * page.stage.grain[1], 1 / picture.height)];
  const { box, stopped } = moved(targets, page.at, edges, x * step[0], y * step[1], picture);
  const same = box.every((value, i) => value === targets[page.at.t][page.at.b][i]);
  if (same) return showStatus(stopped ? "Stopped: nested boxes stay inside each other and the picture" : "", stopped);
  change({ targets: replaced(targets, page.at, box) });
  return showStatus(stopped ? "Stopped at the next box or the picture's edge" : described(page.at));
}

export function boxInTheMiddle() {
  if (!page.sample?.picture) return;
  const [x0, y0, x1, y1] = page.stage.shown, { width, height } = page.sample.picture;
  const pixel = (value, side) => Math.round(value * side) / side;
  const nested = page.sample.targets[aimedTarget()] ?? [];
  if (nested.length) return growTarget();
  const w = Math.max(x1 - x0, 4 / width), h = Math.max(y1 - y0, 4 / height);
  addBox([pixel(x0 + w * 0.375, width), pixel(y0 + h * 0.375, height), pixel(x0 + w * 0.625, width), pixel(y0 + h * 0.625, height)]);
}

export function growTarget() {
  const nested = page.sample?.targets[aimedTarget()];
  if (!nested?.length) return showStatus("Nothing to grow: draw B1 first", true);
  const box = grown(nested, page.sample.picture);
  if (contains(nested.at(-1), box)) return showStatus("The widest box is the whole picture", true);
  return addBox(box);
}

export function newTarget() {
  if (!page.sample) return;
  page.at = { t: page.sample.targets.length, b: -1 };
  refresh();
  showStatus(`Target ${page.at.t + 1}: draw its tightest box`);
}

export function remove() {
  if (!page.at || page.at.b < 0) return showStatus("No box is selected", true);
  const result = removed(page.sample.targets, page.at);
  change({ targets: result.targets }, result.at);
  return showStatus("Removed");
}

export function take(i) {
  const proposal = page.sample?.proposals[i];
  if (!proposal) return;
  const t = aimedTarget();
  const fits = placeAmong(page.sample.targets[t] ?? [], proposal.box);
  if (fits.refusal?.includes("already")) return showStatus(`Refused: ${fits.refusal}`, true);
  if (fits.refusal) page.at = { t: page.sample.targets.length, b: -1 };
  addBox(proposal.box);
}

export async function askModel() {
  if (!page.asks || !page.sample) return;
  const { sample } = page;
  showStatus("Asking the model");
  try {
    const found = await request(`/api/samples/${sample.number}/ask`, "POST");
    sample.proposals = [...sample.proposals, ...found.proposals].slice(0, 9);
    showStatus(found.proposals.length ? `${found.proposals.length} proposed` : "The model named no box");
  } catch (error) {
    showStatus(error.message, true);
  }
  if (sample === page.sample) refresh();
}

export function decide(state) {
  if (!page.sample) return;
  if (state === "done" && !page.sample.picture) return showStatus(`Not done: ${page.sample.problem}; skip it with S`, true);
  if (state === "done" && !page.sample.targets.length) return showStatus("No box yet: draw one, or skip this picture with S", true);
  if (page.sample.state !== state) change({ state });
  const next = [...page.list.keys()].map((i) => (page.number + 1 + i) % page.list.length);
  const todo = next.find((i) => i !== page.number && page.list[i].state === "todo");
  if (todo === undefined) return showStatus("Every picture is done or skipped");
  return go(todo);
}

export function flag() {
  if (!page.sample) return;
  change({ flagged: !page.sample.flagged, note: page.sample.flagged ? "" : page.sample.note });
  if (page.sample.flagged) $("note").focus();
}

export function selectNext(step) {
  select(neighbour(page.sample.targets, page.at, step));
}

export function zoomToSelected() {
  if (page.at && page.at.b >= 0) page.stage.fit(page.sample.targets[page.at.t][page.at.b]);
}

export function leave() {
  if (page.draft) page.stage.cancel();
  else select(null);
}

export function toggleProposals() {
  page.showProposals = !page.showProposals;
  page.stage.draw();
}
