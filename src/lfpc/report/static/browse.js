// The episode browser: filters, sorting, search, keyboard, two settings beside each other. The fragment holds the whole choice.
"use strict";

(async () => {
  const PAGE = 100;
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const place = document.getElementById("episode");
  const count = form.querySelector("output");
  const [before, after] = document.querySelectorAll(".pager button");
  const pageNumber = document.querySelector(".pager span");
  const SORTS = { order: "order of the questions", iou: "IoU", area: "crop area", tokens: "visual tokens", seconds: "seconds", turns: "turns", reward: "reward", gain: "gain of the crop" };
  const DIFFERENCES = { gained: "right, but wrong in the other", lost: "wrong, but right in the other", differ: "right in one of the two" };
  let index;
  let found = []; // positions in the group that the filters leave, sorted
  let at = -1; // which of `found` is open
  let shownPage = -1;

  function named(group) {
    const seed = index.groups.some((other) => other.seed !== group.seed) ? `, seed ${group.seed}` : "";
    return `${group.name}${seed}`;
  }

  const chosen = () => index.groups[Number(form.elements.group.value)];
  const beside = () => (form.elements.with.value === "" ? null : index.groups[Number(form.elements.with.value)]);

  function option(value, text) {
    const element = document.createElement("option");
    element.value = value;
    element.textContent = text;
    return element;
  }

  function fill() {
    const { group, with: other, show, category, sort } = form.elements;
    index.groups.forEach((one, n) => {
      group.append(option(n, named(one)));
      if (one.budget !== "training") other.append(option(n, named(one)));
    });
    const bits = index.groups.reduce((all, one) => one.columns.kinds?.reduce((some, kinds) => some | kinds, all) ?? all, 0);
    index.kinds.forEach(([kind, text], n) => (bits & (1 << n)) && show.append(option(kind, text))); // those that occur
    for (const [kind, text] of Object.entries(DIFFERENCES)) show.append(option(kind, text));
    for (const name of [...new Set(index.questions.category)].sort()) if (name) category.append(option(name, name));
    const known = (key) => index.groups.some((one) => one.columns[key]?.some((value) => value !== null));
    for (const [key, text] of Object.entries(SORTS)) if (key === "order" || known(key)) sort.append(option(key, text));
  }

  // Position of each question in a group, by the question's number.
  function positions(group) {
    group.at ??= new Map(group.columns.question.map((question, n) => [question, n]));
    return group.at;
  }

  function differs(group, other, n, kind) {
    const there = positions(other).get(group.columns.question[n]);
    if (there === undefined) return false;
    const [here, theirs] = [group.columns.correct[n] >= 0.5, other.columns.correct[there] >= 0.5];
    return kind === "gained" ? here && !theirs : kind === "lost" ? !here && theirs : here !== theirs;
  }

  function fits(group, n) {
    const { show, category, q } = form.elements;
    const question = group.columns.question[n];
    const bit = index.kinds.findIndex(([kind]) => kind === show.value);
    if (bit >= 0 && !(group.columns.kinds[n] & (1 << bit))) return false;
    if (show.value in DIFFERENCES && !(beside() && differs(group, beside(), n, show.value))) return false;
    if (category.value !== "all" && index.questions.category[question] !== category.value) return false;
    const words = q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { id, text } = index.questions;
    const searched = words.length ? `${id[question]} ${text[question]} ${group.columns.said[n]}`.toLowerCase() : "";
    return words.every((word) => searched.includes(word));
  }

  function choose() {
    const group = chosen();
    const { sort, descending, show } = form.elements;
    for (const one of show.options) one.hidden = one.disabled = one.value in DIFFERENCES && !beside();
    if (show.selectedOptions[0]?.disabled) show.value = "all";
    found = group.columns.question.map((_, n) => n).filter((n) => fits(group, n));
    if (sort.value !== "order") {
      const values = group.columns[sort.value];
      const sign = descending.checked ? -1 : 1;
      const missing = (n) => values[n] === null || values[n] === undefined;
      found.sort((a, b) => missing(a) - missing(b) || sign * (values[a] - values[b]) || a - b);
    } else if (descending.checked) found.reverse();
    const share = group.columns.question.length ? ` (${((100 * found.length) / group.columns.question.length).toFixed(1)} %)` : "";
    count.textContent = `${found.length.toLocaleString("en")} of ${group.columns.question.length.toLocaleString("en")} episodes${share}`;
    shownPage = -1;
  }

  function line(k) {
    const group = chosen();
    const n = found[k];
    const question = group.columns.question[n];
    const link = document.createElement("a");
    link.href = `#${fragment(k)}`;
    link.dataset.k = k;
    const small = index.questions.thumbnail[question];
    if (small) {
      const image = document.createElement("img");
      Object.assign(image, { src: small, alt: "", loading: "lazy", width: 36, height: 36 });
      link.append(image);
    }
    const correct = group.columns.correct[n];
    const mark = document.createElement("span");
    mark.className = `mark ${correct ? "yes" : "no"}`;
    mark.textContent = correct === null ? "·" : correct === 1 ? "✓" : correct ? "~" : "✗";
    mark.setAttribute("aria-label", correct === null ? "" : correct ? "right" : "wrong");
    mark.setAttribute("role", "img");
    const text = document.createElement("bdi");
    text.textContent = index.questions.text[question];
    const more = document.createElement("small");
    const iou = group.columns.iou[n];
    const step = group.columns.step[n];
    const answer = document.createElement("bdi");
    answer.textContent = group.columns.said[n] || "no answer";
    more.append(answer, `${iou === null ? "" : ` · IoU ${iou.toFixed(2)}`}${step === null ? "" : ` · step ${step}`}`);
    link.append(mark, text, more);
    const item = document.createElement("li");
    item.append(link);
    return item;
  }

  function showList() {
    const page = Math.max(0, Math.floor(at / PAGE));
    if (page !== shownPage) {
      shownPage = page;
      const from = page * PAGE;
      list.replaceChildren(...found.slice(from, from + PAGE).map((_, n) => line(from + n)));
      list.start = from + 1;
    }
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    pageNumber.textContent = `page ${page + 1} of ${pages}`;
    before.disabled = page === 0;
    after.disabled = page >= pages - 1;
    for (const link of list.querySelectorAll("a")) {
      const open = Number(link.dataset.k) === at;
      if (open) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      if (open) link.scrollIntoView({ block: "nearest" });
    }
  }

  async function show(k) {
    at = Math.min(Math.max(k, 0), found.length - 1);
    showList();
    if (at < 0) return place.replaceChildren("No such episode.");
    history.replaceState(null, "", `#${fragment(at)}`);
    const [group, n, other] = [chosen(), found[at], beside()];
    const there = other ? positions(other).get(group.columns.question[n]) : undefined;
    const wanted = [[group, n], ...(there === undefined ? [] : [[other, there]])];
    try {
      const episodes = await Promise.all(wanted.map(([one, position]) => lfpc.episode(index.groups.indexOf(one), position)));
      if (found[at] !== n || chosen() !== group) return undefined; // another one was asked for meanwhile
      place.replaceChildren(...episodes.map((episode, i) => showEpisode(episode, named(wanted[i][0]))));
      if (other && there === undefined) place.append(`${named(other)} was not asked this question.`);
    } catch (error) {
      place.replaceChildren(`This episode cannot be shown: ${error.message}.`);
    }
    return undefined;
  }

  function groupIn(parameters, prefix) {
    const [arm, budget, seed] = ["arm", "budget", "seed"].map((key) => parameters.get(prefix + key));
    if (arm === null) return -1;
    return index.groups.findIndex((one) => one.arm === arm && (budget === null || one.budget === budget) && (seed === null || one.seed === Number(seed)));
  }

  // The fragment of the choice in the form with the episode `k` open.
  function fragment(k) {
    const group = chosen();
    const other = beside();
    const { show: kind, category, sort, descending, q } = form.elements;
    const parameters = new URLSearchParams({ arm: group.arm, budget: group.budget, seed: group.seed });
    if (other) for (const key of ["arm", "budget", "seed"]) parameters.set(`with-${key}`, other[key]);
    for (const [name, element, usual] of [["show", kind, "all"], ["category", category, "all"], ["sort", sort, "order"], ["q", q, ""]]) {
      if (element.value !== usual) parameters.set(name, element.value);
    }
    if (descending.checked) parameters.set("descending", "1");
    if (found[k] !== undefined) {
      parameters.set("at", index.questions.id[group.columns.question[found[k]]]);
      if (group.budget === "training") parameters.set("n", found[k]);
    }
    return parameters.toString();
  }

  function follow() {
    const parameters = new URLSearchParams(location.hash.slice(1));
    const { group, with: other, show: kind, category, sort, descending, q } = form.elements;
    group.value = String(Math.max(0, groupIn(parameters, "")));
    const second = groupIn(parameters, "with-");
    other.value = second < 0 ? "" : String(second);
    for (const one of kind.options) one.disabled = false;
    for (const [name, element, usual] of [["show", kind, "all"], ["category", category, "all"], ["sort", sort, "order"], ["q", q, ""]]) {
      const value = parameters.get(name) ?? usual;
      element.value = element === q || [...element.options].some((one) => one.value === value) ? value : usual;
    }
    descending.checked = parameters.get("descending") === "1";
    choose();
    const { columns } = chosen();
    const wanted = found.findIndex((n) => (parameters.has("n") ? n === Number(parameters.get("n")) : index.questions.id[columns.question[n]] === parameters.get("at")));
    return show(Math.max(0, wanted));
  }

  function change(event) {
    const { show: kind } = form.elements;
    if (event.target.name === "with" && beside() && kind.value === "all") kind.value = "differ";
    choose();
    show(0);
  }

  function press(event) {
    const typing = event.target.closest("input[type=search], select, textarea");
    if (event.key === "Escape" && typing) typing.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1, PageDown: PAGE, PageUp: -PAGE }[event.key];
    if (event.key === "/") form.elements.q.focus();
    else if (step) show(at + step);
    else return;
    event.preventDefault();
  }

  try {
    index = await lfpc.open();
    if (!index.groups.length) {
      count.textContent = "No episodes.";
      return;
    }
    // Without a choice in the address the first episode is open, and shown before all fields are there.
    const alone = document.body.dataset.alone === "yes";
    if ((alone || location.hash.length < 2) && index.groups[0].episodes) {
      place.replaceChildren(showEpisode(await lfpc.episode(0, 0), named(index.groups[0])));
    }
    if (alone) return;
    await lfpc.fields();
  } catch (error) {
    count.textContent = `The episodes cannot be shown: ${error.message}.`;
    return;
  }
  fill();
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(Number(link.dataset.k));
  });
  before.addEventListener("click", () => show(Math.max(0, shownPage - 1) * PAGE));
  after.addEventListener("click", () => show((shownPage + 1) * PAGE));
  window.addEventListener("hashchange", follow);
  document.addEventListener("keydown", press);
  await follow();
  document.body.dataset.ready = "yes";
})();
