// The page: one sample at a time, what a person does to it, and its way to the server.
import { added, contains, grown, moved, neighbour, placeAmong, removed, replaced } from "./boxes.js";
import { History } from "./history.js";
import { bind, table } from "./keys.js";
import { $, hint, showBoxes, showDecision, showList, showProgress, showProposals, showQuestion, tell, updateEntry } from "./panel.js";
import { Saver, request } from "./saving.js";
import { Stage, WHOLE } from "./stage.js";

const STEP = 4; // pixels of the screen that an arrow key moves by
const page = { list: [], asks: false, number: -1, sample: null, at: null, draft: null, dragged: null, showProposals: true };
const histories = new Map();
const saver = new Saver(
  (text, isProblem) => {
    $("saved").textContent = text;
    $("saved").classList.toggle("problem", isProblem);
  },
  (sample) => {
    Object.assign(page.list[sample.number], { state: sample.state, flagged: sample.flagged, targets: sample.targets.length });
    updateEntry(page.list, sample.number);
    showProgress(page.list);
  },
);
const stage = new Stage($("stage"), {
  state: () => ({
    targets: page.dragged ?? page.sample?.targets ?? [],
    at: page.at,
    draft: page.draft,
    proposals: page.sample?.proposals ?? [],
    showProposals: page.showProposals,
  }),
  select,
  drawing,
  draw: addBox,
  drag,
  dropped,
});

// --- what changes a sample -------------------------------------------------------------------------------------------------

