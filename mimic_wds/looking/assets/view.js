// The viewer's page: a list of samples, or one. What comes from a data set is only ever shown as text.
"use strict";

const PAGE = 24;             // samples in a list
const POLL_MS = 400;         // between looks at a search that runs
const WIDTH = 448;           // pixels that a small view is enlarged to, by a whole factor
const TINT = 0.45;           // weight of a colour over the picture
const FILTERS = ["source", "scene", "shard", "least", "most", "where"];

const $ = (id) => document.getElementById(id);
const here = new URL(location.href);
const isList = here.pathname === "/";
let dataSet = null;

// Keys, what they do, and how; the help lists the same table. `null` = the browser itself does it.
const KEYS = [
  [["j", "ArrowRight"], "next sample", () => (isList ? move(1) : follow("after"))],
  [["k", "ArrowLeft"], "previous sample", () => (isList ? move(-1) : follow("before"))],
  [["Enter"], "open the sample that has the focus", null],
  [["n"], "list: next page", () => follow("next")],
  [["p"], "list: previous page", () => follow("previous")],
  [["r"], "list: random page", () => follow("random")],
  [["f"], "list: filters", () => isList && $("source").focus()],
  [["u"], "sample: back to the list", () => follow("up")],
  [["m"], "sample: matching patches on or off", () => toggle("matches")],
  [["o"], "sample: outline on or off", () => toggle("frame")],
  [["b"], "sample: blend slider, then arrows", () => !isList && $("blend").focus()],
  [["/"], "search for a key or number", () => $("search").focus()],
  [["?"], "this help", () => $("help").showModal()],
  [["Escape"], "leave a field, close the help", null],
];
const NAMES = {ArrowRight: "→", ArrowLeft: "←", Escape: "Esc"};

function element(tag, text = "", more = {}) {
  const node = document.createElement(tag);
  node.textContent = text;
  for (const [name, value] of Object.entries(more)) node.setAttribute(name, value);
  return node;
}

async function ask(question, fields = {}) {
  const answer = await fetch(`${question}?${new URLSearchParams(fields)}`);
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.error), {near: value.near || []});
  return value;
}

function showError(error) {
  const box = $("error");
  box.textContent = error.message;
  if (error.near?.length) box.append("\nNear are:");
  for (const key of error.near || []) box.append("\n", element("a", key, {href: `/sample/${encodeURIComponent(key)}`}));
  box.hidden = false;
}

function filters(url = here) {
  const found = {};
  for (const name of FILTERS) if (url.searchParams.get(name)) found[name] = url.searchParams.get(name);
  return found;
}

const pictureNames = () => (dataSet.kind === "pairs" ? ["0.jpg", "1.jpg"] : ["0.jpg"]);

const address = (path, fields) => {
  const text = new URLSearchParams(fields).toString();
  return text ? `${path}?${text}` : path;
};

function follow(id) {
  const link = $(id);
  if (link.href && link.checkVisibility()) location.assign(link.href);
}

function toggle(id) {
  if (!isList) $(id).click();
}

function link(id, href) {
  if (href) $(id).href = href;
  else $(id).removeAttribute("href");
}

function move(step) {
  const links = [...document.querySelectorAll("#cards a")];
  const to = links.indexOf(document.activeElement) + step;
  if (links[to]) links[to].focus();
  else if (to >= links.length) follow("next");
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || $("help").open) return;
  const field = event.target.closest("input, select");
  if (field && event.key === "Escape") { field.blur(); return; }
  if (field && field.type !== "checkbox" && !(field.type === "range" && !event.key.startsWith("Arrow"))) return;
  const found = KEYS.find(([keys]) => keys.includes(event.key));
  if (!found || !found[2]) return;
  event.preventDefault();
  found[2]();
}

function fillHelp() {
  for (const [keys, text] of KEYS) {
    const row = element("tr"), head = element("th", "", {scope: "row"});
    keys.forEach((key, at) => head.append(at ? " or " : "", element("kbd", NAMES[key] || key)));
    row.append(head, element("td", text));
    $("help-keys").append(row);
  }
}

function showDataSet() {
  const count = dataSet.samples.toLocaleString("en"), kind = dataSet.kind;
  document.title = dataSet.name;
  document.body.classList.add(kind);
  $("name").textContent = dataSet.name;
  $("summary").textContent = `${count} ${kind} in ${dataSet.num_shards.toLocaleString("en")} shard(s), ${dataSet.url}`;
}

