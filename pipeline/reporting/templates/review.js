
// ------------------------------------------------------------------------------------------ acts

function judge(face, verdict, settings = null) {
  give([face], verdict, settings);
  refresh([face]);
  say(`${face.picture}, face ${face.face}: ${verdict ? verdict_text(face.own, false) : "taken back"}`);
}

function accept_page() {
  const open = on_page().filter((face) => state_of(face) === "open");
  if (!open.length) return say("No face of this page is open.");
  give(open, "accept");
  refresh(open);
  say(`${open.length} faces accepted; Undo takes all of them back.`);
}

function undo_last() {
  const faces = undo();
  if (!faces.length) return say("There is nothing to undo.");
  refresh(faces);
  const place = view.shown.indexOf(faces[0]);
  if (place >= 0) {
    const page = Math.floor(place / PAGE_FACES);
    if (page !== view.page) show_page(page);
    if (faces.length === 1) go(place % PAGE_FACES);
  }
  say(faces.length === 1 ? `Undone: ${faces[0].picture}, face ${faces[0].face}` : `Undone: ${faces.length} faces`);
}

function toggle_heat() {
  const on = document.body.classList.toggle("heat-on");
  at("heat").setAttribute("aria-pressed", String(on));
  say(on ? "Where samples differ is coloured, red the most." : "");
}

function next_zoom() {
  set_zoom({ 1: 2, 2: 4, 4: 1 }[parseInt(at("zoom").textContent, 10)]);
  if (current()) element_of(current()).scrollIntoView({ block: "start" });
}

function set_zoom(zoom) {
  at("zoom").textContent = `${zoom}×`;
  document.body.style.setProperty("--zoom", zoom);
}

// The least at which half of the pictures are large enough to look at.
function first_zoom() {
  const widths = FACES.map((face) => face.tile[0]).sort((a, b) => a - b);
  const half = widths[Math.floor(widths.length / 2)] ?? 0;
  return [1, 2, 4].find((zoom) => half * zoom >= LOOKED_AT) ?? 4;
}

// ------------------------------------------------------------------------------------------ redo

// [its range's text, whether a value is in it]
const RANGES = {
  start_step: ["N is a whole number from 0", (v) => Number.isInteger(v) && v >= 0],
  calls: ["Network calls are a whole number from 1", (v) => Number.isInteger(v) && v >= 1],
  hold: ["σ is a number from 0", (v) => v >= 0],
  eta: ["η is a number from 0 to 1", (v) => v >= 0 && v <= 1],
  seed: ["The seed is a whole number from 0", (v) => Number.isInteger(v) && v >= 0],
  strength: ["Strength is a number from 0 to 1", (v) => v >= 0 && v <= 1],
};

function open_redo() {
  const face = current();
  if (!face) return;
  if (!face.redoable) return say("This face can not be restored again.", true);
  const settings = (state_of(face) === "redo" && verdict_of(face).settings) || {};
  for (const field of at("redo-form").elements) if (field.name) field.value = settings[field.name] ?? "";
  at("redo-what").textContent = `${face.picture}, face ${face.face}`;
  at("redo-wrong").textContent = "";
  at("redo").showModal();
}

function redo(settings) {
  at("redo").close();
  judge(current(), "redo", settings);
}

// The settings of the form; throws an Error that is a sentence.
function form_settings() {
  const settings = {};
  for (const field of at("redo-form").elements) {
    const text = field.name && field.value.trim();
    if (!text) continue;
    const [range, holds] = RANGES[field.name] ?? ["", () => true];
    settings[field.name] = field.name === "method" ? text : Number(text.replace(",", "."));
    if (settings[field.name] === Infinity || !holds(settings[field.name])) {
      field.focus();
      throw new Error(`${range}; got ${text}.`);
    }
  }
  return settings;
}

// ------------------------------------------------------------------------------------------ saving

