// The demo page. Whatever the model, the server or a file says is set with textContent: it is text, never markup.
import { drawBoxes, editBox, percent } from "./boxes.js";

const byId = (id) => document.getElementById(id);
const SWAP_NAMES = { own: "what it asked for", noise: "noise", none: "nothing", mean: "its mean colour", blur: "a blur", truth: "the true place", box: "a crop of your own" };

const BLIND = ["noise", "none", "mean", "blur"]; // swaps that take away what a crop shows

let picture = null; // { id, size, answer } of what is asked about
let stale = false; // whether the question was asked about an earlier picture, or came with an example
let asking = null; // AbortController of the question under way
let runs = []; // what was asked about this picture: the question itself, then its swaps
let editing = null; // closes the box editor

function showStatus(status, problem = "") {
  byId("status").textContent = status;
  byId("problem").textContent = problem;
}

async function posted(path, body, signal) {
  const answer = await fetch(path, { method: "POST", body, signal });
  if (answer.ok) return answer;
  const text = await answer.text();
  let problem = text;
  try {
    problem = JSON.parse(text).problem ?? text;
  } catch {
    // a refusal by the server itself is plain text
  }
  throw new Error(problem || `the server answered ${answer.status}`);
}

async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

function reasonOf(error) {
  return error instanceof TypeError ? "the server does not answer; is it still running?" : error.message;
}

// Pictures

async function sendIn(file) {
  showStatus(`Sending ${file.name} …`);
  try {
    const { id, size } = await (await posted("/pictures", file)).json();
    choosePicture({ id, size, name: file.name });
  } catch (error) {
    showStatus("", `${file.name}: ${reasonOf(error)}`);
  }
}

function stopAsking() {
  asking?.abort();
  asking = null;
  byId("stop").hidden = true;
  editing?.();
}

function choosePicture(chosen) {
  stopAsking();
  if (stale && !chosen.question) for (const name of ["question", "options"]) byId(name).value = "";
  if (chosen.question) {
    byId("question").value = chosen.question;
    byId("options").value = chosen.options.join("\n");
  }
  stale = Boolean(chosen.question);
  picture = chosen;
  clearRuns();
  byId("answers").hidden = true;
  byId("looked").hidden = false;
  showPicture(byId("original"), byId("original-caption"), `/pictures/${encodeURIComponent(chosen.id)}`, "Original", chosen.size);
  byId("first").closest("figure").hidden = true;
  for (const button of document.querySelectorAll("#examples button")) button.setAttribute("aria-pressed", button.dataset.id === chosen.id);
  draw();
  byId("send").disabled = false;
  showStatus(`${chosen.name} is ready. Ask about it.`);
}

function clearRuns() {
  runs = [];
  byId("runs").replaceChildren();
  byId("outcomes").hidden = true;
  byId("outcomes").querySelector("ol").replaceChildren();
}

function showPicture(image, caption, src, name, size, more = "") {
  image.src = src;
  image.alt = `${name}, with the boxes of the crops that were asked for`;
  [image.width, image.height] = size;
  image.closest("figure").style.maxWidth = `max(14rem, ${(60 * size[0]) / size[1]}vh)`; // a tall picture fits the window
  caption.textContent = `${name}, ${size[0]} × ${size[1]} pixels${more}`;
}