function change(fields, at = page.at) {
  const { sample } = page;
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

function travel(way) {
  if (!page.sample) return;
  const { targets, state, flagged, note } = page.sample;
  const found = history()[way]({ targets, state, flagged, note, at: page.at });
  if (!found) return tell(way === "undo" ? "Nothing to undo" : "Nothing to redo");
  const { at, ...fields } = found;
  Object.assign(page.sample, fields);
  page.at = at;
  refresh();
  saver.change(page.sample);
  tell(way === "undo" ? "Undone" : "Redone");
}

function aimedTarget() {
  return page.at ? page.at.t : page.sample.targets.length ? page.sample.targets.length - 1 : 0;
}

function addBox(box) {
  page.draft = null;
  hint("");
  if (!box || !page.sample) return stage.draw();
  const result = added(page.sample.targets, aimedTarget(), box);
  if (result.refusal) {
    stage.draw();
    return tell(`Refused: ${result.refusal}`, true);
  }
  change({ targets: result.targets }, result.at);
  return tell(described(result.at));
}

function drawing(box) {
  if (!box || !page.sample) {
    page.draft = null;
    hint("");
    return stage.draw();
  }
  const t = aimedTarget();
  const { refusal } = placeAmong(page.sample.targets[t] ?? [], box);
  page.draft = { box, t, refusal };
  hint(refusal ?? "");
  return stage.draw();
}

function drag(at, edges, dx, dy) {
  const { box, stopped } = moved(page.sample.targets, at, edges, dx, dy, page.sample.picture);
  page.dragged = replaced(page.sample.targets, at, box);
  hint(stopped ? "B1 lies inside B2, B2 inside B3: the edge stops there" : "");
  stage.draw();
}

function dropped() {
  hint("");
  const targets = page.dragged;
  page.dragged = null;
  if (targets && JSON.stringify(targets) !== JSON.stringify(page.sample.targets)) change({ targets });
  stage.draw();
}

function nudge(edges, x, y) {
  if (!page.sample?.picture) return undefined;
  if (!page.at || page.at.b < 0) return stage.pan(x * 0.1, y * 0.1);
  const { picture, targets } = page.sample;
  const step = [Math.max(STEP * stage.grain[0], 1 / picture.width), Math.max(STEP * stage.grain[1], 1 / picture.height)];
  const { box, stopped } = moved(targets, page.at, edges, x * step[0], y * step[1], picture);
  const same = box.every((value, i) => value === targets[page.at.t][page.at.b][i]);
  if (same) return tell(stopped ? "Stopped: nested boxes stay inside each other and the picture" : "", stopped);
  change({ targets: replaced(targets, page.at, box) });
  return tell(stopped ? "Stopped at the next box or the picture's edge" : described(page.at));
}

function boxInTheMiddle() {
  if (!page.sample?.picture) return;
  const [x0, y0, x1, y1] = stage.shown, { width, height } = page.sample.picture;
  const pixel = (value, side) => Math.round(value * side) / side;
  const nested = page.sample.targets[aimedTarget()] ?? [];
  if (nested.length) return growTarget();
  const w = Math.max(x1 - x0, 4 / width), h = Math.max(y1 - y0, 4 / height);
  addBox([pixel(x0 + w * 0.375, width), pixel(y0 + h * 0.375, height), pixel(x0 + w * 0.625, width), pixel(y0 + h * 0.625, height)]);
}

function growTarget() {
  const nested = page.sample?.targets[aimedTarget()];
  if (!nested?.length) return tell("Nothing to grow: draw B1 first", true);
  const box = grown(nested, page.sample.picture);
  if (contains(nested.at(-1), box)) return tell("The widest box is the whole picture", true);
  return addBox(box);
}

function newTarget() {
  if (!page.sample) return;
  page.at = { t: page.sample.targets.length, b: -1 };
  refresh();
  tell(`Target ${page.at.t + 1}: draw its tightest box`);
}

function remove() {
  if (!page.at || page.at.b < 0) return tell("No box is selected", true);
  const result = removed(page.sample.targets, page.at);
  change({ targets: result.targets }, result.at);
  return tell("Removed");
}

function take(i) {
  const proposal = page.sample?.proposals[i];
  if (!proposal) return;
  const t = aimedTarget();
  const fits = placeAmong(page.sample.targets[t] ?? [], proposal.box);
  if (fits.refusal?.includes("already")) return tell(`Refused: ${fits.refusal}`, true);
  if (fits.refusal) page.at = { t: page.sample.targets.length, b: -1 };
  addBox(proposal.box);
}

async function askModel() {
  if (!page.asks || !page.sample) return;
  const { sample } = page;
  tell("Asking the model");
  try {
    const found = await request(`/api/samples/${sample.number}/ask`, "POST");
    sample.proposals = [...sample.proposals, ...found.proposals].slice(0, 9);
    tell(found.proposals.length ? `${found.proposals.length} proposed` : "The model named no box");
  } catch (error) {
    tell(error.message, true);
  }
  if (sample === page.sample) refresh();
}

function decide(state) {
  if (!page.sample) return;
  if (state === "done" && !page.sample.targets.length) return tell("No box yet: draw one, or skip this picture with S", true);
  if (page.sample.state !== state) change({ state });
  const next = [...page.list.keys()].map((i) => (page.number + 1 + i) % page.list.length);
  const todo = next.find((i) => i !== page.number && page.list[i].state === "todo");
  if (todo === undefined) return tell("Every picture is done or skipped");
  return go(todo);
}

function flag() {
  if (!page.sample) return;
  change({ flagged: !page.sample.flagged, note: page.sample.flagged ? "" : page.sample.note });
  if (page.sample.flagged) $("note").focus();
}

// --- what is shown ---------------------------------------------------------------------------------------------------------

function select(at) {
  page.at = at;
  refresh();
  if (at) tell(described(at));
}

function described({ t, b }) {
  const box = page.sample.targets[t][b], { width, height } = page.sample.picture;
  const pixels = [Math.round(box[0] * width), Math.round(box[1] * height), Math.round((box[2] - box[0]) * width), Math.round((box[3] - box[1]) * height)];
  return `Target ${t + 1}, B${b + 1}: ${pixels[2]} × ${pixels[3]} pixels at ${pixels[0]}, ${pixels[1]}`;
}

function refresh() {
  showBoxes(page.sample, page.at, { select });
  showProposals(page.sample, page.asks, take);
  showDecision(page.sample);
  stage.draw();
}

async function go(number) {
  if (number < 0 || number >= page.list.length) return;
  page.number = number;
  window.history.replaceState(null, "", `#${number + 1}`);
  if (saver.busy && saver.waiting.has(number)) await saver.busy;
  let found;
  try {
    found = await request(`/api/samples/${number}`);
  } catch (error) {
    tell(error.status ? error.message : "The server is away; start it again, then choose the picture again", true);
    return;
  }
  if (page.number !== number) return; // another one was chosen meanwhile
  const { boxes, ...fields } = found;
  page.sample = { ...fields, number, targets: boxes };
  Object.assign(page, { at: boxes.length ? { t: 0, b: 0 } : null, draft: null, dragged: null });
  showQuestion(page.sample);
  showProgress(page.list);
  $("list").value = String(number);
  tell(found.problem ?? (boxes.length && found.state === "todo" && !found.by ? "These boxes were in the data: check them, then press Enter" : ""), Boolean(found.problem));
  stage.open(found.picture);
  refresh();
  if (!saver.pending) $("saved").textContent = "Saved";
  if (number + 1 < page.list.length) request(`/api/samples/${number + 1}`).catch(() => {}); // decoded by the time it is needed
}

async function start() {
  const found = await request("/api/samples");
  Object.assign(page, { list: found.samples, asks: found.asks });
  document.title = `Boxes: ${found.folder}`;
  showProgress(page.list);
  const named = Number.parseInt(window.location.hash.slice(1), 10) - 1;
  const first = page.list.findIndex((one) => one.state === "todo");
  const number = page.list[named] ? named : Math.max(first, 0);
  showList(page.list, $("filter").value, number);
  await go(number);
  $("stage").focus();
}

// --- keys and buttons ------------------------------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const arrows = (prefix) => Object.keys(ARROWS).map((key) => prefix + key);
const LOW = [true, true, false, false], HIGH = [false, false, true, true];
const KEYS = [
  { shown: "B", keys: ["b"], does: "a box in the middle of what is shown; around the target's boxes where it has some", act: boxInTheMiddle },
  { shown: "G", keys: ["g"], does: "grow: a wider box around the target's widest", act: growTarget },
  { shown: "N", keys: ["n"], does: "the next box begins another target", act: newTarget },
  { shown: "arrows", keys: arrows(""), does: "move the selected box; move the picture where none is", act: (e) => nudge(WHOLE, ...ARROWS[e.key]) },
  { shown: "Shift + arrows", keys: arrows("Shift+"), does: "move its right or lower edge", act: (e) => nudge(HIGH, ...ARROWS[e.key]) },
  { shown: "Ctrl + arrows", keys: arrows("Ctrl+"), does: "move its left or upper edge", act: (e) => nudge(LOW, ...ARROWS[e.key]) },
  { shown: "[ ]", keys: ["["], does: "the previous or the next box", act: () => select(neighbour(page.sample.targets, page.at, -1)) },
  { keys: ["]"], act: () => select(neighbour(page.sample.targets, page.at, 1)) },
  { shown: "Esc", keys: ["Escape"], does: "stop drawing; select nothing", act: () => (page.draft ? stage.cancel() : select(null)) },
  { shown: "Del", keys: ["Delete", "Backspace"], does: "remove the selected box", act: remove },
  { shown: "Z, Y", keys: ["z", "Ctrl+z"], does: "undo, redo", act: () => travel("undo") },
  { keys: ["y", "Ctrl+y", "Ctrl+Shift+z"], act: () => travel("redo") },
  { shown: "1 to 9", keys: [..."123456789"], does: "take a proposal", act: (e) => take(Number(e.key) - 1) },
  { shown: "P", keys: ["p"], does: "hide or show the proposals", act: () => { page.showProposals = !page.showProposals; stage.draw(); } },
  { shown: "M", keys: ["m"], does: "ask the model for proposals", act: askModel },
  { shown: "+ - 0", keys: ["+", "="], does: "zoom in, zoom out, the whole picture", act: () => stage.zoom(1.5) },
  { keys: ["-"], act: () => stage.zoom(1 / 1.5) },
  { keys: ["0"], act: () => stage.fit() },
  { shown: "C", keys: ["c"], does: "zoom to the selected box", act: () => page.at && page.at.b >= 0 && stage.fit(page.sample.targets[page.at.t][page.at.b]) },
  { shown: "Enter", keys: ["Enter"], does: "done; go to the next one that is not", act: () => decide("done") },
  { shown: "S", keys: ["s"], does: "skip; go to the next one", act: () => decide("skipped") },
  { shown: "X", keys: ["x"], does: "flag with a note, so that somebody looks again", act: flag },
  { shown: "J, K", keys: ["j", "PageUp"], does: "the previous or the next picture", act: () => go(page.number - 1) },
  { keys: ["k", "PageDown"], act: () => go(page.number + 1) },
  { shown: "?", keys: ["?"], does: "these keys", act: () => $("help").showModal() },
];
bind(KEYS, () => $("help").open || !page.sample);
table(KEYS, $("bindings"));

const BUTTONS = {
  undo: () => travel("undo"), redo: () => travel("redo"), add: boxInTheMiddle, grow: growTarget, target: newTarget, remove, ask: askModel,
  done: () => decide("done"), skip: () => decide("skipped"), flag, back: () => go(page.number - 1), next: () => go(page.number + 1),
  keys: () => $("help").showModal(), close: () => $("help").close(),
};
for (const [id, act] of Object.entries(BUTTONS)) $(id).addEventListener("click", act);
$("list").addEventListener("change", () => go(Number($("list").value)));
$("filter").addEventListener("change", () => showList(page.list, $("filter").value, page.number));
$("note").addEventListener("change", () => change({ note: $("note").value }));
for (const id of ["note", "list"])
  $(id).addEventListener("keydown", (event) => ["Enter", "Escape"].includes(event.key) && $("stage").focus());
window.addEventListener("beforeunload", (event) => saver.pending && event.preventDefault());
window.addEventListener("hashchange", () => go(Number.parseInt(window.location.hash.slice(1), 10) - 1));

start().catch((error) => tell(error.status ? error.message : "The server is away", true));
