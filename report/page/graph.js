// The graph: pipelines on the left, credentials in the middle, resources on
// the right. Each column is a tree of groups; as many are open as are readable,
// and what does not fit is one box that says how many it stands for. An edge
// stands for all paths between two boxes.
const MANY_DIRS = new Set(P.map(p => p.dir)).size > 1;
const COLUMNS = [
  {
    title: "Pipelines and jobs",
    levels: [...(MANY_DIRS ? [p => p.dir] : []), p => p.file, p => p.job],
    label(level, p) {
      const what = MANY_DIRS ? ["dir", "file", "job"][level] : ["file", "job"][level];
      if (what === "dir") return p.dir === "/" ? "(root)" : p.dir.replace(/\/$/, "");
      if (what === "file") return MANY_DIRS && p.dir !== "/" && p.file.startsWith(p.dir) ? p.file.slice(p.dir.length) : p.file;
      return p.job || "(whole file)";
    },
    tail: true,
  },
  { title: "Credentials", levels: [p => p.kind, p => p.name + (p.source ? "\u0001" + p.source : "")], label: (level, p) => level ? p.name + (p.source ? " (" + p.source + ")" : "") : KIND_WORDS[p.kind] },
  { title: "Resources", levels: [p => p.rkind, p => p.rname], label: (level, p) => level ? (p.rname === "unknown" ? "" : p.rname) : (p.rkind === "unknown" ? "not known" : p.rkind) },
];
const keyOf = (column, level, p) => COLUMNS[column].levels.slice(0, level + 1).map(f => f(p)).join("\u0000");

const ROW = 27, GAP = 5, BUDGET = 21, FEW = 8;
const opened = new Map(); // key -> open or not, as the reader decided
const more = new Map();   // key -> how many children are shown

function treeOf(column, paths) {
  const root = { key: "", level: -1, children: new Map(), paths };
  COLUMNS[column].levels.forEach((f, level) => {
    for (const p of paths) {
      let at = root;
      for (let i = 0; i < level; i++) at = at.children.get(keyOf(column, i, p));
      const key = keyOf(column, level, p);
      let n = at.children.get(key);
      if (!n) { n = { key, level, label: COLUMNS[column].label(level, p), children: new Map(), paths: [], trust: p.trust, risk: -99 }; at.children.set(key, n); }
      n.paths.push(p);
      n.trust = worstTrust(n.trust, p.trust);
      n.risk = Math.max(n.risk, p.risk);
    }
  });
  return root;
}

function ordered(column, node, rank) {
  const list = [...node.children.values()];
  if (column === 1 && node.level < 0) return list.sort((a, b) => KINDS.indexOf(a.key) - KINDS.indexOf(b.key));
  if (rank) {
    const middle = n => { let s = 0; for (const p of n.paths) s += rank.get(p.n); return s / n.paths.length; };
    const at = new Map(list.map(n => [n, middle(n)]));
    return list.sort((a, b) => at.get(a) - at.get(b) || b.paths.length - a.paths.length);
  }
  return list.sort((a, b) => b.risk - a.risk || b.paths.length - a.paths.length || (a.label < b.label ? -1 : 1));
}

// rowsOf lays one column out: {node, kind: "head" | "box" | "more", depth}.
function rowsOf(column, root, rank) {
  const auto = new Set();
  let size = Math.min(root.children.size, BUDGET);
  const consider = (node, depth) => {
    for (const n of ordered(column, node, null)) {
      const kids = n.children.size;
      if (kids < 2) { if (kids === 1) consider(n, depth); continue; }
      const own = opened.get(column + n.key);
      const adds = Math.min(kids, FEW + 1);
      if (own === true || own === undefined && size + adds <= BUDGET) { auto.add(n); size += adds; }
    }
    if (depth < 2) for (const n of node.children.values()) if (auto.has(n)) consider(n, depth + 1);
  };
  consider(root, 0);
  const rows = [];
  const put = (node, depth, prefix) => {
    const list = ordered(column, node, rank);
    const most = more.get(column + node.key) || (depth ? FEW : BUDGET);
    const show = list.length <= most + 1 ? list : byRisk(list).slice(0, most).sort((a, b) => list.indexOf(a) - list.indexOf(b));
    for (let n of show) {
      let words = prefix;
      while (n.children.size === 1) { words = joinLabel(column, words, n.label); n = n.children.values().next().value; }
      if (auto.has(n)) {
        rows.push({ column, node: n, kind: "head", depth, words });
        put(n, depth + 1, "");
      } else rows.push({ column, node: n, kind: "box", depth, words });
    }
    if (show.length < list.length) {
      const hidden = list.filter(n => !show.includes(n));
      rows.push({ column, kind: "more", depth, words: "", parent: node, node: { key: node.key + "\u0002", level: node.level, label: count(hidden.length, "more", "more"), children: new Map(), paths: hidden.flatMap(n => n.paths), trust: hidden.map(n => n.trust).reduce(worstTrust), risk: 0 } });
    }
  };
  put(root, 0, "");
  return rows;
}
const byRisk = list => [...list].sort((a, b) => b.risk - a.risk || b.paths.length - a.paths.length);
const joinLabel = (column, a, b) => a && b ? a + (column === 0 ? " › " : " · ") + b : a || b;