async function save() {
  if (saving.busy) return;
  if (!reviewer.name && !saving.asked) return at("name").showModal();
  const unnamed = reviewer.name ? given().filter((face) => !face.own.who) : [];
  set(unnamed.map((face) => [face, { ...face.own, who: reviewer.name }]));
  if (!TOKEN) {
    download();
    return show_saved("Saved as a download",
      "verdicts.json is in the folder of your downloads. Put it where this command names it, and run the command:");
  }
  say("Saving…");
  saving.busy = true;
  try {
    await send();
  } catch (error) {
    say(`Not saved: ${error.message}. The verdicts stay in this browser; “Download” at the end of the page keeps them in a file.`, true);
    return;
  } finally {
    saving.busy = false;
  }
  show_saved("Saved", "verdicts.json is in the output. This command carries the verdicts out:");
}

function show_saved(title, text) {
  const count = given().length;
  saving.open = false;
  refresh(on_page());
  say(`${title}: ${grouped(count)} ${count === 1 ? "verdict" : "verdicts"}.`);
  at("saved-title").textContent = at("said").textContent;
  at("saved-text").textContent = text;
  at("command").textContent = DATA.command;
  at("saved").showModal();
}

async function import_file(file) {
  try {
    const { taken, unknown } = take_file(await file.text(), change);
    refresh(on_page());
    say(`${taken} verdicts taken from ${file.name}${unknown ? `; ${unknown} are of no face of this page` : ""}.`);
  } catch (error) {
    say(error.message, true);
  }
}

// ------------------------------------------------------------------------------------------ keys

const then_next = (verdict) => () => {
  const face = current();
  if (!face) return;
  judge(face, verdict);
  const said = at("said").textContent;
  move(1);
  say(said);
};

// key → [what it does, the act]; keys of one line share the text
const KEYS = {
  j: ["next face", () => move(1)], ArrowDown: ["next face", () => move(1)],
  k: ["previous face", () => move(-1)], ArrowUp: ["previous face", () => move(-1)],
  a: ["accept, and on to the next", then_next("accept")],
  r: ["reject, and on to the next", then_next("reject")],
  d: ["redo with; then 1 to 9 for a choice", open_redo],
  u: ["undo", undo_last],
  A: ["accept all open faces of this page", accept_page],
  ArrowLeft: ["slider to the left", () => slide(-SLIDER_STEP)],
  ArrowRight: ["slider to the right", () => slide(SLIDER_STEP)],
  h: ["heat: where samples differ", toggle_heat],
  z: ["pictures at 1, 2 or 4 times their size", next_zoom],
  n: ["next page", () => turn(1)],
  p: ["previous page", () => turn(-1)],
  "/": ["search for a picture; Escape goes back to the faces", () => at("search").focus()],
  s: ["save", save],
  "?": ["these keys", () => at("help").showModal()],
};

function slide(by) {
  if (current()) move_slider(element_of(current()).querySelector(".slider"), by);
}

function on_key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const writes = event.target.closest("select, textarea, input:not([type=range], [type=checkbox], [type=file])");
  const asks = document.querySelector("dialog[open]");
  if (writes && !asks && event.key === "Escape") return go(view.cursor);
  if (writes) return;
  if (at("redo").open && DATA.choices[Number(event.key) - 1]) {
    event.preventDefault();
    redo(DATA.choices[Number(event.key) - 1].settings);
  } else if (!asks && Object.hasOwn(KEYS, event.key)) {
    event.preventDefault();
    KEYS[event.key][1]();
  }
}

// ------------------------------------------------------------------------------------------ start