// ---- the list

function fillFilters() {
  for (const [name, count] of Object.entries(dataSet.sources)) {
    $("source").append(element("option", `${name} (${count.toLocaleString("en")})`, {value: name}));
  }
  for (const name of dataSet.shards) $("shards").append(element("option", "", {value: name}));
  for (const [name, value] of Object.entries(filters())) $(name).value = value;
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = {};
    for (const name of FILTERS) if ($(name).value.trim()) wanted[name] = $(name).value.trim();
    location.assign(address("/", {...wanted, ...(Object.keys(wanted).length ? {again: 1} : {})}));
  });
  $("scene").addEventListener("input", suggest);
  $("scene").addEventListener("focus", suggest, {once: true});
  $("stop").addEventListener("click", () => ask("/api/stop", filters()).catch(showError));
}

async function suggest() {
  const text = $("scene").value;
  const names = await ask("/api/scenes", {source: $("source").value, like: text}).catch(() => []);
  if ($("scene").value === text) $("scenes").replaceChildren(...names.map((name) => element("option", "", {value: name})));
}

function card(row, at) {
  const item = element("li");
  const open = element("a", "", {href: address(`/sample/${row.key}`, {number: row.number, at, ...filters()})});
  const pictures = element("span", "", {class: "pictures"});
  for (const name of pictureNames()) {
    pictures.append(element("img", "", {src: `/member/${row.number}/${name}`, alt: "", loading: "lazy"}));
  }
  open.append(pictures, element("span", row.key));
  const overlap = row.overlap >= 0 ? `overlap ${row.overlap.toFixed(3)} · ` : "";
  item.append(open, element("div", `${overlap}${row.source} · ${row.scene} · number ${row.number}`, {class: "about"}));
  return item;
}

function showProgress(found) {
  const count = found.count.toLocaleString("en"), runs = found.state === "running";
  const seen = `${found.seen.toLocaleString("en")} of ${found.total.toLocaleString("en")}`;
  const ends = {done: `${count} found`, running: `${count} found so far, ${seen} searched`,
                stopped: `${count} found, stopped after ${seen}; Show goes on from the beginning`,
                failed: `${count} found, then: ${found.error}`};
  const text = ends[found.state];
  if ($("status").textContent !== text) $("status").textContent = text;
  $("progress").hidden = $("stop").hidden = !runs;
  $("progress").max = Math.max(1, found.total);
  $("progress").value = found.seen;
}

function showPager(found, offset) {
  const pages = Math.max(1, Math.ceil(found.count / PAGE)), page = Math.floor(offset / PAGE);
  const to = (number) => address("/", {...filters(), offset: number * PAGE});
  $("page").textContent = `Page ${(page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}`;
  link("previous", page > 0 ? to(Math.min(page, pages) - 1) : "");
  link("next", page + 1 < pages ? to(page + 1) : "");
  if (!$("random").href || found.state === "running") link("random", pages > 1 ? to(Math.floor(Math.random() * pages)) : "");
}

async function showList() {
  $("list").hidden = false;
  fillFilters();
  const offset = Number(here.searchParams.get("offset")) || 0;
  const again = here.searchParams.has("again") ? {again: 1} : {};
  history.replaceState(null, "", address("/", {...filters(), ...(offset ? {offset} : {})}));
  let shown = 0;
  for (let first = true; ; first = false) {
    const found = await ask("/api/page", {...filters(), offset, limit: PAGE, ...(first ? again : {})});
    for (; shown < found.rows.length; shown++) $("cards").append(card(found.rows[shown], offset + shown));
    showProgress(found);
    showPager(found, offset);
    if (found.state !== "running") return;
    await new Promise((go) => setTimeout(go, POLL_MS));
  }
}

// ---- one sample

function invert(corr) {
  const back = new Array(corr.length).fill(-1);
  corr.forEach((to, from) => { if (to >= 0) back[to] = from; });
  return back;
}

