// One state for the graph and all tables. It is kept in the address behind #,
// so that a view can be sent as a link.
const S = { q: "", kind: "", rkind: "", trust: "", ci: "", focus: null, finding: null, fresh: false };
const listeners = [];
const matches = p =>
  (!S.kind || (S.kind === "identifier" ? p.nature === "identifier" : S.kind === "secrets" ? p.kind === "static_secret" && p.nature !== "identifier" : p.kind === S.kind)) &&
  (!S.rkind || p.rkind === S.rkind || p.rkind.startsWith(S.rkind + "/")) &&
  (!S.trust || p.trust === S.trust) &&
  (!S.ci || p.ci === S.ci) &&
  (!S.fresh || p.new === 1) &&
  (!S.finding || (S.finding.paths || []).includes(p.n)) &&
  (!S.focus || keyOf(S.focus.column, S.focus.level, p) === S.focus.key) &&
  S.q.split(/\s+/).every(word => p.hay.includes(word));

let shown = P;
function refilter() {
  shown = P.filter(matches);
  remember();
  for (const f of listeners) f();
}

const filtered = () => Boolean(S.q || S.kind || S.rkind || S.trust || S.ci || S.focus || S.finding || S.fresh);

// findingShown says whether a finding belongs to the paths that are shown; one without paths is matched by itself.
function findingShown(f, set) {
  if (S.finding) return S.finding === f;
  if (S.fresh && !f.new) return false;
  if ((f.paths || []).length) return f.paths.some(i => set.has(i));
  if (S.kind || S.rkind || S.trust || S.focus) return false;
  if (S.ci && f.ci !== S.ci) return false;
  return textShown([f.file, f.job, f.step, f.message, f.rule]);
}
const textShown = texts => { const t = texts.join("\n").toLowerCase(); return S.q.split(/\s+/).every(w => t.includes(w)); };
const gapShown = g => !(S.kind || S.rkind || S.trust || S.focus || S.finding) && (!S.ci || g.ci === S.ci) && textShown([g.file, g.kind, g.name, g.why]);

function remember() {
  const parts = ["q", "kind", "rkind", "trust", "ci"].filter(k => S[k]).map(k => k + "=" + encodeURIComponent(S[k]));
  try { history.replaceState(null, "", "#" + parts.join("&")); } catch { /* some viewers forbid it */ }
}
function recall() {
  for (const part of location.hash.slice(1).split("&")) {
    const i = part.indexOf("=");
    const k = part.slice(0, i);
    if (i > 0 && ["q", "kind", "rkind", "trust", "ci"].includes(k)) {
      try { S[k] = decodeURIComponent(part.slice(i + 1)); } catch { /* not ours */ }
    }
  }
}

function options(id, all, list) {
  const select = document.getElementById(id);
  select.replaceChildren(el("option", { value: "" }, all), ...list.map(([value, words]) => el("option", { value }, words)));
}
function tally(field) {
  const m = new Map();
  for (const p of P) m.set(p[field], (m.get(p[field]) || 0) + 1);
  return [...m].sort((a, b) => a[0] < b[0] ? -1 : 1);
}

function setUpFilters() {
  const kinds = new Map(tally("kind"));
  const list = KINDS.filter(k => kinds.get(k)).map(k => [k, KIND_WORDS[k] + " (" + kinds.get(k) + ")"]);
  const ids = P.filter(p => p.nature === "identifier").length;
  if (ids) list.push(["secrets", "static secret, no identifiers (" + (kinds.get("static_secret") - ids) + ")"], ["identifier", "identifier kept as a secret (" + ids + ")"]);
  options("f-kind", "all", list);
  const families = new Map();
  for (const [k, n] of tally("rkind")) {
    const family = k.split("/")[0];
    const f = families.get(family) || { n: 0, kinds: [] };
    f.n += n; f.kinds.push([k, n]);
    families.set(family, f);
  }
  const resources = [];
  for (const [family, f] of families) {
    if (f.kinds.length > 1) resources.push([family, family + " — all (" + f.n + ")"]);
    for (const [k, n] of f.kinds) resources.push([k, (f.kinds.length > 1 ? "  " : "") + k + " (" + n + ")"]);
  }
  options("f-rkind", "all", resources);
  const trusts = new Map(tally("trust"));
  options("f-trust", "all", TRUSTS.filter(t => trusts.get(t)).map(t => [t, TRUST_SIGNS[t] + " " + TRUST_WORDS[t] + " (" + trusts.get(t) + ")"]));
  options("f-ci", "all", tally("ci").map(([k, n]) => [k, k + " (" + n + ")"]));
  recall();
  const inputs = { q: "q", kind: "f-kind", rkind: "f-rkind", trust: "f-trust", ci: "f-ci" };
  for (const [k, id] of Object.entries(inputs)) {
    const e = document.getElementById(id);
    e.addEventListener(k === "q" ? "input" : "change", () => { S[k] = k === "q" ? e.value.trim().toLowerCase() : e.value; refilter(); });
  }
  const show = () => { for (const [k, id] of Object.entries(inputs)) { const e = document.getElementById(id); if (document.activeElement !== e) e.value = S[k]; } };
  listeners.push(show, chips);
  document.getElementById("filters").addEventListener("submit", e => e.preventDefault());
  document.getElementById("reset").addEventListener("click", clearAll);
  setUpSums();
}

function clearAll() {
  Object.assign(S, { q: "", kind: "", rkind: "", trust: "", ci: "", focus: null, finding: null, fresh: false });
  document.getElementById("q").value = "";
  refilter();
}

// The table of sums is also a filter: each number is a button.
function setUpSums() {
  for (const row of document.querySelectorAll("#sums tbody tr")) {
    for (const cell of row.querySelectorAll("td")) {
      const n = Number(cell.textContent);
      if (!n) { cell.className = "none"; continue; }
      const kind = row.dataset.kind === "static_secret" && P.some(p => p.nature === "identifier") ? "secrets" : row.dataset.kind;
      const trust = cell.dataset.trust;
      const label = count(n, "path") + ": " + KIND_WORDS[row.dataset.kind] + (trust ? ", " + TRUST_WORDS[trust] : "");
      const b = el("button", { type: "button", class: "number", "aria-label": label, on: { click() { const same = S.kind === kind && S.trust === trust; S.kind = same ? "" : kind; S.trust = same ? "" : trust; refilter(); } } }, n.toLocaleString("en"));
      cell.replaceChildren(b);
      listeners.push(() => b.setAttribute("aria-pressed", String(S.kind === kind && S.trust === trust)));
    }
  }
}

// chips name the filters that have no field of their own, and the status says what is left.
function chips() {
  const list = [];
  const chip = (text, clear) => list.push(el("button", { type: "button", class: "chip", "aria-label": "remove the filter " + text, on: { click() { clear(); refilter(); } } }, text, el("span", { "aria-hidden": "true" }, " ✕")));
  if (S.focus) chip("only " + S.focus.label, () => { S.focus = null; });
  if (S.finding) chip("only the finding " + S.finding.rule, () => { S.finding = null; });
  if (S.fresh) chip("only what is new", () => { S.fresh = false; });
  document.getElementById("chips").replaceChildren(...list);
  const set = new Set(shown.map(p => p.n));
  const finds = D.findings.filter(f => findingShown(f, set)).length;
  const all = filtered() ? " of " + P.length.toLocaleString("en") : "";
  document.getElementById("status").textContent = shown.length.toLocaleString("en") + all + (P.length === 1 ? " path, " : " paths, ") + count(finds, "finding");
  document.getElementById("reset").disabled = !filtered();
}