function fill() {
  const options = (id, pairs) => at(id).append(...pairs.map(([value, text]) => make("option", { value }, text)));
  options("order", Object.entries(ORDERS).map(([name, [text]]) => [name, text]));
  const rungs = [...new Set(FACES.map((face) => face.rung))].sort();
  options("rung", [["", "all"], ...rungs.map((rung) => [`=${rung}`, RUNGS[rung] ?? rung])]);
  at("states").append(...Object.entries(STATUS).map(([status, text]) =>
    make("button", { type: "button", "data-status": status, "aria-pressed": "false" }, make("b"), make("span", {}, text))));
  at("choices").append(...DATA.choices.slice(0, 9).map(({ label, settings }, i) =>
    make("button", { type: "button", "data-choice": i + 1, "aria-keyshortcuts": String(i + 1) },
      make("kbd", {}, String(i + 1)), make("span", {}, label), make("small", {}, settings_text(settings) === label ? "" : settings_text(settings)))));
  const lines = Map.groupBy(Object.entries(KEYS), ([, [text]]) => text);
  const shown = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→" };
  at("keys").append(...[...lines].map(([text, keys]) => make("tr", {},
    make("th", { scope: "row" }, keys.map(([key]) => make("kbd", {}, shown[key] ?? key))), make("td", {}, text))));
  say("j and k go from face to face, a accepts, r rejects, d restores again; ? shows all keys.");
  at("who").value = reviewer.name;
}

function listen() {
  const on = (id, type, act) => at(id).addEventListener(type, act);
  document.addEventListener("keydown", on_key);
  for (const id of ["order", "outcome", "rung", "invented"]) on(id, "change", select_faces);
  on("search", "input", select_faces);
  on("filters", "submit", (event) => { event.preventDefault(); go(0); });
  on("states", "click", ({ target }) => {
    const tile = target.closest("[data-status]");
    if (tile) { view.status = tile.dataset.status; select_faces(); }
  });
  on("faces", "input", ({ target }) => { if (target.matches(".slider")) move_slider(target); });
  for (const type of ["focusin", "pointerdown"]) {
    on("faces", type, ({ target }) => {
      const element = target.closest(".face");
      if (element) mark([...at("faces").children].indexOf(element));
    });
  }
  on("faces", "click", ({ target }) => {
    const verdict = target.closest("[data-verdict]")?.dataset.verdict;
    if (verdict === "redo") open_redo();
    else if (verdict) judge(current(), current().own?.verdict === verdict ? "" : verdict);
  });
  const acts = { previous: () => turn(-1), next: () => turn(1), "accept-page": accept_page, undo: undo_last,
    heat: toggle_heat, zoom: next_zoom, save, download, "show-help": () => at("help").showModal() };
  for (const [id, act] of Object.entries(acts)) on(id, "click", act);
  on("choices", "click", ({ target }) => {
    const choice = target.closest("[data-choice]")?.dataset.choice;
    if (choice) redo(DATA.choices[choice - 1].settings);
  });
  on("redo-form", "submit", (event) => {
    event.preventDefault();
    try {
      redo(form_settings());
    } catch (error) {
      at("redo-wrong").textContent = error.message;
    }
  });
  const named = (name) => { reviewer.set(name); saving.asked = true; at("who").value = reviewer.name; at("name").close(); save(); };
  on("name-form", "submit", (event) => { event.preventDefault(); named(at("name-field").value); });
  on("name-none", "click", () => named(""));
  on("who", "change", () => { reviewer.set(at("who").value); show_counts(); });
  on("import", "change", ({ target }) => { if (target.files[0]) import_file(target.files[0]); target.value = ""; });
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(kept.prefix)) return;
    kept.guarded(() => kept.take(key.slice(kept.prefix.length), newValue));
    refresh(on_page());
  });
  // what lies under the bar is not in view
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${at("bar").offsetHeight}px`)).observe(at("bar"));
  addEventListener("beforeunload", (event) => { if (!kept.works && saving.open) event.preventDefault(); });
}

set_zoom(first_zoom());
kept.read();
saving.open = given().length > 0;
reviewer.read();
fill();
listen();
select_faces();
if (TOKEN) {
  take_saved().then(() => select_faces(), (error) => say(`The output's verdicts could not be read: ${error.message}`, true));
}
