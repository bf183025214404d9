// The picture and the boxes on it: deep zoom by OpenSeadragon, boxes as SVG over it, and what the mouse does with them.
import { boxAt, fromCorners } from "./boxes.js";

const REACH = 7; // pixels of the screen within which an edge is met
const SVG = "http://www.w3.org/2000/svg";
const CURSORS = { "1000": "ew", "0010": "ew", "0100": "ns", "0001": "ns", "1100": "nwse", "0011": "nwse", "1001": "nesw", "0110": "nesw", "1111": "edge" };
export const WHOLE = [true, true, true, true];

export class Stage {
  // `on` has state() -> {targets, at, draft, proposals, showProposals}, and what a gesture does: select(at), drawing(box), draw(box),
  // drag(at, edges, dx, dy), dropped().
  constructor(root, on) {
    Object.assign(this, { root, on, panning: false, gesture: null, overlay: root.querySelector("#overlay") });
    this.viewer = OpenSeadragon({
      element: root.querySelector("#viewer"),
      showNavigationControl: false,
      drawer: "canvas",
      animationTime: 0.25,
      maxZoomPixelRatio: 16,
      visibilityRatio: 0.2,
      imageSmoothingEnabled: true,
      tileRetryMax: 100, // a server that was started again gives what is missing
      tileRetryDelay: 2000,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false, flickEnabled: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false, flickEnabled: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
      tabIndex: -1,
    });
    for (const name of ["canvas-key", "canvas-key-press"]) this.viewer.addHandler(name, (event) => (event.preventDefaultAction = true));
    for (const name of ["update-viewport", "open", "resize", "animation"]) this.viewer.addHandler(name, () => this.draw());
    this.viewer.addHandler("canvas-press", (event) => this.#press(event));
    this.viewer.addHandler("canvas-drag", (event) => this.#drag(event));
    this.viewer.addHandler("canvas-release", (event) => this.#release(event));
    this.viewer.addHandler("canvas-drag-end", (event) => (event.preventDefaultAction = this.gesture !== null));
    this.viewer.addHandler("canvas-click", (event) => this.#click(event));
    this.#panWithSpaceOrRightButton();
    root.addEventListener("pointermove", (event) => this.#hover(event));
  }

  open(picture) {
    this.picture = picture;
    this.gesture = null;
    if (!picture) {
      this.viewer.close();
      this.draw();
      return;
    }
    this.viewer.open({
      width: picture.width,
      height: picture.height,
      tileSize: picture.tile,
      tileOverlap: 0,
      minLevel: 0,
      maxLevel: picture.levels,
      getTileUrl: (level, x, y) => `${picture.tiles}/${level}/${x}_${y}.jpg`,
    });
  }

  // Fractions of the picture at a point of the stage, and back.
  toPicture(point) {
    const at = this.viewer.viewport.viewerElementToViewportCoordinates(point);
    return [at.x, (at.y * this.picture.width) / this.picture.height];
  }

  toStage([x, y]) {
    return this.viewer.viewport.viewportToViewerElementCoordinates(new OpenSeadragon.Point(x, (y * this.picture.height) / this.picture.width));
  }

  // Fractions of the picture that one pixel of the screen is.
  get grain() {
    const bounds = this.viewer.viewport.getBounds(true);
    return [bounds.width / this.root.clientWidth, (bounds.height * this.picture.width) / this.picture.height / this.root.clientHeight];
  }

  get shown() {
    const a = this.toPicture(new OpenSeadragon.Point(0, 0));
    const b = this.toPicture(new OpenSeadragon.Point(this.root.clientWidth, this.root.clientHeight));
    return [Math.max(a[0], 0), Math.max(a[1], 0), Math.min(b[0], 1), Math.min(b[1], 1)];
  }

  zoom(factor) {
    this.viewer.viewport.zoomBy(factor).applyConstraints();
  }

  pan(x, y) {
    const bounds = this.viewer.viewport.getBounds();
    this.viewer.viewport.panBy(new OpenSeadragon.Point(x * bounds.width, y * bounds.height)).applyConstraints();
  }

  fit(box = null) {
    const { viewport } = this.viewer;
    if (!box) return viewport.goHome();
    const ratio = this.picture.height / this.picture.width;
    const pad = [(box[2] - box[0]) * 0.75, (box[3] - box[1]) * 0.75];
    const rect = [box[0] - pad[0], (box[1] - pad[1]) * ratio, box[2] - box[0] + 2 * pad[0], (box[3] - box[1] + 2 * pad[1]) * ratio];
    return viewport.fitBoundsWithConstraints(new OpenSeadragon.Rect(...rect));
  }

  draw() {
    const state = this.on.state();
    this.overlay.replaceChildren();
    if (!this.picture || !this.viewer.isOpen()) return;
    if (state.showProposals) state.proposals.forEach((one, i) => this.#box(one.box, "proposal", `${i + 1}`));
    state.targets.forEach((nested, t) =>
      nested.forEach((box, b) => {
        const chosen = state.at?.t === t && state.at.b === b;
        this.#box(box, `c${t % 6}${chosen ? " chosen" : ""}`, state.targets.length > 1 ? `${t + 1}·B${b + 1}` : `B${b + 1}`, chosen);
      }),
    );
    if (state.draft) this.#box(state.draft.box, state.draft.refusal ? "refused" : `c${state.draft.t % 6} chosen`, "");
  }

  #box(box, kind, label, handles = false) {
    const a = this.toStage([box[0], box[1]]), b = this.toStage([box[2], box[3]]);
    const group = this.overlay.appendChild(document.createElementNS(SVG, "g"));
    group.setAttribute("class", kind);
    for (const name of ["halo", "line"]) add(group, "rect", { class: name, x: a.x, y: a.y, width: Math.max(b.x - a.x, 1), height: Math.max(b.y - a.y, 1) });
    if (label) add(group, "text", { x: a.x + 2, y: a.y > 18 ? a.y - 5 : a.y + 15 }).textContent = label;
    if (!handles) return;
    for (const x of [a.x, (a.x + b.x) / 2, b.x])
      for (const y of [a.y, (a.y + b.y) / 2, b.y])
        if (x !== (a.x + b.x) / 2 || y !== (a.y + b.y) / 2) add(group, "rect", { class: "handle", x: x - 4, y: y - 4, width: 8, height: 8 });
  }

  // The box whose edge is at a point, and which of its edges are meant: the selected one first, then the smallest.
  #hit(point) {
    const { targets, at } = this.on.state();
    const all = targets.flatMap((nested, t) => nested.map((_, b) => ({ t, b })));
    const first = all.filter((one) => at && one.t === at.t && one.b === at.b);
    for (const one of [...first, ...all]) {
      const box = targets[one.t][one.b];
      const a = this.toStage([box[0], box[1]]), b = this.toStage([box[2], box[3]]);
      const near = [point.x - a.x, point.y - a.y, point.x - b.x, point.y - b.y].map((d) => Math.abs(d) <= REACH);
      const within = point.x >= a.x - REACH && point.x <= b.x + REACH && point.y >= a.y - REACH && point.y <= b.y + REACH;
      if (!within || !near.some(Boolean)) continue;
      if (near[0] && near[2]) near[Math.abs(point.x - a.x) < Math.abs(point.x - b.x) ? 2 : 0] = false;
      if (near[1] && near[3]) near[Math.abs(point.y - a.y) < Math.abs(point.y - b.y) ? 3 : 1] = false;
      const corner = (near[0] || near[2]) && (near[1] || near[3]);
      const middle = Math.abs(point.x - (a.x + b.x) / 2) <= REACH || Math.abs(point.y - (a.y + b.y) / 2) <= REACH;
      const selected = first.includes(one);
      return { at: one, edges: selected && (corner || middle) ? near : WHOLE };
    }
    return null;
  }

  #press(event) {
    this.root.focus({ preventScroll: true });
    this.gesture = null;
    if (this.panning || !this.picture) return;
    const from = this.toPicture(event.position);
    const hit = this.#hit(event.position);
    if (hit) this.on.select(hit.at);
    this.gesture = { from, last: from, hit, drawn: null, travelled: false };
  }

  #drag(event) {
    const { gesture } = this;
    if (!gesture) return;
    event.preventDefaultAction = true;
    const here = this.toPicture(event.position);
    gesture.travelled ||= Math.hypot(...[0, 1].map((i) => (here[i] - gesture.from[i]) / this.grain[i])) > 3;
    if (!gesture.travelled) return;
    if (gesture.hit) {
      this.on.drag(gesture.hit.at, gesture.hit.edges, here[0] - gesture.from[0], here[1] - gesture.from[1]);
    } else {
      gesture.drawn = fromCorners(gesture.from, here, this.picture);
      this.on.drawing(gesture.drawn);
    }
  }

  #release() {
    const { gesture } = this;
    this.gesture = null;
    if (!gesture?.travelled) return;
    this.justDragged = true;
    if (gesture.hit) this.on.dropped();
    else this.on.draw(gesture.drawn);
  }

  #click(event) {
    event.preventDefaultAction = true;
    const dragged = this.justDragged;
    this.justDragged = false;
    if (!event.quick || dragged || !this.picture || this.panning) return;
    this.on.select(boxAt(this.on.state().targets, this.toPicture(event.position)));
  }