const measure = document.createElement("canvas").getContext("2d");
function fit(text, width, tail) {
  measure.font = getComputedStyle(document.body).getPropertyValue("--graph-font");
  if (measure.measureText(text).width <= width) return text;
  let lo = 0, hi = text.length;
  while (lo < hi) {
    const mid = (lo + hi + 1) >> 1;
    const t = tail ? "…" + text.slice(text.length - mid) : text.slice(0, mid) + "…";
    if (measure.measureText(t).width <= width) lo = mid; else hi = mid - 1;
  }
  return tail ? "…" + text.slice(text.length - lo) : text.slice(0, lo) + "…";
}

let rowList = [], edgeList = [], current = null;

function drawGraph() {
  const box = document.getElementById("graph");
  const focusKey = current && document.activeElement && box.contains(document.activeElement) ? current : null;
  if (!shown.length) {
    box.replaceChildren(el("p", { class: "empty" }, P.length ? "No path fits these filters." : "No access path was found in what was read."));
    rowList = []; edgeList = [];
    return;
  }
  const width = Math.max(box.clientWidth, 720);
  const inner = [0.31, 0.27, 0.27].map(f => Math.floor(width * f));
  const lane = (width - inner[0] - inner[1] - inner[2] - 4) / 2;
  const left = [2, 2 + inner[0] + lane, 2 + inner[0] + lane + inner[1] + lane];
  // The middle column gives the order; its neighbours follow it, so that edges cross little.
  const middle = rowsOf(1, treeOf(1, shown), null);
  const rank = new Map();
  middle.forEach((r, i) => { if (r.kind !== "head") for (const p of r.node.paths) rank.set(p.n, i); });
  const columns = [rowsOf(0, treeOf(0, shown), rank), middle, rowsOf(2, treeOf(2, shown), rank)];
  const height = 30 + Math.max(...columns.map(c => c.length)) * (ROW + GAP);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Graph of access paths. The table of paths below holds the same.", "aria-describedby": "graph-hint" });
  const edges = svg("g", { class: "edges", "aria-hidden": "true" });
  root.append(edges);
  const at = [new Map(), new Map(), new Map()];
  rowList = [];
  columns.forEach((rows, c) => {
    root.append(svg("text", { x: left[c], y: 14, class: "column" }, COLUMNS[c].title));
    rows.forEach((r, i) => {
      r.x = left[c] + r.depth * 12; r.w = inner[c] - r.depth * 12; r.y = 24 + i * (ROW + GAP); r.index = i;
      if (r.kind !== "head") for (const p of r.node.paths) at[c].set(p.n, r);
      rowList.push(r);
    });
  });
  drawEdges(edges, at);
  for (const r of rowList) root.append(drawRow(r));
  box.replaceChildren(root);
  const again = focusKey && rowList.find(r => r.column === focusKey.column && r.node.key === focusKey.node.key);
  if (again) again.element.focus();
  setTab(again || rowList[0]);
}

function drawEdges(group, at) {
  const map = new Map();
  for (const p of shown) {
    for (const side of [0, 1]) {
      const a = at[side].get(p.n), b = at[side + 1].get(p.n);
      if (!a || !b) continue;
      const key = side + "/" + a.index + "/" + b.index + "/" + p.kind;
      let e = map.get(key);
      if (!e) { e = { a, b, kind: p.kind, paths: new Set() }; map.set(key, e); }
      e.paths.add(p.n);
    }
  }
  edgeList = [...map.values()].sort((x, y) => y.paths.size - x.paths.size);
  for (const e of edgeList) {
    const x1 = e.a.x + e.a.w, y1 = e.a.y + ROW / 2, x2 = e.b.x, y2 = e.b.y + ROW / 2, m = (x2 - x1) * 0.45;
    e.element = svg("path", { d: `M${x1} ${y1} C${x1 + m} ${y1} ${x2 - m} ${y2} ${x2} ${y2}`, class: "edge k-" + e.kind, "stroke-width": Math.min(1.2 + Math.log2(e.paths.size) * 0.7, 6).toFixed(1) });
    group.append(e.element);
  }
}

