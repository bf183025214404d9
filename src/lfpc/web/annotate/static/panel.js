// What stands beside the picture. Every text of the data is set with textContent.
export const $ = (id) => document.getElementById(id);
const MARKS = { todo: "·", done: "✓", skipped: "–" };

export function showQuestion(sample) {
  $("name").textContent = [sample.id, sample.category, sample.source].filter(Boolean).join(" · ");
  $("question").textContent = sample.question;
  $("answer").textContent = sample.answer;
  $("options").replaceChildren(...sample.options.map((text) => element("li", { textContent: text, className: "foreign", dir: "auto" })));
}

export function showBoxes(sample, at, actions) {
  const size = sample.picture;
  const rows = sample.targets.map((nested, t) => {
    const line = element("li", {});
    line.append(element("span", { className: `swatch c${t % 6}` }), `Target ${t + 1}`);
    nested.forEach((box, b) => {
      const pixels = size ? `${Math.round((box[2] - box[0]) * size.width)} × ${Math.round((box[3] - box[1]) * size.height)}` : "";
      const button = element("button", { textContent: `B${b + 1}`, title: `${pixels} pixels` });
      button.setAttribute("aria-label", `Box B${b + 1} of target ${t + 1}, ${pixels} pixels`);
      button.setAttribute("aria-pressed", String(at?.t === t && at.b === b));
      button.addEventListener("click", () => actions.select({ t, b }));
      line.append(button);
    });
    return line;
  });
  if (at?.b === -1 || !rows.length)
    rows.push(element("li", { className: "empty", textContent: `Target ${sample.targets.length + 1}: draw its tightest box, B1` }));
  $("targets").replaceChildren(...rows);
  $("remove").disabled = !at || at.b < 0;
  $("grow").disabled = !sample.targets.length;
}

export function showProposals(sample, asks, take) {
  $("proposed").hidden = !sample.proposals.length && !asks;
  $("ask").hidden = !asks;
  const lines = sample.proposals.map((one, i) => {
    const line = element("li", {});
    const button = element("button", {});
    button.append("Take ", element("kbd", { textContent: String(i + 1) }));
    button.addEventListener("click", () => take(i));
    line.append(button, " ", element("span", { className: "foreign", dir: "auto", textContent: `${one.source}${one.count > 1 ? `, ${one.count} times` : ""}` }));
    return line;
  });
  $("proposals").replaceChildren(...lines);
}

export function showDecision(sample) {
  $("flag").setAttribute("aria-pressed", String(sample.flagged));
  $("noted").hidden = !sample.flagged;
  if (document.activeElement !== $("note")) $("note").value = sample.note;
}

export function showProgress(list) {
  const count = (test) => list.filter(test).length;
  const done = count((one) => one.state === "done"), skipped = count((one) => one.state === "skipped"), flagged = count((one) => one.flagged);
  const parts = [`${done} of ${list.length} done`, skipped && `${skipped} skipped`, flagged && `${flagged} flagged`];
  $("progress").textContent = parts.filter(Boolean).join(", ");
  $("bar").value = list.length ? (done + skipped) / list.length : 0;
}

export function showList(list, filter, number) {
  const lines = list.flatMap((one, i) => {
    if (filter !== "all" && !(filter === "flagged" ? one.flagged : one.state === filter)) return [];
    return [element("option", { value: String(i), selected: i === number, textContent: entry(one, i) })];
  });
  $("list").replaceChildren(...lines);
}

export function updateEntry(list, number) {
  const line = [...$("list").options].find((option) => option.value === String(number));
  if (line) line.textContent = entry(list[number], number);
}

function entry(one, i) {
  return `${MARKS[one.state]}${one.flagged ? " ⚑" : ""} ${i + 1}  \u2068${one.question}\u2069`; // isolated: the text's direction stays its own
}

export function showStatus(text, isProblem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", isProblem);
}

export function hint(text, plain = false) {
  $("hint").hidden = !text;
  $("hint").textContent = text;
  $("hint").classList.toggle("plain", plain);
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