const ALONG = [[0, 70, 220], [230, 50, 150], [255, 205, 0]], DARKER = 0.6; // as pictures.py has it
const colour = (patch, rows, cols) => { // blue over magenta to yellow along the columns, darker down the rows
  const along = 2 * (patch % cols) / Math.max(cols - 1, 1), part = along < 1 ? 0 : 1;
  const bright = 1 - DARKER * Math.floor(patch / cols) / rows;
  const mixed = ALONG[part].map((from, k) => bright * (from + (along - part) * (ALONG[part + 1][k] - from)));
  return `rgb(${mixed.map(Math.round).join(" ")})`;
};

function loadPicture(number, name) {
  const picture = new Image();
  picture.src = `/member/${number}/${encodeURIComponent(name)}`;
  picture.alt = "";
  return picture.decode().then(() => picture, () => { throw new Error(`${name} does not decode`); });
}

class View { // one picture with what is drawn over it
  constructor(sample, picture, title, colourOf, outline) {
    Object.assign(this, {sample, picture, colourOf, outline});
    [this.height, this.width] = sample.size;
    this.scale = Math.max(1, Math.floor(WIDTH / this.width));
    this.canvas = element("canvas", "", {role: "img", "aria-label": title});
    this.canvas.width = this.width * this.scale;
    this.canvas.height = this.height * this.scale;
    const figure = element("figure");
    figure.append(element("figcaption", title), this.canvas);
    $("views").append(figure);
  }

  square(patch) { // x, y, side in pixels of the canvas
    const side = this.sample.patch_size, cols = Math.floor(this.width / side);
    return [(patch % cols) * side * this.scale, Math.floor(patch / cols) * side * this.scale, side * this.scale];
  }

  patchAt(event) {
    const box = this.canvas.getBoundingClientRect(), side = this.sample.patch_size;
    const col = Math.floor((event.clientX - box.left) / box.width * this.width / side);
    const row = Math.floor((event.clientY - box.top) / box.height * this.height / side);
    return row * Math.floor(this.width / side) + col;
  }

  draw(matches, frame, marked = -1) {
    const pen = this.canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.picture, 0, 0, this.canvas.width, this.canvas.height);
    if (matches && this.colourOf) this.tint(pen);
    if (frame && this.outline.length) this.trace(pen);
    if (marked >= 0) this.mark(pen, marked);
  }

  tint(pen) {
    const side = this.sample.patch_size, cols = Math.floor(this.width / side), rows = Math.floor(this.height / side);
    this.colourOf.forEach((patch, at) => {
      const [x, y, length] = this.square(at);
      pen.globalAlpha = patch < 0 ? 0.65 : TINT;
      pen.fillStyle = patch < 0 ? "#808080" : colour(patch, rows, cols);
      pen.fillRect(x, y, length, length);
    });
    pen.globalAlpha = 1;
  }

  trace(pen) { // whole numbers are pixel centres
    pen.beginPath();
    for (const [x, y] of this.outline) pen.lineTo((x + 0.5) * this.scale, (y + 0.5) * this.scale);
    pen.closePath();
    for (const [width, ink] of [[5, "#000"], [3, "#e69f00"]]) {
      pen.lineWidth = width;
      pen.strokeStyle = ink;
      pen.stroke();
    }
  }

  mark(pen, patch) {
    const [x, y, length] = this.square(patch);
    for (const [width, ink] of [[6, "#000"], [3, "#fff"]]) {
      pen.lineWidth = width;
      pen.strokeStyle = ink;
      pen.strokeRect(x, y, length, length);
    }
  }
}

function showPair(sample, pictures) {
  const back = invert(sample.corr), own = sample.corr.map((to, from) => (to >= 0 ? from : -1));
  const views = [
    new View(sample, pictures[0], `View 0: ${sample.facts.frame0}`, own, sample.outline0),
    new View(sample, pictures[1], `View 1: ${sample.facts.frame1}`, back, sample.outline1),
  ];
  const draw = (marked = [-1, -1]) =>
    views.forEach((view, at) => view.draw($("matches").checked, $("frame").checked, marked[at]));
  for (const id of ["matches", "frame"]) $(id).addEventListener("change", () => draw());
  views.forEach((view, at) => {
    view.canvas.addEventListener("pointermove", (event) => {
      const patch = view.patchAt(event), other = (at ? back : sample.corr)[patch] ?? -1;
      draw(at ? [other, patch] : [patch, other]);
      $("patch").textContent = `patch ${patch} of view ${at}: ${other < 0 ? "none" : `patch ${other}`} in view ${1 - at}`;
    });
    view.canvas.addEventListener("pointerleave", () => draw());
  });
  draw();
  showBlend(sample, pictures, views[0].scale);
}