  cancel() {
    this.gesture = null;
    this.on.drawing(null);
  }

  #hover(event) {
    if (!this.picture || !this.viewer.isOpen() || this.gesture) return;
    const frame = this.root.getBoundingClientRect();
    const hit = this.panning ? null : this.#hit(new OpenSeadragon.Point(event.clientX - frame.left, event.clientY - frame.top));
    const cursor = hit ? CURSORS[hit.edges.map(Number).join("")] : this.panning ? "pan" : "";
    if (this.root.className !== cursor) this.root.className = cursor;
  }

  #panWithSpaceOrRightButton() {
    const space = (event, down) => {
      if (event.key !== " " || event.target.closest("button, input, select, textarea")) return;
      event.preventDefault();
      this.panning = down;
      this.root.className = down ? "pan" : "";
    };
    document.addEventListener("keydown", (event) => space(event, true));
    document.addEventListener("keyup", (event) => space(event, false));
    window.addEventListener("blur", () => (this.panning = false));
    this.root.addEventListener("contextmenu", (event) => event.preventDefault());
    const other = { from: null };
    this.root.addEventListener("pointerdown", (event) => {
      if (event.button === 0 || !this.picture) return;
      event.preventDefault();
      other.from = [event.clientX, event.clientY];
      this.root.setPointerCapture(event.pointerId);
    });
    this.root.addEventListener("pointermove", (event) => {
      if (!other.from) return;
      const delta = new OpenSeadragon.Point(other.from[0] - event.clientX, other.from[1] - event.clientY);
      this.viewer.viewport.panBy(this.viewer.viewport.deltaPointsFromPixels(delta), true);
      other.from = [event.clientX, event.clientY];
    });
    this.root.addEventListener("pointerup", () => (other.from = null));
  }
}

function add(parent, name, attributes) {
  const element = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
