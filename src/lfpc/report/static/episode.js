// One episode as elements. Every text of a model or a data set goes through textContent, and nowhere else.
"use strict";

const showEpisode = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function make(name, attributes = {}, ...inside) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...inside.filter((one) => one !== null && one !== ""));
    return element;
  }

  function draw(name, attributes, text = "") {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  }

  // A text, or [its beginning, how many characters follow]; isolated, so that marks of writing direction end with it.
  function said(text, name = "bdi") {
    const [shown, left] = Array.isArray(text) ? text : [text, 0];
    const element = make(name, name === "bdi" ? {} : { dir: "auto" });
    element.textContent = left ? `${shown} … (${left.toLocaleString("en")} more characters)` : shown;
    return element;
  }

  const percent = (value) => `${(100 * value).toFixed(1)} %`;

  function rectangle([x0, y0, x1, y1], name, number) {
    const place = { class: name, x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
    return draw("rect", number === undefined ? place : { ...place, "data-box": number });
  }

  function overlay(episode) {
    const boxes = draw("svg", { class: "overlay", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    const numbers = draw("svg", { class: "overlay", "aria-hidden": "true" });
    for (const box of episode.truth) boxes.append(rectangle(box, "truth"));
    episode.boxes.forEach((box, n) => {
      boxes.append(rectangle(box, "halo"), rectangle(box, "crop", n));
      numbers.append(draw("text", { class: "number", x: `${100 * box[0]}%`, y: `${100 * box[1]}%`, dx: 3, dy: box[1] < 0.05 ? 14 : -4 }, `${n + 1}`));
    });
    return [boxes, numbers];
  }

  function view(episode, saved, size, name, help) {
    const [width, height] = saved ? [saved.width, saved.height] : size || [1, 1];
    const caption = saved ? `${name}, ${width} × ${height} pixels${saved.shrunk ? " (saved smaller)" : ""}. ${help}`
      : episode.pictures ? `${name}: the picture cannot be shown` : `${name}: left out to keep the report small`;
    const boxes = `${episode.boxes.length} crop box${episode.boxes.length === 1 ? "" : "es"} and ${episode.truth.length} truth boxes`;
    const frame = make("div", { class: "frame" });
    if (saved) {
      frame.append(make("img", { src: saved.src, width, height, loading: "lazy", alt: `${name} of the question, with ${boxes} drawn on it` }));
      if (width < 300) frame.firstChild.classList.add("pixels");
    } else {
      frame.classList.add("blank");
      frame.style.aspectRatio = `${width} / ${height}`;
    }
    frame.append(...overlay(episode));
    return make("figure", {}, frame, make("figcaption", {}, caption));
  }

  function verdict(column) {
    if (column.correct === null) return "";
    const word = column.error ? "failed" : column.correct === true || column.correct === 1 ? "right" : column.correct ? percent(column.correct) : "wrong";
    return make("span", { class: `verdict ${column.correct ? "yes" : "no"}` }, word);
  }

  // A few words on what the answer rests on.
  function chip(column) {
    return column.why ? make("span", { class: "chip" }, column.why) : "";
  }

  function turn(one, n, column, crops) {
    const item = make("li", {}, make("p", { class: "turn" }, one.kind === "crop" ? `asks for crop ${crops}` : one.kind), said(one.text, "pre"));
    item.querySelector("pre").tabIndex = 0;
    if (one.feedback && one.feedback.length) item.append(make("p", { class: "feedback" }, "feedback: ", said(one.feedback)));
    if (one.crop) {
      const { src, width, height } = one.crop;
      const image = make("img", { src, width, height, loading: "lazy", class: "shown", alt: `Crop after reply ${n} (${column.label})` });
      item.append(image, make("p", { class: "facts" }, `${width} × ${height} pixels shown`));
    } else if (one.kind === "crop") {
      item.append(make("p", { class: "feedback" }, one.view ? `${one.view[0]} × ${one.view[1]} pixels shown` : "no picture shown"));
    }
    if (column.probe === "own" && one.kind === "crop") item.dataset.crop = crops - 1;
    return item;
  }

  function numbers(column) {
    const { facts } = column;
    const words = [
      column.stop && column.stop !== "answered" ? `stopped: ${column.stop === "max_turns" ? "no turn left" : column.stop}` : column.stop,
      column.method && `decided by ${column.method}`,
      facts.visual_tokens !== undefined && `${facts.visual_tokens} visual tokens`,
      facts.text_tokens !== undefined && `${facts.text_tokens} text tokens`,
      facts.seconds !== undefined && `${facts.seconds < 0.1 ? facts.seconds.toFixed(3) : facts.seconds.toFixed(2)} s`,
      facts.iou !== undefined && `IoU ${facts.iou.toFixed(2)}`,
      facts.coverage !== undefined && `covers ${percent(facts.coverage)} of the target`,
      facts.crop_area !== undefined && `area ${percent(facts.crop_area)}`,
      facts.step !== undefined && `training step ${facts.step}`,
      typeof column.advantage === "number" && `advantage ${column.advantage.toFixed(2)}`,
    ];
    return words.filter(Boolean).join(" · ");
  }

  function columnOf(column) {
    const section = make("section", { class: "probe" }, make("h4", {}, column.label, " ", verdict(column)), chip(column));
    if (column.error) section.append(make("p", { class: "feedback" }, said(column.error)));
    const list = make("ol");
    let crops = 0;
    column.turns.forEach((one, n) => {
      crops += one.kind === "crop";
      list.append(turn(one, n + 1, column, crops));
    });
    section.append(list);
    if (column.said !== null) section.append(make("p", { class: "facts" }, "answer: ", make("b", {}, said(column.said))));
    section.append(make("p", { class: "facts" }, numbers(column)));
    if (column.reward) {
      const terms = Object.entries(column.reward).map(([name, value]) => `${name} ${value.toFixed(2)}`);
      section.append(make("p", { class: "facts" }, `reward: ${terms.join(" · ")}`));
    }
    return section;
  }

  // Hovering over a turn highlights its box.
  function linkBoxes(article) {
    const mark = (event, on) => {
      const item = event.target.closest("[data-crop]");
      if (item) for (const box of article.querySelectorAll(`[data-box="${item.dataset.crop}"]`)) box.classList.toggle("on", on);
    };
    for (const [name, on] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
      article.addEventListener(name, (event) => mark(event, on));
    }
  }

  return (episode, setting) => {
    const heading = make("h3", {}, said(episode.question));
    const about = make("p", { class: "facts" }, `${setting} · `, said(episode.id), episode.category ? " · " : "", said(episode.category));
    if (episode.answer !== null) about.append(" · right answer ", make("b", {}, said(episode.answer)));
    const article = make("article", {}, heading, about);
    if (episode.options.length) article.append(make("ol", { class: "options", type: "A" }, ...episode.options.map((option) => said(option, "li"))));
    const gains = Object.entries(episode.gains).map(([look, nats]) => `${look} ${nats < 0 ? "\u2212" : "+"}${Math.abs(nats).toFixed(2)}`);
    if (gains.length) article.append(make("p", { class: "facts" }, `gain of the crop in nats, over ${gains.join(" · ")}`));
    article.append(make("div", { class: "sides" },
      make("div", { class: "views" },
        view(episode, episode.first, episode.firstSize, "First view", `The model's first picture.${episode.boxes.length ? " Solid boxes: its crops." : ""}${episode.truth.length ? " Dashed: the truth." : ""}`),
        view(episode, episode.original, episode.firstSize, "Original", "Crops are cut from it.")),
      make("div", { class: "probes" }, ...episode.columns.map(columnOf))));
    linkBoxes(article);
    return article;
  };
})();
