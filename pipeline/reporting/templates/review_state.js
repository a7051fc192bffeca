"use strict";
// What is to be reviewed, the verdicts given, and where they are kept: in this browser, and in verdicts.json.

const VERDICTS = ["accept", "reject", "redo"];
const DATA = read_data();
const FACES = DATA.faces;
// width of a picture, in pixels of the page, from which it can be judged
const LOOKED_AT = 180;
const BY_KEY = new Map(FACES.map((face) => [key_of(face), face]));
// given by the server in the page's address; null where the page is a file or lies in a bucket
const TOKEN = location.protocol.startsWith("http") ? new URLSearchParams(location.search).get("token") : null;

function read_data() {
  const element = document.getElementById("data");
  const data = JSON.parse(element.textContent);
  element.remove();
  const unfold = (columns, row) => Object.fromEntries(columns.map((name, i) => [name, row[i]]));
  data.faces = data.faces.map((row, index) => {
    const face = unfold(data.columns, row);
    face.tried = face.tried.map((one) => unfold(data.tried, one));
    // own: the verdict given here, {verdict, settings, who, at}; an empty verdict is one that was taken back
    return Object.assign(face, { index, own: null });
  });
  return data;
}

function key_of({ unit, place, face }) {
  return JSON.stringify([unit, place, face]);
}

// The verdict that counts: the newer one of what was given here and what the program carried out; null for neither.
function verdict_of(face) {
  return face.own?.verdict ? face.own : face.applied;
}

function state_of(face) {
  return verdict_of(face)?.verdict ?? "open";
}

function counts() {
  const found = { all: FACES.length, open: 0, accept: 0, reject: 0, redo: 0 };
  for (const face of FACES) found[state_of(face)] += 1;
  return found;
}

// ------------------------------------------------------------------------------------------ giving and undoing

// each step: [face, what it had before] for every face that it changed
const steps = [];

// an empty verdict makes faces open again, or what was carried out count
function give(faces, verdict, settings = null) {
  const now = Date.now();
  change(faces.map((face) => {
    // newer than what was carried out, also where this machine's clock is late
    const after = face.applied ? Date.parse(face.applied.at) + 1000 : 0;
    const own = { verdict, who: reviewer.name, at: time_text(Math.max(now, after)) };
    if (settings) own.settings = settings;
    return [face, own];
  }));
}

// Faces and what each has from now on, as one step.
function change(changes) {
  if (!changes.length) return;
  steps.push(changes.map(([face]) => [face, face.own]));
  set(changes);
}

// The faces of the last step, which have again what they had before it.
function undo() {
  const step = steps.pop() ?? [];
  const taken_back = { verdict: "", who: "", at: time_text(Date.now()) };
  set(step.map(([face, own]) => [face, own ?? taken_back]));
  return step.map(([face]) => face);
}

function set(changes) {
  for (const [face, own] of changes) face.own = own;
  kept.write(new Set(changes.map(([face]) => face.unit)));
  saving.open = true;
}

function time_text(milliseconds) {
  return new Date(milliseconds).toISOString().replace(/\.\d+Z$/, "Z");
}

// ------------------------------------------------------------------------------------------ in this browser

const kept = {
  works: true,
  prefix: `difface review ${DATA.run} `,

  read() {
    this.guarded(() => {
      for (const name of Object.keys(localStorage)) {
        if (name.startsWith(this.prefix)) this.take(name.slice(this.prefix.length), localStorage.getItem(name));
      }
    });
  },

  // one unit's verdicts, as they are kept; one that was carried out since is dropped
  take(unit, text) {
    for (const [name, [verdict, at, who, settings]] of Object.entries(JSON.parse(text ?? "{}"))) {
      const [place, number] = name.split("/").map(Number);
      const face = BY_KEY.get(key_of({ unit, place, face: number }));
      if (face && is_newer(at, face.applied)) face.own = { verdict, at, who, ...(settings && { settings }) };
    }
  },

  write(units) {
    const entries = new Map([...units].map((unit) => [unit, {}]));
    for (const face of FACES) {
      const { own } = face;
      const unit = own && entries.get(face.unit);
      if (unit) unit[`${face.place}/${face.face}`] = [own.verdict, own.at, own.who, own.settings];
    }
    this.guarded(() => {
      for (const [unit, entry] of entries) localStorage.setItem(this.prefix + unit, JSON.stringify(entry));
    });
  },

  // storage is missing in some private windows, may be full, and may hold what others wrote
  guarded(act) {
    try {
      act();
    } catch {
      this.works = false;
    }
  },
};