function drawRow(r) {
  const n = r.node, group = n.children.size > 1;
  const selected = S.focus && S.focus.column === r.column && S.focus.key === n.key;
  const label = (r.kind === "more" ? n.label : joinLabel(r.column, r.words, n.label)) || "name not in the file";
  const kind = r.column === 1 && n.paths.length ? n.paths[0].kind : "";
  const words = [r.kind === "more" ? label + " in this group" : label, kind && r.kind !== "head" && n.level > 0 ? KIND_WORDS[kind] : "", count(n.paths.length, "path"), n.trust === "fork_reachable" ? "fork reachable" : "", r.kind === "more" ? "Enter shows them" : ""].filter(Boolean).join(", ");
  const g = svg("g", { class: ["row", r.kind, kind ? "k-" + kind : "", selected ? "selected" : ""].join(" "), role: "button", tabindex: -1, "aria-label": words, "aria-pressed": r.kind === "box" ? String(Boolean(selected)) : null, "aria-expanded": group ? String(r.kind === "head") : null, transform: `translate(${r.x} ${r.y})` });
  g.append(svg("title", {}, words));
  g.append(svg("rect", { class: "shape", width: r.w, height: ROW, rx: r.column === 1 ? ROW / 2 : 4 }));
  let x = r.column === 1 ? 12 : 8, right = r.w - 8;
  if (kind) { g.append(svg("line", { class: "edge own k-" + kind, x1: x - 2, x2: x + 20, y1: ROW / 2, y2: ROW / 2, "stroke-width": 2.5 })); x += 27; }
  if (group) { g.append(svg("text", { class: "twist", x, y: 18 }, r.kind === "head" ? "▾" : "▸")); x += 14; }
  if (n.trust === "fork_reachable") { g.append(svg("text", { class: "sign fork", x: right, y: 18, "text-anchor": "end" }, "▲")); right -= 16; }
  if (r.kind !== "head" && n.paths.length > 1) { const t = "×" + n.paths.length; g.append(svg("text", { class: "times", x: right, y: 18, "text-anchor": "end" }, t)); right -= 6 + t.length * 7; }
  g.append(svg("text", { class: "label", x, y: 18 }, fit(label, right - x, COLUMNS[r.column].tail && r.kind === "box" && n.level < COLUMNS[0].levels.length - 1)));
  r.element = g;
  const open = () => { current = r; if (r.kind === "more") more.set(r.column + r.parent.key, (more.get(r.column + r.parent.key) || (r.depth ? FEW : BUDGET)) + 25); else opened.set(r.column + n.key, r.kind !== "head"); drawGraph(); };
  const select = () => {
    if (r.kind !== "box") return open();
    current = r;
    S.focus = selected ? null : { column: r.column, level: n.level, key: n.key, label };
    refilter();
  };
  g.addEventListener("click", e => { if (group && e.clientX - g.getBoundingClientRect().left < x) open(); else select(); });
  g.addEventListener("keydown", e => steer(e, r, group ? open : null, select));
  g.addEventListener("mouseenter", () => light(r));
  g.addEventListener("mouseleave", () => light(null));
  g.addEventListener("focus", () => { setTab(r); light(r); });
  g.addEventListener("blur", () => light(null));
  return g;
}

function setTab(r) {
  current = r;
  for (const o of rowList) o.element.setAttribute("tabindex", o === r ? "0" : "-1");
}

function steer(e, r, open, select) {
  const go = o => { if (o) { e.preventDefault(); o.element.focus(); o.element.scrollIntoView({ block: "nearest", inline: "nearest" }); } };
  const column = c => rowList.filter(o => o.column === c);
  switch (e.key) {
    case "ArrowDown": return go(column(r.column)[r.index + 1]);
    case "ArrowUp": return go(column(r.column)[r.index - 1]);
    case "Home": return go(column(r.column)[0]);
    case "End": return go(column(r.column).at(-1));
    case "ArrowRight": case "ArrowLeft": {
      const c = r.column + (e.key === "ArrowRight" ? 1 : -1);
      const mine = new Set(r.node.paths.map(p => p.n));
      return go(column(c).find(o => o.kind !== "head" && o.node.paths.some(p => mine.has(p.n))));
    }
    case "Enter": e.preventDefault(); return select();
    case " ": e.preventDefault(); return (open || select)();
  }
}

// light shows the paths of one box: its edges stand out, the others step back.
function light(r) {
  const svgRoot = document.querySelector("#graph svg");
  if (!svgRoot) return;
  svgRoot.classList.toggle("lit", Boolean(r));
  if (!r) { for (const e of edgeList) e.element.classList.remove("hot"); for (const o of rowList) o.element.classList.remove("hot"); return; }
  const mine = new Set(r.node.paths.map(p => p.n));
  for (const e of edgeList) { let hot = false; for (const n of e.paths) if (mine.has(n)) { hot = true; break; } e.element.classList.toggle("hot", hot); }
  for (const o of rowList) o.element.classList.toggle("hot", o.node.paths.some(p => mine.has(p.n)));
}
