// Follows a run: asks whether something was added, and then takes the page's new content. What is open stays open.
"use strict";

(() => {
  const EVERY_MS = 2000;
  const page = document.getElementById("page");
  let known = null;

  function show(text, lost) {
    const place = document.getElementById("live");
    place.textContent = text;
    place.classList.toggle("lost", lost);
  }

  async function ask(path) {
    const answer = await fetch(path, { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    return answer;
  }

  async function renew() {
    const fresh = new DOMParser().parseFromString(await (await ask("./")).text(), "text/html").getElementById("page");
    const named = () => [...page.querySelectorAll("details")].map((one) => [one.querySelector("summary").textContent, one]);
    const open = new Map(named().map(([name, one]) => [name, one.open]));
    page.replaceChildren(...fresh.childNodes);
    for (const [name, one] of named()) one.open = open.get(name) ?? one.open;
  }

  async function look() {
    try {
      const { state } = await (await ask("state")).json();
      if (known !== null && state !== known) await renew();
      known = state;
      show(`following the run, last checked at ${new Date().toLocaleTimeString("en-GB")}`, false);
    } catch (error) {
      show(`stopped following the run: ${error.message}`, true);
    }
    setTimeout(look, EVERY_MS);
  }

  look();
})();