const reviewer = {
  name: "",
  read() {
    kept.guarded(() => { this.name = localStorage.getItem("difface reviewer") ?? ""; });
  },
  set(name) {
    this.name = name.trim();
    kept.guarded(() => localStorage.setItem("difface reviewer", this.name));
  },
};

// ------------------------------------------------------------------------------------------ verdicts.json

// open: whether something was given or taken back since the last time; asked: whether the name was asked for
const saving = { open: false, asked: false, busy: false };

function given() {
  return FACES.filter((face) => face.own?.verdict);
}

function file_text() {
  const by = (a, b) => (a.unit < b.unit ? -1 : a.unit > b.unit ? 1 : a.place - b.place || a.face - b.face);
  const verdicts = given().sort(by).map(({ unit, place, picture, face, sha256, own }) => ({
    unit, place, picture, face, sha256,
    verdict: own.verdict,
    ...(own.verdict === "redo" && { settings: own.settings ?? {} }),
    who: own.who,
    at: own.at,
  }));
  return `${JSON.stringify({ format: DATA.format, run: DATA.run, digest: DATA.digest, verdicts }, null, 1)}\n`;
}

// What a file of verdicts has that is newer than what is here goes to `take`; returns how many were taken and how many
// are of no face of this page. Throws an Error that is a sentence where the file is none of this run.
function take_file(text, take) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is no JSON; choose a verdicts.json that this page saved.");
  }
  if (file?.format !== DATA.format || !Array.isArray(file.verdicts)) {
    throw new Error("This file holds no verdicts; choose a verdicts.json that this page saved.");
  }
  if (file.run !== DATA.run) throw new Error("These verdicts are of another run, and none was taken.");
  const changes = [];
  let unknown = 0;
  for (const one of file.verdicts) {
    const face = BY_KEY.get(key_of(one ?? {}));
    if (!face || face.sha256 !== one.sha256 || !VERDICTS.includes(one.verdict) || !(Date.parse(one.at) > 0)) {
      unknown += 1;
    } else if (is_newer(one.at, face.own) && is_newer(one.at, face.applied)) {
      const { verdict, at, settings } = one;
      changes.push([face, { verdict, at, who: String(one.who ?? ""), ...(verdict === "redo" && { settings }) }]);
    }
  }
  take(changes);
  return { taken: changes.length, unknown };
}

function is_newer(at, other) {
  return !other || Date.parse(at) > Date.parse(other.at);
}

// What the server answers; throws an Error that is a sentence where it does not, or refuses.
async function ask(request = {}) {
  let answer;
  try {
    const headers = { "X-Review-Token": TOKEN, "Content-Type": "application/json" };
    answer = await fetch("verdicts", { headers, ...request });
  } catch {
    throw new Error("the server does not answer");
  }
  const text = await answer.text();
  if (!answer.ok) throw new Error(text || `the server answered ${answer.status}`);
  return text;
}

// Take the verdicts that the output holds and this browser does not; afterwards `saving.open` is right.
async function take_saved() {
  const text = await ask();
  if (!text) return;
  take_file(text, set);
  saving.open = text !== file_text();
}

// Send the verdicts to the server, with those that others have saved meanwhile.
async function send() {
  const text = await ask();
  try {
    if (text) take_file(text, set);
  } catch {
    // what is no file of this run is replaced
  }
  await ask({ method: "POST", body: file_text() });
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file_text()], { type: "application/json" }));
  link.download = "verdicts.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
