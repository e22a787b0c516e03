// Tiles: what to look at first, in numbers.
function setUpTiles() {
  // As the plan counts them: both halves of a key are one, and what a secrets manager gives at run time is none.
  const static_ = P.filter(p => p.kind === "static_secret" && p.nature !== "identifier" && (!p.source || p.source === "kubernetes"));
  const names = D.plan ? D.plan.summary.secrets : new Set(static_.map(p => p.dir + "\u0000" + p.name)).size;
  const bad = D.findings.filter(f => f.severity === "critical" || f.severity === "high").length;
  const tiles = [
    [D.files, "pipeline file", "pipeline files"], [names, "static secret to replace", "static secrets to replace"], [bad, "finding is high or critical", "findings are high or critical"], [D.unresolved.length + D.unread.length, "part not seen", "parts not seen"],
  ];
  if (D.since) tiles.push([D.gonePaths, "path gone since then", "paths gone since then"]);
  document.getElementById("tiles").replaceChildren(...tiles.map(([n, one, many]) => el("div", { class: "tile" }, el("strong", {}, n.toLocaleString("en")), el("span", {}, n === 1 ? one : many))));
}

function setUpTheme() {
  const b = document.getElementById("theme"), root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const show = () => { const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches; b.setAttribute("aria-pressed", String(dark)); return dark; };
  b.addEventListener("click", () => { root.dataset.theme = show() ? "light" : "dark"; show(); });
  system.addEventListener("change", show);
  show();
}

setUpTheme();
setUpTiles();
setUpFilters();
setUpTables();
listeners.push(drawGraph);
refilter();
let lastWidth = 0;
new ResizeObserver(entries => {
  const w = Math.round(entries[0].contentRect.width);
  if (w !== lastWidth) { lastWidth = w; requestAnimationFrame(drawGraph); }
}).observe(document.getElementById("graph"));
document.documentElement.dataset.ready = "yes";
