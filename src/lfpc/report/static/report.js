// Filters of the episode browser. The fragment "#episodes?arm=..&budget=..&show=.." holds the choice, so links and the back button work.
"use strict";

const form = document.getElementById("filters");
const cards = [...document.querySelectorAll("article")];

function chosenByFragment() {
  const [place, query] = location.hash.slice(1).split("?");
  return place === "episodes" && query ? new URLSearchParams(query) : null;
}

function choose(select, value) {
  const known = [...select.options].some((option) => option.value === value);
  select.value = known ? value : "all";
}

function fits(card) {
  const { arm, budget, show } = form.elements;
  return (
    (arm.value === "all" || card.dataset.arm === arm.value) &&
    (budget.value === "all" || card.dataset.budget === budget.value) &&
    (show.value === "all" || card.dataset.kinds.split(" ").includes(show.value))
  );
}

function apply() {
  let shown = 0;
  for (const card of cards) {
    card.hidden = !fits(card);
    shown += !card.hidden;
  }
  form.querySelector("output").textContent = `${shown} of ${cards.length} episodes`;
}

function followFragment() {
  const chosen = chosenByFragment();
  if (!chosen) return;
  for (const select of form.querySelectorAll("select")) choose(select, chosen.get(select.name));
  apply();
  document.getElementById("episodes").scrollIntoView();
}

function remember() {
  const chosen = new URLSearchParams([...form.querySelectorAll("select")].map((select) => [select.name, select.value]));
  history.replaceState(null, "", `#episodes?${chosen}`);
  apply();
}

if (form) {
  form.hidden = false;
  form.addEventListener("change", remember);
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", followFragment);
  for (const name of ["arm", "budget"]) {
    const { options } = form.elements[name]; // open with the last arm at the first budget: one setting at a time reads best
    form.elements[name].value = options[name === "arm" ? options.length - 1 : Math.min(1, options.length - 1)].value;
  }
  apply();
  followFragment();
}
