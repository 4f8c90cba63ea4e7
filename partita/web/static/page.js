// Makes pages live and quick; each works without it, too.
"use strict";

document.documentElement.classList.add("scripted");

// -- what changes while a page is open ------------------------------------------------------------------------------

const STALE = 3; // so many looks in a row without an answer, and the page says so
const away = document.getElementById("away");

function live(element, missed = 0) {
  const every = Number(element.dataset.every) || 5000;
  setTimeout(async () => {
    if (!element.isConnected) return;
    if (document.hidden) return live(element, missed);
    let html;
    try {
      const answer = await fetch(element.dataset.live, { headers: { Accept: "text/html" } });
      if (!answer.ok) throw new Error(answer.status);
      html = await answer.text();
    } catch {
      if (missed + 1 >= STALE && away) away.hidden = false;
      return live(element, missed + 1);
    }
    if (missed && away) away.hidden = true;
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById(element.id);
    if (!fresh) return live(element);
    if (fresh.outerHTML !== element.outerHTML) {
      const focused = keep(element, fresh);
      const held = element.contains(document.activeElement) && document.activeElement.id;
      element.replaceWith(fresh);
      (focused ?? (held ? document.getElementById(held) : null))?.focus({ preventScroll: true });
      fresh.dispatchEvent(new CustomEvent("fresh", { bubbles: true }));
      return live(fresh);
    }
    live(element);
  }, every);
}
for (const element of document.querySelectorAll("[data-live]")) live(element);

// What is ticked stays ticked; gives the box that has the focus.
function keep(element, fresh) {
  let focused = null;
  const boxes = [...fresh.querySelectorAll("input[type=checkbox]")];
  for (const box of element.querySelectorAll("input[type=checkbox]")) {
    const same = boxes.find((other) => other.name === box.name && other.value === box.value);
    if (same) same.checked = box.checked;
    if (same && box === document.activeElement) focused = same;
  }
  return focused;
}

// The clusters follow, unless somebody is choosing among them: then as soon as that is over.
let following = false;
async function follow() {
  const sheet = document.querySelector("[data-sheet]");
  const partition = document.querySelector("[data-live][data-partition]")?.dataset.partition;
  if (!sheet || !partition || partition === sheet.dataset.partition || following || chosen().length) return;
  following = true;
  try {
    const answer = await fetch(sheet.dataset.sheet);
    const fresh = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(sheet.id);
    if (fresh && !chosen().length) {
      const at = sheet.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      sheet.replaceWith(fresh);
      if (at) fresh.querySelector(`a[href="${CSS.escape(at)}"]`)?.focus({ preventScroll: true });
      const stamp = document.querySelector("#steer [name=partition]");
      if (stamp) stamp.value = fresh.dataset.partition;
      names(fresh);
    }
  } catch {
    // the server is away: the next look at it tries again
  } finally {
    following = false;
  }
}
document.addEventListener("fresh", follow);

// The form offers the clusters that are there now.
function names(sheet) {
  const select = document.querySelector("#steer [name=to]");
  const options = sheet.querySelector("template[data-clusters]");
  if (select && options) select.replaceChildren(select.options[0], options.content.cloneNode(true));
}

// On a narrow screen the tabs scroll: the current one is seen.
const tab = document.querySelector(".tabs [aria-current]");
if (tab) tab.parentElement.scrollLeft = tab.offsetLeft + tab.offsetWidth - tab.parentElement.clientWidth;

// What was just said is told once.
const address = new URL(location);
if (address.searchParams.has("said")) {
  address.searchParams.delete("said");
  history.replaceState(history.state, "", address);
}

// -- choosing and correcting ----------------------------------------------------------------------------------------

const form = document.getElementById("steer");
const WORDS = ["called", "why"];

function chosen(kind) {
  return [...document.querySelectorAll(`input[form=steer]:checked`)].filter((box) => !kind || box.name === kind);
}