function exampleButton(example) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.id = example.id;
  button.setAttribute("aria-pressed", "false");
  const image = document.createElement("img");
  image.src = `/pictures/${encodeURIComponent(example.id)}`;
  image.alt = `Example: ${example.question}`;
  image.loading = "lazy";
  button.append(image);
  button.addEventListener("click", () => {
    choosePicture({ ...example, name: "The example" });
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// Runs

function addRun(title) {
  const element = byId("run").content.firstElementChild.cloneNode(true);
  const run = { element, title, id: "", swaps: [], turns: [], boxes: [] };
  element.querySelector(".run-title").textContent = title;
  element.querySelector(".show-boxes").addEventListener("click", () => select(run));
  byId("runs").append(element);
  byId("answers").hidden = false;
  runs.push(run);
  select(run);
  return run;
}

function select(run) {
  for (const other of runs) {
    other.element.classList.toggle("selected", other === run);
    other.element.querySelector(".show-boxes").setAttribute("aria-pressed", other === run);
  }
  draw();
}

function draw() {
  const boxes = runs.find((run) => run.element.classList.contains("selected"))?.boxes ?? [];
  for (const image of [byId("first"), byId("original")]) drawBoxes(image.parentElement, boxes);
}

async function follow(run, path, request) {
  stopAsking();
  const stopped = (asking = new AbortController());
  byId("stop").hidden = false;
  showStatus("Asking the model …");
  try {
    for await (const event of eventsOf(await posted(path, JSON.stringify(request), stopped.signal))) {
      if (event.kind === "problem") throw new Error(event.problem);
      ({ first: begin, turn: addTurn, end: finish })[event.kind](run, event);
    }
  } catch (error) {
    const why = stopped.signal.aborted ? "stopped" : reasonOf(error);
    run.element.querySelector(":scope > .problem").textContent = why;
    if (asking === stopped) showStatus(why === "stopped" ? "Stopped." : "", why === "stopped" ? "" : why);
  }
  offerSwaps(run);
  if (asking !== stopped) return;
  asking = null;
  byId("stop").hidden = true;
}

function begin(run, { id, swaps, view }) {
  Object.assign(run, { id, swaps });
  byId("first").closest("figure").hidden = false;
  showPicture(byId("first"), byId("first-caption"), view.src, "First view", [view.width, view.height], `, ${view.tokens} visual tokens`);
  draw();
}

function addTurn(run, turn) {
  const element = byId("turn").content.firstElementChild.cloneNode(true);
  const { action, view } = turn;
  element.classList.toggle("again", turn.replayed);
  element.querySelector("pre").textContent = turn.text + (turn.left_out ? ` … (${turn.left_out} more characters)` : "");
  element.querySelector(".feedback").textContent = action.detail ?? "";
  if (view) {
    const image = element.querySelector("img");
    Object.assign(image, { src: view.src, width: view.width, height: view.height, hidden: false });
    image.alt = `Shown after reply ${turn.number}: ${SWAP_NAMES[turn.shown]}, ${view.width} by ${view.height} pixels`;
  }
  if (action.kind === "crop") {
    const size = view ? `, ${view.width} × ${view.height} pixels, ${view.tokens} visual tokens` : "";
    element.querySelector(".facts").textContent = turn.last
      ? `Crop ${turn.call}: not cut, as it came with the last turn`
      : `Crop ${turn.call}: shown ${SWAP_NAMES[turn.shown]}${size}`;
    if (!turn.last) run.boxes.push(turn.region ?? action.box);
    draw();
    showStatus(`Reply ${turn.number}: crop ${turn.call}.`);
  } else {
    showStatus(`Reply ${turn.number}.`);
  }
  run.turns.push({ ...turn, element });
  run.element.querySelector("ol").append(element);
}

function finish(run, end) {
  const answer = run.element.querySelector(".answer");
  answer.textContent = end.answer === null ? "No answer" : `Answer: ${end.answer}`;
  answer.classList.toggle("problem", end.answer === null);
  run.element.querySelector(":scope > .facts").textContent =
    `${end.turns} ${end.turns === 1 ? "reply" : "replies"} · ${end.visual_tokens} visual tokens · ${end.seconds.toFixed(1)} s`;
  const before = runs[0] !== run && runs[0].answer !== undefined ? ` Before: ${runs[0].answer ?? "no answer"}.` : "";
  run.answer = end.answer;
  showOutcome(run);
  showStatus(`Answer: ${end.answer ?? "none"}.${before}`);
}

// The answer beside the picture; after a swap, whether it depends on the crop.
function showOutcome(run) {
  const item = byId("outcome").content.firstElementChild.cloneNode(true);
  item.querySelector(".outcome-title").textContent = `${run.title}:`;
  item.querySelector("b").textContent = run.answer ?? "no answer";
  if (run.from) {
    const same = alike(run.answer, run.from.answer);
    const change = item.querySelector(".change");
    change.textContent = same
      ? `Unchanged: ${run.call && BLIND.includes(run.shown) ? `crop ${run.call} was not used` : "the same answer as before"}`
      : `Changed: before it was ${run.from.answer ?? "no answer"}`;
    change.classList.add(same ? "no" : "yes");
  }
  const place = byId("outcomes");
  place.querySelector("ol").append(item);
  place.hidden = false;
  byId("right").hidden = !picture.answer;
  byId("right").querySelector("b").textContent = picture.answer ?? "";
}

function alike(one, other) {
  const plain = (text) => (text ?? "").trim().toLowerCase().replace(/[.\s]+$/, "");
  return plain(one) === plain(other);
}

// Swaps

function offerSwaps(run) {
  for (const turn of run.turns) {
    if (turn.action.kind !== "crop") continue;
    const row = turn.element.querySelector(".swaps");
    row.hidden = false;
    row.setAttribute("aria-label", `Swap crop ${turn.call}`);
    if (turn.last) {
      row.textContent = "No turn was left after this crop.";
      continue;
    }
    row.replaceChildren("Swap for");
    for (const name of run.swaps) if (name !== turn.shown) row.append(button(SWAP_NAMES[name], () => swap(run, turn.call, name)));
    row.append(button("a crop of your own …", () => ownBox(run, turn.call)));
  }
  const lead = run.element.querySelector(".lead");
  lead.hidden = run !== runs[0] || !run.id;
  lead.replaceChildren(button("Begin with a crop of your own …", () => ownBox(run, 0)));
}

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

// Play a run again: something else is shown for its nth crop, or (call 0) it begins with a call for a box.
function swap(run, call, shown) {
  const what = Array.isArray(shown) ? `a crop of your own (${shown.map(percent).join(", ")})` : SWAP_NAMES[shown];
  const next = addRun(call ? `Crop ${call}: ${what}` : `Begun with ${what}`);
  Object.assign(next, { from: run, call, shown });
  follow(next, "/swap", { id: run.id, call, shown });
  next.element.scrollIntoView({ block: "nearest" });
}

function ownBox(run, call) {
  editing?.();
  select(run);
  const form = byId("own-box").content.firstElementChild.cloneNode(true);
  form.querySelector("legend").textContent = `A crop of your own, ${call ? `in place of crop ${call}` : "as if the model had asked for it first"}`;
  byId("canvas").closest("figure").append(form);
  const stopEditing = editBox(byId("canvas"), [...form.querySelectorAll("input")], run.boxes[call - 1]);
  editing = () => {
    stopEditing();
    form.remove();
    editing = null;
  };
  form.querySelector(".cancel").addEventListener("click", () => editing());
  form.querySelector(".use").addEventListener("click", () => {
    const corners = [...form.querySelectorAll("input")].map((input) => input.valueAsNumber / 100);
    if (!(corners[0] < corners[2] && corners[1] < corners[3] && corners.every((corner) => corner >= 0 && corner <= 1))) {
      showStatus("", "A crop needs left before right and top above bottom, from 0 to 100.");
      return;
    }
    editing();
    swap(run, call, corners);
  });
  form.querySelector("input").focus();
}

// The page

function listen() {
  for (const name of ["question", "options"]) byId(name).addEventListener("input", () => { stale = false; });
  const drop = byId("drop");
  byId("file").addEventListener("change", (event) => event.target.files[0] && sendIn(event.target.files[0]));
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // a picture dropped beside the field must not replace the page
      drop.classList.toggle("over", over);
      const file = name === "drop" && event.dataTransfer?.files[0];
      if (file) sendIn(file);
    });
  }
  byId("stop").addEventListener("click", () => asking?.abort());
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!picture) return;
    stale = true;
    clearRuns();
    const options = byId("options").value.split("\n").map((line) => line.trim()).filter(Boolean);
    const question = byId("question").value;
    const budget = byId("budget").valueAsNumber || undefined; // left empty: as the server has it
    follow(addRun("Its own crops"), "/ask", { picture: picture.id, question, options, budget });
  });
}

async function start() {
  listen();
  try {
    const about = await (await fetch("/about")).json();
    byId("model").textContent = about.model;
    byId("budget").value ||= about.budget;
    byId("examples").replaceChildren(...about.examples.map(exampleButton));
  } catch (error) {
    showStatus("", reasonOf(error));
  }
}

start();
