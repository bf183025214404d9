// The data files of a report, each loaded once and when it is needed. A page from disk may not fetch, so they are scripts.
"use strict";

const lfpc = (() => {
  const KEPT = 24; // data files in memory
  const chunks = new Map();
  const waiting = new Map();
  let found = null;

  function load(name) {
    if (!waiting.has(name)) {
      const asked = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => { script.remove(); resolve(); };
        script.onerror = () => { script.remove(); reject(new Error(`data/${name}.js cannot be read`)); };
        document.head.append(script);
      });
      waiting.set(name, asked.finally(() => waiting.delete(name)));
    }
    return waiting.get(name);
  }

  async function episode(group, n) {
    const name = `${group}-${Math.floor(n / found.chunk)}`;
    if (!chunks.has(name)) await load(name);
    const entries = chunks.get(name);
    chunks.delete(name); // the file used last is forgotten last
    chunks.set(name, entries);
    while (chunks.size > KEPT) chunks.delete(chunks.keys().next().value);
    return entries[n % found.chunk];
  }

  async function open() {
    await load("index");
    return found;
  }

  // The fields of all episodes, which take longer to load than one episode.
  async function fields() {
    await load("columns");
    return found;
  }

  function columns(questions, groups) {
    found.questions = questions;
    groups.forEach((some, n) => { found.groups[n].columns = some; });
  }

  // `index`, `columns` and `chunk` are what the data files call.
  return { open, fields, episode, index: (value) => { found = value; }, columns, chunk: (name, entries) => { chunks.set(name, entries); } };
})();
