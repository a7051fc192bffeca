
// ------------------------------------------------------------------------------------------ one face, as it is shown

const STATES = { open: "open", accept: "accepted", reject: "rejected", redo: "redo" };
const RUNGS = {
  asked: "as asked", held: "held more", lower_n: "from a smaller N", estimator: "the estimator alone", "": "none",
};
const SETTINGS = {
  method: "method", start_step: "N", calls: "calls", hold: "σ", eta: "η", seed: "seed", strength: "strength",
};
const MISSING = "This picture could not be loaded; the page's addresses may have expired.";

// An element with attributes (true: present; false, null: absent) and children.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child || child === 0));
  return element;
}

function card(face) {
  const title = `title-${face.index}`;
  const article = make("article",
    { id: `face-${face.index}`, class: "face", tabindex: -1, "aria-labelledby": title, "data-unit": face.unit,
      "data-place": face.place, "data-face": face.face, "data-picture": face.picture },
    tile(face),
    make("div", { class: "about" },
      make("h2", { id: title }, make("span", { class: "name" }, face.picture), ` face ${face.face}`),
      make("p", { class: "badges" }, badges(face)),
      facts(face),
      face.why && make("p", { class: "why" }, face.why),
      face.treatment && make("p", { class: "treatment" }, face.treatment),
      make("div", { class: "buttons", role: "group", "aria-label": "Verdict" },
        make("button", { type: "button", "data-verdict": "accept", "aria-keyshortcuts": "a" }, "Accept"),
        make("button", { type: "button", "data-verdict": "reject", "aria-keyshortcuts": "r" }, "Reject"),
        make("button", { type: "button", "data-verdict": "redo", "aria-keyshortcuts": "d", disabled: !face.redoable },
          "Redo with…"),
        make("p", { class: "given" }))),
    ladder(face));
  show_verdict(article, face);
  return article;
}

function show_verdict(article, face) {
  const verdict = verdict_of(face);
  article.dataset.state = state_of(face);
  for (const button of article.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict?.verdict));
  }
  article.querySelector(".given").textContent = verdict ? verdict_text(verdict, verdict === face.applied) : "";
}

function verdict_text({ verdict, who, at, settings }, carried_out) {
  const what = verdict === "redo" ? `redo with ${settings_text(settings ?? {})}` : STATES[verdict];
  return `${what}${who && ` by ${who}`}, ${at.slice(0, 10)}${carried_out ? "; carried out" : ""}`;
}

function settings_text(settings) {
  if (settings.method === "estimator") return "the estimator alone";
  const texts = Object.entries(settings).map(([name, value]) => `${SETTINGS[name] ?? name} ${value}`);
  return texts.join(", ") || "the same settings";
}

// ------------------------------------------------------------------------------------------ before and after

function tile(face) {
  const [width, height] = face.tile;
  const half = (side, alt) => picture(face.src, { class: side, alt });
  const box = make("div", { class: "tile" },
    half("before", "as it came"), half("after", "as delivered"), face.heat && face.more && heat(face),
    make("span", { class: "label left", "aria-hidden": "true" }, "before"),
    make("span", { class: "label right", "aria-hidden": "true" }, "after"),
    make("span", { class: "line", "aria-hidden": "true" }),
    make("input", { type: "range", class: "slider", min: 0, max: 100, step: 1, value: 50,
      "aria-label": "Where the picture changes from before to after, in percent" }));
  box.style.setProperty("--width", `${width}px`);
  box.style.setProperty("--ratio", `${width} / ${height}`);
  return make("div", { class: "look" }, box);
}

function move_slider(slider, by = 0) {
  slider.value = Number(slider.value) + by;
  slider.parentElement.style.setProperty("--at", `${slider.value}%`);
}

function picture(src, attributes) {
  const image = make("img", { loading: "lazy", decoding: "async", draggable: "false", ...attributes });
  image.addEventListener("error", () => {
    image.parentElement.title = MISSING;
    image.parentElement.classList.add("missing");
  });
  image.src = src;
  return image;
}

