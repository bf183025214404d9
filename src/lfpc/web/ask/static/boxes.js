// Boxes over a picture: those of crops, and one that is being drawn. Boxes are fractions of the picture, [x0, y0, x1, y1].
const SVG = "http://www.w3.org/2000/svg";

export const percent = (fraction) => `${Math.round(fraction * 1000) / 10} %`;

function made(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

function rectangle([x0, y0, x1, y1], kind) {
  return made("rect", { class: kind, x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
}

function layer(frame, kind, options = {}) {
  frame.querySelector(`svg.${kind}`)?.remove();
  const svg = made("svg", { class: `overlay ${kind}`, "aria-hidden": "true", ...options });
  frame.append(svg);
  return svg;
}

const UNIT = { viewBox: "0 0 1 1", preserveAspectRatio: "none" };

/** Draw the numbered boxes of crops into `frame`, over its picture. */
export function drawBoxes(frame, boxes) {
  layer(frame, "crops", UNIT).append(...boxes.flatMap((box) => [rectangle(box, "halo"), rectangle(box, "crop")]));
  const numbers = boxes.map(([x0, y0], i) => made("text", { class: "number", x: percent(x0).replace(" ", ""), y: percent(y0).replace(" ", ""), dx: 4, dy: 15 }, i + 1));
  layer(frame, "numbers").append(...numbers);
}

/** Let a box be dragged over `frame` or typed into four fields (percent). Returns a function that ends it. */
export function editBox(frame, inputs, start) {
  const ended = new AbortController();
  const { signal } = ended;
  let from = null;

  function draw() {
    const box = inputs.map((input) => input.valueAsNumber / 100);
    const drawn = box[0] < box[2] && box[1] < box[3] ? [rectangle(box, "halo"), rectangle(box, "own")] : [];
    layer(frame, "drawn", UNIT).append(...drawn);
  }

  function set(box) {
    inputs.forEach((input, i) => {
      input.value = Math.round(box[i] * 1000) / 10;
    });
    draw();
  }

  function place(event) {
    const { left, top, width, height } = frame.getBoundingClientRect();
    const within = (value) => Math.min(Math.max(value, 0), 1);
    return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
  }

  frame.classList.add("drawing");
  frame.addEventListener("pointerdown", (event) => {
    from = place(event);
    frame.setPointerCapture(event.pointerId);
    event.preventDefault();
  }, { signal });
  frame.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = place(event);
    set([Math.min(from[0], x), Math.min(from[1], y), Math.max(from[0], x), Math.max(from[1], y)]);
  }, { signal });
  for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, () => { from = null; }, { signal });
  for (const input of inputs) input.addEventListener("input", draw, { signal });
  if (start) set(start);
  else draw();
  return () => {
    ended.abort();
    frame.classList.remove("drawing");
    frame.querySelector("svg.drawn")?.remove();
  };
}
