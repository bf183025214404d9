// The page put together: the stage, the keys, the buttons.
import * as edits from "./edits.js";
import { bind, table } from "./keys.js";
import { go, page, saver, select, start } from "./page.js";
import { $, showList, showStatus } from "./panel.js";
import { Stage, WHOLE } from "./stage.js";

const stage = new Stage($("stage"), {
  state: () => ({
    targets: page.dragged ?? page.sample?.targets ?? [],
    at: page.at,
    draft: page.draft,
    proposals: page.sample?.proposals ?? [],
    showProposals: page.showProposals,
  }),
  select,
  drawing: edits.drawing,
  draw: edits.addBox,
  drag: edits.drag,
  dropped: edits.dropped,
});
Object.assign(page, { stage, take: edits.take });

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const arrows = (prefix) => Object.keys(ARROWS).map((key) => prefix + key);
const LOW = [true, true, false, false], HIGH = [false, false, true, true];
const KEYS = [
  { shown: "B", keys: ["b"], does: "a box in the middle of what is shown; around the target's boxes where it has some", act: edits.boxInTheMiddle },
  { shown: "G", keys: ["g"], does: "grow: a wider box around the target's widest", act: edits.growTarget },
  { shown: "N", keys: ["n"], does: "the next box begins another target", act: edits.newTarget },
  { shown: "arrows", keys: arrows(""), does: "move the selected box; move the picture where none is", act: (e) => edits.nudge(WHOLE, ...ARROWS[e.key]) },
  { shown: "Shift + arrows", keys: arrows("Shift+"), does: "move its right or lower edge", act: (e) => edits.nudge(HIGH, ...ARROWS[e.key]) },
  { shown: "Ctrl + arrows", keys: arrows("Ctrl+"), does: "move its left or upper edge", act: (e) => edits.nudge(LOW, ...ARROWS[e.key]) },
  { shown: "[ ]", keys: ["["], does: "the previous or the next box", act: () => edits.selectNext(-1) },
  { keys: ["]"], act: () => edits.selectNext(1) },
  { shown: "Esc", keys: ["Escape"], does: "stop drawing; select nothing", act: edits.leave },
  { shown: "Del", keys: ["Delete", "Backspace"], does: "remove the selected box", act: edits.remove },
  { shown: "Z, Y", keys: ["z", "Ctrl+z"], does: "undo, redo", act: () => edits.travel("undo") },
  { keys: ["y", "Ctrl+y", "Ctrl+Shift+z"], act: () => edits.travel("redo") },
  { shown: "1 to 9", keys: [..."123456789"], does: "take a proposal", act: (e) => edits.take(Number(e.key) - 1) },
  { shown: "P", keys: ["p"], does: "hide or show the proposals", act: edits.toggleProposals },
  { shown: "M", keys: ["m"], does: "ask the model for proposals", act: edits.askModel },
  { shown: "+ - 0", keys: ["+", "="], does: "zoom in, zoom out, the whole picture", act: () => stage.zoom(1.5) },
  { keys: ["-"], act: () => stage.zoom(1 / 1.5) },
  { keys: ["0"], act: () => stage.fit() },
  { shown: "C", keys: ["c"], does: "zoom to the selected box", act: edits.zoomToSelected },
  { shown: "Enter", keys: ["Enter"], does: "done; go to the next one that is not", act: () => edits.decide("done") },
  { shown: "S", keys: ["s"], does: "skip; go to the next one", act: () => edits.decide("skipped") },
  { shown: "X", keys: ["x"], does: "flag with a note, so that somebody looks again", act: edits.flag },
  { shown: "J, K", keys: ["j", "PageUp"], does: "the previous or the next picture", always: true, act: () => go(page.number - 1) },
  { keys: ["k", "PageDown"], always: true, act: () => go(page.number + 1) },
  { shown: "?", keys: ["?"], does: "these keys", act: () => $("help").showModal() },
];
bind(KEYS, (row) => $("help").open || (!page.sample && !row.always));
table(KEYS, $("bindings"));

const BUTTONS = {
  undo: () => edits.travel("undo"),
  redo: () => edits.travel("redo"),
  add: edits.boxInTheMiddle,
  grow: edits.growTarget,
  target: edits.newTarget,
  remove: edits.remove,
  ask: edits.askModel,
  done: () => edits.decide("done"),
  skip: () => edits.decide("skipped"),
  flag: edits.flag,
  back: () => go(page.number - 1),
  next: () => go(page.number + 1),
  keys: () => $("help").showModal(),
  close: () => $("help").close(),
};
for (const [id, act] of Object.entries(BUTTONS)) $(id).addEventListener("click", act);
$("list").addEventListener("change", () => go(Number($("list").value)));
$("filter").addEventListener("change", () => showList(page.list, $("filter").value, page.number));
$("note").addEventListener("change", () => edits.change({ note: $("note").value }));
for (const id of ["note", "list"])
  $(id).addEventListener("keydown", (event) => ["Enter", "Escape"].includes(event.key) && $("stage").focus());
window.addEventListener("beforeunload", (event) => saver.pending && event.preventDefault());
window.addEventListener("hashchange", () => go(Number.parseInt(window.location.hash.slice(1), 10) - 1));

start().catch((error) => showStatus(error.status ? error.message : "The server does not respond", true));