// The panel of the spread over the tile: `face.heat` in units of the two, so that it holds at any size.
function heat(face) {
  const [a, b, c, d, e, f] = face.heat;
  const image = panel(face, "spread");
  image.classList.add("heat");
  image.style.width = `${(100 * face.side) / face.tile[0]}%`;
  image.style.transform =
    `translate(${(100 * e) / face.side}%, ${(100 * f) / face.side}%) matrix(${a}, ${b}, ${c}, ${d}, 0, 0)`;
  return image;
}

// ------------------------------------------------------------------------------------------ facts

function badges(face) {
  const texts = [[face.outcome === "left" ? "left as it was" : "restored", "outcome"]];
  if (face.rung) texts.push([RUNGS[face.rung] ?? face.rung, "rung"]);
  if (face.invented) texts.push(["invented here", "invented"]);
  return texts.map(([text, kind]) => make("span", { class: `badge ${kind}` }, text));
}

function number(value, digits, unit = "") {
  return value === null ? null : `${value.toFixed(digits).replace("-", "−")}${unit}`;
}

function facts(face) {
  const rows = [
    ["size", number(face.size, 0, " px")],
    ["damage δ", number(face.delta, 1)],
    ["identity", identity(face)],
    ["gain", number(face.gain, 2)],
    ["spread", [number(face.spread, 1), number(face.spread_identity, 1, "°")].filter(Boolean).join(", identity ")],
  ];
  return make("dl", {}, rows.filter(([, value]) => value).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function identity({ identity: angle, allowed }) {
  if (angle === null) return null;
  if (allowed === null) return number(angle, 1, "°");
  const share = make("span", { class: angle > allowed ? "share over" : "share", "aria-hidden": "true" });
  share.style.setProperty("--share", `${Math.min(100, (100 * angle) / Math.max(allowed, 1e-6))}%`);
  return [`${number(angle, 1, "°")} of ${number(allowed, 1, "°")} allowed`, share];
}

// ------------------------------------------------------------------------------------------ the ladder

function ladder(face) {
  const tried = new Map(face.tried.map((one) => [one.label, one]));
  const names = [...face.panels, ...[...tried.keys()].filter((label) => !face.panels.includes(label))];
  if (!names.length) return null;
  return make("div", { class: "ladder", role: "group", "aria-label": "What was tried" }, names.map((name) =>
    make("figure", { class: name === "spread" ? "spread" : null },
      face.more && make("div", { class: "panel" }, face.panels.includes(name) ? panel(face, name) : "no picture"),
      make("figcaption", {}, make("b", {}, name), tried.has(name) ? measured(tried.get(name)) : null))));
}

function panel(face, name) {
  const image = picture(face.more, { class: "part", alt: name });
  const place = face.panels.indexOf(name);
  image.style.objectPosition = `${face.panels.length > 1 ? (100 * place) / (face.panels.length - 1) : 0}% 0`;
  return image;
}

function measured(one) {
  const bound = (name, digits, unit) =>
    (one.failed === name && one.bound !== null ? ` (bound ${number(one.bound, digits, unit)})` : "");
  const lines = [
    ["identity", 1, "°"], ["landmarks", 3, ""], ["colour", 1, ""], ["gain", 2, ""],
  ].filter(([name]) => one[name] !== null || one.failed === name).map(([name, digits, unit]) =>
    make("span", { class: one.failed === name ? "failed" : null },
      `${name} ${number(one[name], digits, unit) ?? "not found"}${bound(name, digits, unit)}`));
  const known = ["identity", "landmarks", "colour", "gain"];
  if (one.failed && !known.includes(one.failed)) {
    lines.push(make("span", { class: "failed" }, one.failed.replaceAll("_", " ")));
  }
  return lines;
}
