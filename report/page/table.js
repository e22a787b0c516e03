// The tables. A page of rows at a time, so that an estate of any size opens at once.
const PAGE = 100;

function sample(kind) { return svg("svg", { class: "sample", width: 30, height: 8, "aria-hidden": "true" }, svg("line", { class: "edge k-" + kind, x1: 2, y1: 4, x2: 28, y2: 4, "stroke-width": 2.5 })); }
function kindBadge(p) { return el("span", { class: "kind k-" + p.kind }, sample(p.kind), KIND_WORDS[p.kind] + (p.nature === "identifier" ? " (identifier)" : "")); }
function reach(trust) { return el("span", { class: "reach " + TRUST_CLASS[trust] }, el("span", { "aria-hidden": "true" }, TRUST_SIGNS[trust] + " "), TRUST_WORDS[trust]); }
const place = (file, line) => el("span", { class: "place" }, file + (line ? ":" + line : ""));
const badge = s => el("span", { class: "severity s-" + s }, s);

const PATH_COLUMNS = [
  { title: "Reach", by: p => TRUSTS.indexOf(p.trust), cell: p => [reach(p.trust)] },
  { title: "Credential", by: p => p.name.toLowerCase(), cell: p => [el("strong", {}, p.name), p.source && " from " + p.source, el("br"), kindBadge(p), p.new === 1 && el("span", { class: "new" }, "new"), p.live && el("span", { class: "live", title: p.live }, "served by Proviso")] },
  { title: "Resource", by: p => p.rkind + " " + p.rname.toLowerCase(), cell: p => [p.rname === "unknown" ? el("em", {}, "name not in the file") : p.rname, el("br"), el("span", { class: "small" }, p.rkind)] },
  { title: "Job", by: p => p.file + "\n" + String(p.line).padStart(7, "0"), cell: p => [p.job || "(whole file)", p.step && el("span", { class: "small" }, " › " + p.step), el("br"), place(p.file, p.line)] },
  { title: "Findings", by: p => -p.findings.length, cell: p => [p.findings.length ? badge(p.findings[0].severity) : "", p.findings.length > 1 && " +" + (p.findings.length - 1)] },
];

let sorted = { column: -1, down: false };
const limits = {};

function sortPaths(list) {
  if (sorted.column < 0) return [...list].sort((a, b) => b.risk - a.risk || a.n - b.n);
  const by = PATH_COLUMNS[sorted.column].by;
  return [...list].sort((a, b) => { const x = by(a), y = by(b); return (x < y ? -1 : x > y ? 1 : a.n - b.n) * (sorted.down ? -1 : 1); });
}

function pathPanel() {
  const head = el("tr", {}, ...PATH_COLUMNS.map((c, i) => el("th", { scope: "col", "aria-sort": sorted.column === i ? (sorted.down ? "descending" : "ascending") : "none" },
    el("button", { type: "button", class: "sort", on: { click() { sorted = { column: i, down: sorted.column === i && !sorted.down }; drawTables("paths"); document.querySelectorAll("#panel-paths th button")[i].focus(); } } }, c.title, el("span", { "aria-hidden": "true" }, sorted.column === i ? (sorted.down ? " ↓" : " ↑") : "")))), el("th", { scope: "col" }, el("span", { class: "hidden" }, "Details")));
  const body = el("tbody");
  const list = sortPaths(shown);
  const limit = limits.paths || PAGE;
  for (const p of list.slice(0, limit)) {
    const detail = el("tr", { class: "detail", id: "d-" + p.n, hidden: true });
    const button = el("button", { type: "button", class: "quiet", "aria-expanded": "false", "aria-controls": "d-" + p.n, "aria-label": "details of " + p.name + " in " + p.job, on: { click() {
      const open = detail.hidden;
      if (open && !detail.firstChild) detail.append(el("td", { colspan: PATH_COLUMNS.length + 1 }, pathDetail(p)));
      detail.hidden = !open;
      button.setAttribute("aria-expanded", String(open));
    } } }, "Details");
    body.append(el("tr", {}, ...PATH_COLUMNS.map(c => el("td", {}, ...c.cell(p))), el("td", {}, button)), detail);
  }
  return [el("div", { class: "scroll" }, el("table", { class: "wide" }, el("caption", { class: "hidden" }, "Access paths"), el("thead", {}, head), body)), moreButton("paths", list.length, limit)];
}

