// The inventory, as the block of data holds it, with its texts in place.
const D = JSON.parse(document.getElementById("data").textContent);
const NUMBERS = new Set(["line", "risk", "new"]);
const P = D.paths.map((row, n) => {
  const p = { n, findings: [] };
  D.columns.forEach((c, i) => { p[c] = NUMBERS.has(c) ? row[i] : D.texts[row[i]]; });
  p.hay = [p.file, p.job, p.step, p.name, p.source, p.rkind, p.rname, p.permission, p.via, p.events, p.environment, p.runner, p.labels, p.ci, p.repository, p.live ? "served by proviso " + p.live : "", p.kind.replaceAll("_", " "), p.trust.replaceAll("_", " ")].join("\n").toLowerCase();
  return p;
});
D.findings.forEach((f, n) => { f.n = n; for (const i of f.paths || []) P[i].findings.push(f); });
for (const p of P) p.edges = [];
for (const t of D.trusts) t.edges = [];
for (const e of D.edges) { P[e.path].edges.push(e); D.trusts[e.trust].edges.push(e); }
const RULES = new Map(D.rules.map(r => [r.name, r]));

const KINDS = ["static_secret", "service_connection", "ambient", "federated", "platform_token"];
const KIND_WORDS = { static_secret: "static secret", service_connection: "service connection", ambient: "ambient identity", federated: "federated identity", platform_token: "platform token" };
const TRUSTS = ["fork_reachable", "unknown", "protected"];
const TRUST_WORDS = { fork_reachable: "fork reachable", unknown: "unknown", protected: "protected" };
const TRUST_SIGNS = { fork_reachable: "▲", unknown: "?", protected: "●" };
const TRUST_CLASS = { fork_reachable: "fork", unknown: "unknown", protected: "protected" };
const SEVERITIES = ["critical", "high", "medium", "low", "info"];

// el makes an element. Texts become text nodes: nothing of the data is ever parsed as markup.
function el(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes || {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k === "on") for (const [type, f] of Object.entries(v)) e.addEventListener(type, f);
    else e.setAttribute(k, v === true ? "" : String(v));
  }
  e.append(...children.filter(c => c !== undefined && c !== null && c !== false && c !== ""));
  return e;
}

// svg is el for the graph.
function svg(name, attributes, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [k, v] of Object.entries(attributes || {})) if (v !== undefined && v !== null && v !== false) e.setAttribute(k, String(v));
  e.append(...children.filter(c => c !== undefined && c !== null && c !== ""));
  return e;
}

const count = (n, what, many) => n.toLocaleString("en") + " " + (n === 1 ? what : many || what + "s");
const worstTrust = (a, b) => TRUSTS.indexOf(a) <= TRUSTS.indexOf(b) ? a : b;
