// The sample that is on the page: fetched, shown, selected in; and the way of its changes to the server.
import { $, showBoxes, showDecision, showList, showProgress, showProposals, showQuestion, showStatus, updateEntry } from "./panel.js";
import { Saver, request } from "./saving.js";

export const page = { list: [], asks: false, number: -1, sample: null, at: null, draft: null, dragged: null, showProposals: true, stage: null, take: null };
export const saver = new Saver(
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

export function select(at) {
  page.at = at;
  refresh();
  if (at) showStatus(described(at));
}

export function described({ t, b }) {
  if (!page.sample.picture) return `Target ${t + 1}, B${b + 1}`;
  const box = page.sample.targets[t][b], { width, height } = page.sample.picture;
  const pixels = [Math.round(box[0] * width), Math.round(box[1] * height), Math.round((box[2] - box[0]) * width), Math.round((box[3] - box[1]) * height)];
  return `Target ${t + 1}, B${b + 1}: ${pixels[2]} × ${pixels[3]} pixels at ${pixels[0]}, ${pixels[1]}`;
}

export function refresh() {
  showBoxes(page.sample, page.at, { select });
  showProposals(page.sample, page.asks, page.take);
  showDecision(page.sample);
  page.stage.draw();
}

function showNothing() {
  const nothing = { id: "", question: "", answer: "", options: [], targets: [], proposals: [], flagged: false, note: "" };
  showQuestion(nothing);
  showBoxes(nothing, null, { select });
  showProposals(nothing, false, page.take);
  showDecision(nothing);
  page.stage.open(null);
  page.stage.draw();
}

export async function go(number) {
  if (!page.list[number]) return; // out of range, or no number at all
  if (number !== page.number) Object.assign(page, { number, sample: null, at: null, draft: null, dragged: null }); // keys act on what is shown
  window.history.replaceState(null, "", `#${number + 1}`);
  if (saver.holds(number)) await saver.busy;
  let found;
  try {
    found = await request(`/api/samples/${number}`);
  } catch (error) {
    if (page.number !== number) return;
    if (!page.sample) showNothing();
    showStatus(error.status ? error.message : "The server does not respond; start it again, then choose the picture again", true);
    return;
  }
  if (page.number !== number) return; // another one was chosen meanwhile
  const { boxes, ...fields } = found;
  page.sample = { ...fields, number, targets: boxes };
  Object.assign(page, { at: boxes.length ? { t: 0, b: 0 } : null, draft: null, dragged: null });
  showQuestion(page.sample);
  showProgress(page.list);
  $("list").value = String(number);
  showStatus(found.problem ?? (boxes.length && found.state === "todo" && !found.by ? "These boxes were in the data: check them, then press Enter" : ""), Boolean(found.problem));
  page.stage.open(found.picture);
  refresh();
  if (!saver.pending) $("saved").textContent = "Saved";
  if (number + 1 < page.list.length) request(`/api/samples/${number + 1}`).catch(() => {}); // decoded by the time it is needed
}

export async function start() {
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
