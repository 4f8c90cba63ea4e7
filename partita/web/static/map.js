// The map of a session: points on a canvas, drawn again whenever something changes.
"use strict";

(() => {
  const page = document.getElementById("map");
  if (!page) return;
  const frame = page.querySelector(".map-frame"), canvas = frame.querySelector("canvas"), card = frame.querySelector(".map-card");
  const context = canvas.getContext("2d");
  const COLOURS = 12, SHAPES = ["circle", "square", "triangle", "diamond"];
  const coloured = Number(page.dataset.coloured), doubt = Number(page.dataset.doubt);
  const MARGIN = 24, NEAR = 16, CELLS = 96, LARGEST = 80; // pixels, pixels, cells each way, times

  // -- points -------------------------------------------------------------------------------------------------------

  let points = null; // {count, item, x, y}: x and y from 0 to 1
  let cluster = null, sure = null;
  let cells = null; // {first, points}: the points of each cell of a grid, for finding the one that is pointed at
  const chosen = new Set();

  function number(values) {
    const first = new Uint32Array(CELLS * CELLS + 1), order = new Uint32Array(values.count);
    const cell = (i) => Math.min(CELLS - 1, values.y[i] * CELLS | 0) * CELLS + Math.min(CELLS - 1, values.x[i] * CELLS | 0);
    for (let i = 0; i < values.count; i++) first[cell(i) + 1]++;
    for (let c = 0; c < CELLS * CELLS; c++) first[c + 1] += first[c];
    const next = first.slice();
    for (let i = 0; i < values.count; i++) order[next[cell(i)]++] = i;
    return { first, points: order };
  }

  async function read(url) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(answer.status);
    return answer.json();
  }

  async function load(url) {
    const told = await read(url);
    const scaled = (values) => Float32Array.from(values, (value) => value / told.grid);
    const loaded = { count: told.item.length, item: told.item, x: scaled(told.x), y: scaled(told.y) };
    await colour(loaded);
    points = loaded;
    cells = number(loaded);
    frame.classList.add("drawn");
    all();
    again();
  }

  let stamp = null;
  async function colour(of = points) {
    const told = await read(page.dataset.clusters);
    if (told.cluster.length !== of.count) return;
    stamp = told.partition;
    cluster = Uint32Array.from(told.cluster);
    sure = Int16Array.from(told.sure);
    seen.clear();
    again();
  }

  async function legend() {
    const answer = await fetch(page.dataset.legend);
    const old = document.getElementById("map-legend");
    const fresh = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("map-legend");
    if (!fresh) return;
    const marked = marksDoubt();
    old.replaceWith(fresh);
    const box = fresh.querySelector("[data-doubts]");
    if (box) box.checked = marked;
    press();
  }

  // -- where things are ---------------------------------------------------------------------------------------------

  let width = 0, height = 0, side = 1, scale = 1, left = 0, top = 0; // of the frame; of the map at scale 1; its corner
  const toX = (x) => left + x * side * scale, toY = (y) => top + y * side * scale;

  function measure() {
    const box = frame.getBoundingClientRect(), sharp = window.devicePixelRatio || 1;
    const was = side, middle = [(width / 2 - left) / (side * scale), (height / 2 - top) / (side * scale)];
    const fresh = !width;
    width = box.width;
    height = box.height;
    side = Math.max(50, Math.min(width, height) - 2 * MARGIN);
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    sprites.clear();
    if (fresh || was === 1) all();
    else {
      left = width / 2 - middle[0] * side * scale;
      top = height / 2 - middle[1] * side * scale;
    }
    again();
  }

  function all() {
    scale = 1;
    left = (width - side) / 2;
    top = (height - side) / 2;
    ask();
  }

  function zoom(by, x = width / 2, y = height / 2) {
    const now = Math.max(0.7, Math.min(LARGEST, scale * by));
    left = x - (x - left) * (now / scale);
    top = y - (y - top) * (now / scale);
    scale = now;
    move(0, 0);
  }

  function move(x, y) {
    const size = side * scale, least = Math.min(80, size / 2); // so much of it stays in sight
    left = Math.max(least - size, Math.min(width - least, left + x));
    top = Math.max(least - size, Math.min(height - least, top + y));
    ask();
  }

  function nearest(x, y, within = NEAR) {
    if (!points) return -1;
    const unit = side * scale, px = (x - left) / unit, py = (y - top) / unit, reach = within / unit;
    const cell = (value) => Math.max(0, Math.min(CELLS - 1, value * CELLS | 0));
    let best = -1, least = reach * reach;
    for (let row = cell(py - reach); row <= cell(py + reach); row++) {
      for (let column = cell(px - reach); column <= cell(px + reach); column++) {
        const at = row * CELLS + column;
        for (let place = cells.first[at]; place < cells.first[at + 1]; place++) {
          const i = cells.points[place], dx = points.x[i] - px, dy = points.y[i] - py, away = dx * dx + dy * dy;
          if (away < least && !dimmed(i)) [best, least] = [i, away];
        }
      }
    }
    return best;
  }

  // The nearest in a direction: what lies aside counts as farther away.
  function towards(from, x, y) {
    let best = -1, least = Infinity;
    for (let i = 0; i < points.count; i++) {
      const dx = points.x[i] - points.x[from], dy = points.y[i] - points.y[from];
      const along = dx * x + dy * y, aside = Math.abs(dx * y) + Math.abs(dy * x);
      if (i === from || along <= aside || dimmed(i)) continue;
      if (along + 2 * aside < least) [best, least] = [i, along + 2 * aside];
    }
    return best;
  }

  // -- drawing ------------------------------------------------------------------------------------------------------

  const sprites = new Map(); // a mark of each kind, drawn once
  let asked = false;

  function ask() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  }

  const marksDoubt = () => page.querySelector("[data-doubts]")?.checked ?? false;
  const dimmed = (i) => chosen.size > 0 && !chosen.has(cluster[i] > coloured ? "rest" : String(cluster[i]));

  function radius() {
    const count = points.count;
    const base = count < 400 ? 5.5 : count < 2000 ? 4.5 : count < 8000 ? 3.4 : 2.6;
    const room = Math.min(1.1, Math.max(0.6, Math.sqrt(side / 600)));
    return base * room * Math.min(2.2, Math.max(0.85, Math.pow(scale, 0.35)));
  }

  function sprite(kind, hollow, r) {
    const key = kind * 2 + hollow;
    let there = sprites.get(key);
    if (there && there.r === r) return there;
    const sharp = window.devicePixelRatio || 1, half = Math.ceil(r * 1.5 + 2);
    const mark = document.createElement("canvas");
    mark.width = mark.height = 2 * half * sharp;
    const pen = mark.getContext("2d"), style = getComputedStyle(page);
    const grey = kind < 0, hue = grey ? 0 : kind % COLOURS + 1, shape = SHAPES[grey ? 0 : kind / COLOURS | 0];
    pen.scale(sharp, sharp);
    pen.translate(half, half);
    pen.beginPath();
    if (shape === "circle") pen.arc(0, 0, r * (grey ? 0.8 : 1), 0, 7);
    else if (shape === "square") pen.rect(-0.88 * r, -0.88 * r, 1.76 * r, 1.76 * r);
    else if (shape === "triangle") [[0, -1.15 * r], [1.1 * r, 0.8 * r], [-1.1 * r, 0.8 * r]].forEach((p) => pen.lineTo(...p));
    else [[0, -1.2 * r], [1.2 * r, 0], [0, 1.2 * r], [-1.2 * r, 0]].forEach((p) => pen.lineTo(...p));
    pen.closePath();
    const tone = style.getPropertyValue(`--k${hue}`).trim(), paper = style.getPropertyValue("--card").trim();
    pen.fillStyle = hollow ? paper : tone;
    pen.strokeStyle = hollow ? tone : paper;
    pen.lineWidth = hollow ? Math.max(1.4, r * 0.45) : 0.8; // a seam between those that touch
    pen.fill();
    pen.stroke();
    there = { image: mark, half, r };
    sprites.set(key, there);
    return there;
  }

  // All points take a while where there are many and no graphics card: they are drawn on a layer, and while the map moves
  // the layer moves with it. It is drawn again at rest.
  const QUICK = 8, REST = 120; // milliseconds
  const layer = document.createElement("canvas");
  let drawn = null; // where the map was when the layer was drawn, and how long that took
  let resting = 0;

  function again() {
    drawn = null;
    ask();
  }

  function draw() {
    const sharp = window.devicePixelRatio || 1;
    const moved = drawn && (drawn.left !== left || drawn.top !== top || drawn.scale !== scale);
    clearTimeout(resting);
    if (points && (!drawn || (moved && drawn.took <= QUICK))) paint(sharp);
    else if (moved) resting = setTimeout(again, REST);
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!points) return;
    const by = scale / drawn.scale;
    context.drawImage(layer, left - drawn.left * by, top - drawn.top * by, width * by, height * by);
    if (at >= 0) {
      context.beginPath();
      context.arc(toX(points.x[at]), toY(points.y[at]), radius() + 4, 0, 7);
      context.lineWidth = 2;
      context.strokeStyle = getComputedStyle(page).getPropertyValue("--ink").trim();
      context.stroke();
    }
    put();
  }

  function paint(sharp) {
    const begun = performance.now(), r = radius(), doubts = marksDoubt();
    layer.width = canvas.width;
    layer.height = canvas.height;
    const pen = layer.getContext("2d");
    pen.setTransform(sharp, 0, 0, sharp, 0, 0);
    for (const front of chosen.size ? [false, true] : [true]) {
      pen.globalAlpha = front ? 1 : 0.13;
      for (let i = 0; i < points.count; i++) {
        const x = toX(points.x[i]), y = toY(points.y[i]);
        if (x < -r || y < -r || x > width + r || y > height + r || dimmed(i) === front) continue;
        const kind = cluster[i] < 1 || cluster[i] > coloured ? -1 : cluster[i] - 1;
        const { image, half } = sprite(kind, doubts && sure[i] >= 0 && sure[i] < doubt ? 1 : 0, r);
        pen.drawImage(image, x - half, y - half, 2 * half, 2 * half);
      }
    }
    drawn = { left, top, scale, took: performance.now() - begun };
  }

  // -- the one that is pointed at -----------------------------------------------------------------------------------

  let at = -1, waiting = 0;
  const seen = new Map(); // cards by item

  function point(i, pinned = false) {
    frame.classList.toggle("pinned", pinned && i >= 0);
    if (i === at) return;
    at = i;
    clearTimeout(waiting);
    canvas.classList.toggle("over", i >= 0);
    if (i < 0) card.hidden = true;
    else waiting = setTimeout(show, seen.has(points.item[i]) ? 0 : 60, points.item[i]);
    ask();
  }

  async function show(item) {
    let html = seen.get(item);
    if (html === undefined) {
      const answer = await fetch(page.dataset.card + item).catch(() => null);
      if (!answer || !answer.ok) return;
      html = await answer.text();
      if (seen.size > 400) seen.clear();
      seen.set(item, html);
    }
    if (at < 0 || points.item[at] !== item) return; // somebody points elsewhere by now
    card.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.children);
    for (const picture of card.querySelectorAll("img")) {
      picture.loading = "eager";
      picture.addEventListener("load", put); // only now is it known how high the card is
    }
    card.hidden = false;
    card.dataset.item = item;
    put();
  }

  function put() {
    if (card.hidden || at < 0) return;
    const x = toX(points.x[at]), y = toY(points.y[at]), gap = 14;
    const wide = card.offsetWidth, high = card.offsetHeight;
    const right = x + gap + wide <= width ? x + gap : x - gap - wide;
    card.style.left = `${Math.max(4, Math.min(width - wide - 4, right))}px`;
    card.style.top = `${Math.max(4, Math.min(height - high - 4, y - high / 2))}px`;
  }

  function open(i, elsewhere) {
    const url = page.dataset.item + points.item[i];
    if (elsewhere) window.open(url, "_blank", "noopener");
    else location.assign(url);
  }

  // -- hands --------------------------------------------------------------------------------------------------------

  const down = new Map(); // pointers, where they are
  let travelled = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    canvas.setPointerCapture(event.pointerId);
    if (!down.size) travelled = 0;
    down.set(event.pointerId, place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event), was = down.get(event.pointerId);
    if (!was) {
      if (event.pointerType === "mouse") point(nearest(x, y));
      return;
    }
    const others = [...down].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
    travelled += Math.abs(x - was[0]) + Math.abs(y - was[1]);
    down.set(event.pointerId, [x, y]);
    if (!others.length) return travelled > 4 ? move(x - was[0], y - was[1]) : undefined;
    const [ox, oy] = others[0], before = Math.hypot(was[0] - ox, was[1] - oy), now = Math.hypot(x - ox, y - oy);
    if (before > 8 && now > 8) zoom(now / before, (x + ox) / 2, (y + oy) / 2);
    move((x - was[0]) / 2, (y - was[1]) / 2);
  });
  function lifted(event) {
    if (!down.delete(event.pointerId) || down.size || event.type !== "pointerup" || travelled > 4) return;
    const [x, y] = place(event), i = nearest(x, y, event.pointerType === "mouse" ? NEAR : 2 * NEAR);
    if (event.pointerType !== "mouse") point(i, true); // a finger can't hover: the card has the link
    else if (i >= 0) open(i, event.ctrlKey || event.metaKey);
  }
  canvas.addEventListener("pointerup", lifted);
  canvas.addEventListener("pointercancel", lifted);
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse" && !down.size && document.activeElement !== canvas) point(-1);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? height : 1;
    zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) * (event.ctrlKey ? 0.008 : 0.002)), ...place(event));
  }, { passive: false });

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !points) return;
    const arrow = ARROWS[event.key];
    if (arrow && event.shiftKey) move(-60 * arrow[0], -60 * arrow[1]);
    else if (arrow) {
      const next = at < 0 ? nearest(width / 2, height / 2, Math.hypot(width, height)) : towards(at, ...arrow);
      if (next >= 0) {
        point(next);
        const x = toX(points.x[next]), y = toY(points.y[next]);
        if (x < 30 || y < 30 || x > width - 30 || y > height - 30) move(width / 2 - x, height / 2 - y);
      }
    } else if (event.key === "+" || event.key === "=") zoom(1.4, ...hold());
    else if (event.key === "-") zoom(1 / 1.4, ...hold());
    else if (event.key === "0") all();
    else if (event.key === "Enter" && at >= 0) open(at);
    else if (event.key === "Escape") point(-1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const hold = () => at < 0 ? [width / 2, height / 2] : [toX(points.x[at]), toY(points.y[at])];

  for (const button of page.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => button.dataset.zoom === "all" ? all() : zoom(button.dataset.zoom === "in" ? 1.6 : 1 / 1.6));
  }

  function press() {
    for (const button of page.querySelectorAll("[data-cluster]")) {
      button.setAttribute("aria-pressed", chosen.has(button.dataset.cluster));
    }
    page.querySelector("[data-all]").hidden = !chosen.size;
    page.classList.toggle("choosing", chosen.size > 0);
    again();
  }
  page.addEventListener("click", (event) => {
    const button = event.target.closest("[data-cluster], [data-all]");
    if (!button) return;
    const which = button.dataset.cluster;
    if (which === undefined) chosen.clear();
    else if (!chosen.delete(which)) chosen.add(which);
    press();
  });
  page.addEventListener("change", (event) => {
    if (event.target.matches("[data-doubts]")) again();
  });

  // -- what changes -------------------------------------------------------------------------------------------------

  let loading = "";
  function follow(state) {
    const url = state?.dataset.points;
    if (!url || url === loading) return;
    loading = url;
    load(url).catch(() => { loading = ""; });
  }
  document.addEventListener("fresh", (event) => {
    if (event.target.id === "map-state") follow(event.target);
    const partition = event.target.dataset.partition;
    if (points && partition && partition !== stamp) Promise.all([colour(), legend()]).catch(() => {});
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    sprites.clear();
    again();
  });
  new ResizeObserver(measure).observe(frame);
  measure();
  follow(document.getElementById("map-state"));
})();
