
// ------------------------------------------------------------------------------------------ the page

const PAGE_FACES = 24;
const SLIDER_STEP = 5;
const at = (id) => document.getElementById(id);

// smaller comes first; not measured comes last
const last = (value, sign) => (value === null ? Infinity : sign * value);
const ORDERS = {
  identity: ["worst identity first", (f) => last(f.identity, -1)],
  bound: ["identity against its bound", (f) => (f.allowed ? last(f.identity, -1) / f.allowed : Infinity)],
  size: ["largest first", (f) => last(f.size, -1)],
  gain: ["least gain first", (f) => last(f.gain, 1)],
  spread: ["most uncertain first", (f) => last(f.spread, -1)],
  reason: ["by reason", (f) => f.why || `\uffff${f.rung}`],
  archive: ["as in the archive", (f) => f.index],
};
const STATUS = {
  all: "all faces", open: "left to look at", accept: "accepted", reject: "rejected", redo: "to redo",
};

// shown: the faces that match, in order, as they were when a filter was last touched, so that a verdict moves nothing
const view = { status: "open", shown: [], page: 0, cursor: 0 };

const on_page = () => view.shown.slice(view.page * PAGE_FACES, (view.page + 1) * PAGE_FACES);
const pages = () => Math.max(1, Math.ceil(view.shown.length / PAGE_FACES));
const current = () => on_page()[view.cursor];
const element_of = (face) => at(`face-${face.index}`);

function select_faces() {
  const text = at("search").value.trim().toLowerCase();
  const outcome = at("outcome").value;
  const [kind, rung] = [at("rung").value.slice(0, 1), at("rung").value.slice(1)];
  const [, rank] = ORDERS[at("order").value];
  const found = FACES.filter((face) =>
    (view.status === "all" || state_of(face) === view.status)
    && (!outcome || face.outcome === outcome)
    && (!kind || face.rung === rung)
    && (!at("invented").checked || face.invented)
    && (!text || face.picture.toLowerCase().includes(text)));
  const ranked = found.map((face) => [rank(face), face]);
  ranked.sort(([a, f], [b, g]) => (a < b ? -1 : a > b ? 1 : f.index - g.index));
  view.shown = ranked.map(([, face]) => face);
  show_page(0);
}

function show_page(page, cursor = 0) {
  view.page = page;
  view.cursor = 0;
  const faces = on_page();
  at("faces").replaceChildren(...faces.map(card));
  if (!faces.length) at("faces").append(make("p", { class: "empty" }, empty_text()));
  mark(Math.min(cursor, faces.length - 1));
  show_counts();
}

function empty_text() {
  if (!FACES.length) return "This run has no faces to look at.";
  return view.status === "open" && !counts().open ? "Nothing is left to look at." : "No face matches these filters.";
}

function mark(cursor) {
  for (const element of document.querySelectorAll(".face[aria-current]")) element.removeAttribute("aria-current");
  view.cursor = Math.max(0, cursor);
  const face = current();
  if (face) element_of(face).setAttribute("aria-current", "true");
}

// Make a face of the page the current one, and bring it into view.
function go(cursor) {
  mark(cursor);
  const face = current();
  if (!face) return;
  element_of(face).focus({ preventScroll: true });
  element_of(face).scrollIntoView({ block: "start" });
}

function move(by) {
  const cursor = view.cursor + by;
  if (cursor >= 0 && cursor < on_page().length) go(cursor);
  else turn(Math.sign(by), by < 0 ? PAGE_FACES - 1 : 0);
}

function turn(by, cursor = 0) {
  const page = view.page + by;
  if (page < 0 || page >= pages()) return say(by < 0 ? "This is the first face." : "This is the last face.");
  show_page(page, cursor);
  go(view.cursor);
}

function show_counts() {
  const found = counts();
  for (const tile of at("states").children) {
    tile.setAttribute("aria-pressed", String(tile.dataset.status === view.status));
    tile.firstChild.textContent = grouped(found[tile.dataset.status]);
  }
  const first = view.page * PAGE_FACES;
  const shown = on_page();
  at("where").textContent = shown.length
    ? `${grouped(first + 1)}–${grouped(first + shown.length)} of ${grouped(view.shown.length)}` : "no faces";
  at("previous").disabled = view.page === 0;
  at("next").disabled = view.page >= pages() - 1;
  const open = shown.filter((face) => state_of(face) === "open").length;
  at("accept-page").disabled = !open;
  at("accept-page").textContent = `Accept the ${open} open here`;
  at("undo").disabled = !steps.length;
  const count = given().length;
  const save_text = count ? `Save ${grouped(count)} ${count === 1 ? "verdict" : "verdicts"}` : "Save";
  at("save").textContent = saving.open || !count ? save_text : "Saved";
  at("keeping").textContent = kept.works
    ? "Verdicts are kept in this browser until they are saved, and after that."
    : "This browser keeps nothing for this page: save your verdicts before you close it.";
  at("keeping").classList.toggle("wrong", !kept.works);
}

function grouped(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function say(text, wrong = false) {
  at("said").textContent = text;
  at("said").classList.toggle("wrong", wrong);
}

function refresh(faces) {
  for (const face of faces) {
    const element = element_of(face);
    if (element) show_verdict(element, face);
  }
  show_counts();
}