function pathDetail(p) {
  const rows = [
    ["How it gets there", p.via], ["Permission", p.permission], ["Started by", p.events], ["Environment", p.environment],
    ["Runner", p.runner + (p.labels ? ": " + p.labels : "")], ["CI", p.ci], ["Repository", p.repository], ["Served by Proviso", p.live], ["Replace it", p.migration], ["Id", p.id],
  ].filter(([, v]) => v);
  const list = el("dl", {}, ...rows.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
  const ends = p.edges.map(e => el("p", { class: "small" }, CAN_WORDS[e.can] + " " + D.trusts[e.trust].target + (e.why ? ": " + e.why.join("; ") : "")));
  return el("div", {}, list, ...ends, ...p.findings.map(f => el("p", { class: "finding-line" }, badge(f.severity), " " + f.message + (f.fix ? " Fix: " + f.fix : ""))));
}

const CAN_WORDS = { yes: "✓ accepted at", no: "✕ refused at", unknown: "? perhaps accepted at" };

// trustPanel shows the other ends of federations: what each accepts, and which of the shown paths get in.
function trustPanel() {
  const set = new Set(shown.map(p => p.n));
  const list = D.trusts.filter(t => trustShown(t, set)), limit = limits.trusts || PAGE;
  if (!list.length) return empty("No trust fits these filters.");
  const head = el("tr", {}, ...["Target", "Accepts", "Who gets in", "Where"].map(t => el("th", { scope: "col" }, t)));
  const who = t => {
    const jobs = new Map();
    for (const e of t.edges) if (set.has(e.path) && e.can !== "no") { const p = P[e.path]; jobs.set(p.file + " › " + p.job, e.can); }
    if (!jobs.size) return [el("em", {}, t.edges.length ? "none of the shown paths" : "nothing that was scanned")];
    return [...jobs].slice(0, 6).map(([job, can]) => el("div", { class: "place" }, (can === "yes" ? "✓ " : "? ") + job)).concat(jobs.size > 6 ? [el("div", { class: "small" }, "and " + (jobs.size - 6) + " more")] : []);
  };
  return [el("div", { class: "scroll" }, el("table", { class: "wide" }, el("thead", {}, head), el("tbody", {}, ...list.slice(0, limit).map(t => el("tr", {}, el("td", {}, t.target, el("br"), el("span", { class: "small" }, t.kind)), el("td", {}, el("div", { class: "small" }, t.issuer || "an issuer that the file doesn't name"), ...t.conditions.map(c => el("div", {}, c)), ...(t.open || []).map(o => el("div", { class: "small" }, "open: " + o))), el("td", {}, ...who(t)), el("td", {}, place(t.file, t.line))))))), moreButton("trusts", list.length, limit)];
}
const trustShown = (t, set) => !filtered() || t.edges.some(e => set.has(e.path)) || !(S.kind || S.rkind || S.trust || S.ci || S.focus || S.finding) && textShown([t.file, t.target, t.kind, t.issuer, ...t.conditions]);

function moreButton(name, all, limit) {
  if (all <= limit) return "";
  return el("p", { class: "more" }, "The first " + limit + " of " + all.toLocaleString("en") + ". ", el("button", { type: "button", on: { click() { limits[name] = limit + 5 * PAGE; drawTables(name); } } }, "Show " + Math.min(5 * PAGE, all - limit) + " more"));
}

const empty = text => [el("p", { class: "empty" }, text)];

function findingCard(f, extra) {
  const rule = RULES.get(f.rule);
  const n = (f.paths || []).length;
  return el("li", { class: "card s-" + f.severity },
    el("h3", {}, badge(f.severity), " ", rule && rule.title || f.rule, f.new && D.since && el("span", { class: "new" }, "new")),
    el("p", {}, place(f.file, f.line), f.job && el("span", { class: "small" }, " job " + f.job + (f.step ? " › " + f.step : ""))),
    el("p", {}, f.message),
    f.fix && el("p", { class: "fix" }, el("strong", {}, "Fix: "), f.fix),
    extra,
    rule && rule.what && el("details", {}, el("summary", {}, "Why: " + f.rule), el("p", {}, rule.what), el("p", {}, rule.remedy)),
    el("p", { class: "foot" }, el("span", { class: "small" }, [f.id, ...(f.refs || [])].join(" · ")), n > 0 && !extra && el("button", { type: "button", class: "quiet", "aria-pressed": String(S.finding === f), on: { click() { S.finding = S.finding === f ? null : f; refilter(); if (S.finding) document.getElementById("graph-title").scrollIntoView({ block: "start" }); } } }, S.finding === f ? "Show all paths" : "Show its " + count(n, "path"))));
}

let severity = "";
function findingPanel() {
  const set = new Set(shown.map(p => p.n));
  const list = D.findings.filter(f => findingShown(f, set));
  const tallies = new Map();
  for (const f of list) tallies.set(f.severity, (tallies.get(f.severity) || 0) + 1);
  if (severity && !tallies.get(severity)) severity = "";
  const bar = el("div", { class: "chips", role: "group", "aria-label": "Severity" }, ...SEVERITIES.filter(s => tallies.get(s)).map(s => el("button", { type: "button", class: "chip s-" + s, "aria-pressed": String(severity === s), on: { click() { severity = severity === s ? "" : s; drawTables("findings"); } } }, tallies.get(s) + " " + s)),
    D.since && el("button", { type: "button", class: "chip", "aria-pressed": String(S.fresh), on: { click() { S.fresh = !S.fresh; refilter(); } } }, "only new"));
  const some = severity ? list.filter(f => f.severity === severity) : list;
  if (!list.length) return [bar, ...empty(D.findings.length ? "No finding fits these filters." : "There are no findings.")];
  const limit = limits.findings || PAGE;
  return [bar, el("ul", { class: "cards" }, ...some.slice(0, limit).map(f => findingCard(f))), moreButton("findings", some.length, limit)];
}

function gapPanel() {
  const show = (title, name, list, none) => {
    const some = list.filter(gapShown), limit = limits[name] || PAGE;
    const head = el("tr", {}, ...["Where", "What", "Name", "Why it matters"].map(t => el("th", { scope: "col" }, t)));
    return [el("h3", {}, title + " (" + some.length + ")"), some.length ? el("div", { class: "scroll" }, el("table", { class: "wide" }, el("thead", {}, head), el("tbody", {}, ...some.slice(0, limit).map(g => el("tr", {}, el("td", {}, place(g.file, g.line)), el("td", {}, g.kind), el("td", {}, g.name === g.file ? "" : g.name), el("td", {}, g.why)))))) : el("p", { class: "empty" }, none), moreButton(name, some.length, limit)];
  };
  return [...show("Defined where this scan could not look", "gaps", D.unresolved, "Nothing."), ...show("Files not or only partly read", "unread", D.unread, "Every file was read.")];
}

function asidePanel() {
  return [el("ul", { class: "cards" }, ...D.aside.map(f => findingCard(f, el("p", {}, el("strong", {}, f.by === "ignore" ? "Ignored" : "In the baseline"), f.reason ? ": " + f.reason : "", f.expires ? " (until " + f.expires + ")" : ""))))];
}

const PANELS = [
  { name: "paths", title: () => "Paths (" + shown.length.toLocaleString("en") + ")", draw: pathPanel },
  { name: "findings", title: () => { const set = new Set(shown.map(p => p.n)); return "Findings (" + D.findings.filter(f => findingShown(f, set)).length + ")"; }, draw: findingPanel },
  { name: "gaps", title: () => "Not seen (" + (D.unresolved.filter(gapShown).length + D.unread.filter(gapShown).length) + ")", draw: gapPanel },
];
if (D.aside.length) PANELS.push({ name: "aside", title: () => "Put aside (" + D.aside.length + ")", draw: asidePanel });

if (D.trusts.length) PANELS.splice(2, 0, { name: "trusts", title: () => { const set = new Set(shown.map(p => p.n)); return "Trust (" + D.trusts.filter(t => trustShown(t, set)).length + ")"; }, draw: trustPanel });

let active = "paths";
function drawTables(name) {
  for (const p of PANELS) {
    const panel = document.getElementById("panel-" + p.name), tab = document.getElementById("tab-" + p.name);
    const on = p.name === active;
    tab.textContent = p.title();
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    panel.hidden = !on;
    if (on) panel.replaceChildren(...p.draw().filter(Boolean));
    else if (!name) panel.replaceChildren();
  }
}

function setUpTables() {
  const tabs = document.getElementById("tabs"), panels = document.getElementById("panels");
  const choose = (name, focus) => { active = name; drawTables(); if (focus) document.getElementById("tab-" + name).focus(); };
  PANELS.forEach((p, i) => {
    tabs.append(el("button", { type: "button", role: "tab", id: "tab-" + p.name, "aria-controls": "panel-" + p.name, on: {
      click: () => choose(p.name),
      keydown(e) {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: PANELS.length - 1 }[e.key];
        if (to !== undefined) { e.preventDefault(); choose(PANELS[(to + PANELS.length) % PANELS.length].name, true); }
      },
    } }));
    panels.append(el("div", { role: "tabpanel", id: "panel-" + p.name, "aria-labelledby": "tab-" + p.name, tabindex: 0, hidden: true }));
  });
  listeners.push(() => { for (const k of Object.keys(limits)) delete limits[k]; drawTables(); });
}