function showBlend(sample, [picture0, picture1], scale) {
  if (!sample.homography) { $("blending").hidden = true; return; }
  const [height, width] = sample.size, stack = $("stack");
  stack.style.width = `${width * scale}px`;
  stack.style.height = `${height * scale}px`;
  picture0.style.transform = `matrix3d(${onScreen(sample.homography, scale).join(",")})`;
  stack.replaceChildren(picture1, picture0);
  const blend = () => { picture0.style.opacity = $("blend").value / 100; };
  $("blend").addEventListener("input", blend);
  blend();
}

function onScreen(h, scale) { // a homography of pixel centres -> CSS's matrix (by columns) of enlarged pixel corners
  const times = (a, b) => [0, 3, 6].flatMap((r) => [0, 1, 2].map((c) => a[r] * b[c] + a[r + 1] * b[c + 3] + a[r + 2] * b[c + 6]));
  const enter = [1 / scale, 0, -0.5, 0, 1 / scale, -0.5, 0, 0, 1], leave = [scale, 0, scale / 2, 0, scale, scale / 2, 0, 0, 1];
  const m = times(leave, times(h, enter));
  const [a, b, c, d, e, f, g, i, j] = m.map((v) => v / (Math.abs(m[8]) > 1e-12 ? m[8] : 1));
  return [a, d, 0, g, b, e, 0, i, 0, 0, 1, 0, c, f, 0, j];
}

function showFacts(sample) {
  const facts = {...sample.facts, number: sample.number, shard: `${sample.shard}[${sample.place}]`};
  for (const [name, value] of Object.entries(facts)) {
    const row = element("tr");
    row.append(element("th", name, {scope: "row"}), element("td", typeof value === "string" ? value : JSON.stringify(value)));
    $("facts").tBodies[0].append(row);
  }
  for (const [name, bytes] of Object.entries(sample.members)) {
    const item = element("li"), source = `/member/${sample.number}/${encodeURIComponent(name)}?download`;
    item.append(element("a", `${sample.key}.${name}`, {href: source, download: ""}), ` ${bytes.toLocaleString("en")} bytes`);
    $("members").append(item);
  }
}

async function showNeighbours(sample) {
  const wanted = here.searchParams.has("at") ? filters() : {};
  const at = here.searchParams.has("at") ? Number(here.searchParams.get("at")) : sample.number;
  link("up", address("/", {...wanted, offset: Math.floor(at / PAGE) * PAGE}));
  const first = Math.max(0, at - 1);
  const {rows} = await ask("/api/page", {...wanted, offset: first, limit: 3});
  const to = (place) => {
    const row = rows[place - first];
    return row ? address(`/sample/${row.key}`, {number: row.number, at: place, ...wanted}) : "";
  };
  link("before", at > 0 ? to(at - 1) : "");
  link("after", to(at + 1));
}

async function showSample() {
  const key = decodeURIComponent(here.pathname.slice("/sample/".length)), number = here.searchParams.get("number");
  const sample = await ask("/api/sample", {...(/^\d+$/.test(key) ? {number: key} : {key, ...(number ? {number} : {})})});
  $("one").hidden = false;
  $("key").textContent = sample.key;
  document.title = `${sample.key} in ${dataSet.name}`;
  showFacts(sample);
  const neighbours = showNeighbours(sample);
  const pictures = await Promise.all(pictureNames().map((name) => loadPicture(sample.number, name)));
  if (dataSet.kind === "pairs") showPair(sample, pictures);
  else new View(sample, pictures[0], `Image: ${sample.facts.frame}`, null, []).draw(false, false);
  await neighbours;
}

async function start() {
  fillHelp();
  document.addEventListener("keydown", onKey);
  $("keys").addEventListener("click", () => $("help").showModal());
  $("go").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = $("search").value.trim();
    if (key) location.assign(`/sample/${encodeURIComponent(key)}`);
  });
  try {
    dataSet = await ask("/api/data-set");
    showDataSet();
    await (isList ? showList() : showSample());
  } catch (error) {
    showError(error);
  }
  document.body.dataset.state = "shown"; // for tests: nothing more is on its way
}

start();
