// Which key does what. The first name of a row is shown, `act` gets the event.
const TYPING = "input, textarea, select";

// Bind the keys of `rows`; `refuses(row)`: whether a row does nothing now.
export function bind(rows, refuses) {
  const byKey = new Map(rows.flatMap((row) => row.keys.map((key) => [key, row])));
  document.addEventListener("keydown", (event) => {
    if (event.target.closest(TYPING)) return;
    if (["Enter", " "].includes(event.key) && event.target.closest("button, a, summary")) return;
    const row = byKey.get(name(event));
    if (!row || refuses(row)) return;
    event.preventDefault();
    row.act(event);
  });
}

function name(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const command = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const shift = event.shiftKey && event.key.length > 1 ? "Shift+" : event.shiftKey && command ? "Shift+" : "";
  return `${command}${event.altKey ? "Alt+" : ""}${shift}${key}`;
}

export function table(rows, body) {
  for (const { shown, does } of rows) {
    if (!shown) continue;
    const line = body.insertRow();
    const key = document.createElement("kbd");
    key.textContent = shown;
    line.insertCell().append(key);
    line.insertCell().textContent = does;
  }
}