function tell() {
  if (!form) return;
  const items = chosen("item").length, clusters = chosen("cluster").length;
  form.classList.toggle("open", items + clusters > 0);
  document.body.classList.toggle("choosing", items > 0);
  const told = [];
  if (items) told.push(`${items} item${items > 1 ? "s" : ""}`);
  if (clusters) told.push(`${clusters} cluster${clusters > 1 ? "s" : ""}`);
  form.querySelector("[data-chosen]").textContent = `${told.join(", ") || "nothing"} chosen`;
  for (const button of form.querySelectorAll("[data-needs]")) {
    const there = button.dataset.needs === "item" ? items : clusters;
    const least = ["together", "unite"].includes(button.value) ? 2 : 1;
    const aims = ["move", "apart"].includes(button.value) && !form.elements.to.value;
    button.disabled = there < least || aims;
  }
  const words = Object.fromEntries(WORDS.map((name) => [name, form.elements[name].value]));
  history.replaceState({ items: chosen("item").map((box) => box.value), ...words }, "");
}
document.addEventListener("change", (event) => {
  if (!form || event.target.form !== form) return;
  tell();
  follow();
});
if (form) {
  const here = form.querySelector("[data-here]");
  if (here) here.value = location.pathname + location.search;
  // Enter behind a name for a new cluster means that one, whichever button is the first.
  form.elements.called.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    form.querySelector("[value=split]:enabled")?.click();
  });
  // Back at the page the same pictures are chosen, wherever they stand by now: browsers would go by the order of boxes.
  const { items = [], ...words } = history.state ?? {};
  for (const box of document.querySelectorAll("input[form=steer][name=item]")) box.checked = items.includes(box.value);
  for (const name of WORDS) form.elements[name].value = words[name] ?? "";
  tell();
  addEventListener("pageshow", tell);
}

// -- more pictures --------------------------------------------------------------------------------------------------

async function more(link) {
  if (link.dataset.busy) return;
  link.dataset.busy = "yes";
  const answer = await fetch(link.dataset.more).catch(() => null);
  if (!answer || !answer.ok) return void delete link.dataset.busy;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
  const tiles = [...fresh.children];
  const focused = link === document.activeElement;
  link.closest("li").replaceWith(...tiles);
  if (focused) tiles[0]?.querySelector("a").focus();
  watch();
}
const near = new IntersectionObserver((seen) => {
  for (const entry of seen) if (entry.isIntersecting) more(entry.target);
}, { rootMargin: "600px" });
function watch() {
  for (const link of document.querySelectorAll("[data-more]")) near.observe(link);
}
watch();
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-more]");
  if (link) {
    event.preventDefault();
    more(link);
  }
});

// -- keys -----------------------------------------------------------------------------------------------------------

const keys = document.getElementById("keys");
document.querySelector("[data-keys]")?.addEventListener("click", () => keys.showModal());

function step(selector, by) {
  const all = [...document.querySelectorAll(selector)];
  if (!all.length) return;
  const from = document.activeElement;
  let at = all.findIndex((element) => element.contains(from)) + by;
  if (at === by - 1) {
    // From outside: to the nearest in that direction, from nowhere to the first.
    const side = by > 0 ? Node.DOCUMENT_POSITION_FOLLOWING : Node.DOCUMENT_POSITION_PRECEDING;
    const there = (element) => from && from !== document.body && from.compareDocumentPosition(element) & side;
    at = by > 0 ? all.findIndex(there) : all.findLastIndex(there);
    if (at < 0) at = 0;
  }
  const next = all[Math.max(0, Math.min(all.length - 1, at))];
  const target = next.matches("a") ? next : next.querySelector("a");
  target.focus();
  next.scrollIntoView({ block: "nearest" });
}
// Esc leaves the form for the picture that had the focus; the next one chooses none.
let looked = null;
document.addEventListener("focusin", (event) => {
  if (event.target.closest(".tile")) looked = event.target.closest(".tile").querySelector("a").getAttribute("href");
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && form?.contains(event.target)) {
    event.target.blur();
    if (looked) document.querySelector(`.tile a[href="${CSS.escape(looked)}"]`)?.focus({ preventScroll: true });
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), select, textarea, dialog")) return;
  if (event.key === "j") step("[data-tile]", 1);
  else if (event.key === "k") step("[data-tile]", -1);
  else if (event.key === "n") step(".cluster", 1);
  else if (event.key === "p") step(".cluster", -1);
  else if (event.key === "x") {
    const box = document.activeElement?.closest(".tile")?.querySelector("input[type=checkbox]");
    if (box) {
      box.checked = !box.checked;
      tell();
      follow();
    }
  } else if (event.key === "m") {
    if (form?.classList.contains("open")) form.querySelector(chosen("item").length ? "select" : "button:enabled, input[name=why]").focus();
  } else if (event.key === "Escape") {
    for (const box of chosen()) box.checked = false;
    tell();
    follow();
  } else if (event.key === "?") keys.showModal();
  else return;
  event.preventDefault();
});
