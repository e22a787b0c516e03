// The plan: what takes the place of each static secret, wave by wave.
const BY_ID = new Map(P.map(p => [p.id, p.n]));

function itemShown(item, set) {
  if (!filtered()) return true;
  return item.places.some(place => set.has(BY_ID.get(place.path)));
}

function codeBlock(title, text) {
  return el("details", {}, el("summary", {}, title), el("pre", { tabindex: 0 }, text));
}

// fileBlocks shows generated files, those that are in the page.
function fileBlocks(names) {
  return (names || []).map(n => D.plan.files[n] !== undefined ? codeBlock(n, D.plan.files[n]) : el("p", { class: "small" }, n + " (written by proviso plan --write)"));
}

function steps(title, list) {
  if (!list || !list.length) return "";
  return el("div", {}, el("h4", {}, title), el("ol", {}, ...list.map(s => el("li", {}, s.do, s.command && el("pre", { tabindex: 0 }, s.command)))));
}

function itemCard(item, foundations) {
  const r = item.resource;
  const manual = (item.manual || []).map(m => el("div", {}, el("p", {}, place(m.file, m.line), " ", m.job + (m.step ? " › " + m.step : "") + ": " + m.why), el("ul", {}, ...(m.steps || []).map(s => el("li", {}, s)))));
  const details = el("details", {}, el("summary", {}, "How, step by step"),
    el("p", {}, item.why),
    ...foundations.filter(f => (item.depends_on || []).includes(f.id)).map(f => el("p", {}, "First: " + f.title + ".")),
    item.trust && el("div", {}, el("h4", {}, "Trust at the target"), el("p", {}, item.trust.summary), ...fileBlocks(item.trust.files)),
    item.grant && el("div", {}, el("h4", {}, "Grant and policy for Proviso" + (item.grant.now ? "" : " (for --route proviso)")), ...fileBlocks(item.grant.files)),
    steps("Before the patch", item.prepare),
    item.patch && el("div", {}, el("h4", {}, "Patch: +" + item.patch.added + " −" + item.patch.removed + " in " + item.patch.changes.join(", ")), ...fileBlocks([item.patch.file])),
    manual.length > 0 && el("div", {}, el("h4", {}, "By hand"), ...manual),
    item.dual_run && el("div", {}, el("h4", {}, "Both ways stay open for " + count(item.dual_run.days, "day")), el("p", {}, item.dual_run.until), el("ul", {}, ...(item.dual_run.watch || []).map(s => el("li", {}, s))), el("p", {}, "Back: " + item.dual_run.back)),
    steps("Proof that the secret is out of use", item.proof),
    steps("Deletion", item.deletion),
    ...(item.notes || []).map(n => el("p", {}, n)));
  return el("li", { class: "card item" },
    el("h3", {}, reach(item.reach), " ", item.secrets.join(", ")),
    el("p", {}, (r.name === "unknown" ? r.kind : r.name + " (" + r.kind + ")") + " · " + item.repository + " · " + count(item.places.length, "place")),
    el("p", { class: "fix" }, item.replacement),
    el("p", { class: "small" }, "risk " + item.risk + ", effort " + item.effort + (item.patch ? " · a patch is made" : "") + (item.manual && item.manual.length ? " · " + count(item.manual.length, "place") + " by hand" : "")),
    details);
}

function planPanel() {
  const plan = D.plan, s = plan.summary;
  const set = new Set(shown.map(p => p.n));
  const items = plan.items.filter(i => itemShown(i, set));
  const out = [el("p", {}, count(s.secrets, "static secret") + " in " + count(s.places, "place") + "; a patch changes " + s.patched.toLocaleString("en") + " of them, " + s.manual.toLocaleString("en") + " by hand. ", el("span", { class: "small" }, "proviso plan --write DIR writes everything below as files."))];
  if (!items.length) return [...out, ...empty(plan.items.length ? "No item of the plan fits these filters." : "No static secret is used by any pipeline: nothing to do.")];
  let left = limits.plan || PAGE;
  const total = items.length;
  for (const w of plan.waves) {
    const mine = items.filter(i => w.items.includes(i.id)).slice(0, Math.max(left, 0));
    if (!mine.length) continue;
    left -= mine.length;
    out.push(el("section", { class: "wave" }, el("h3", {}, "Wave " + w.number + ": " + w.title), el("p", { class: "small" }, w.why), el("ul", { class: "cards" }, ...mine.map(i => itemCard(i, plan.foundations)))));
  }
  out.push(moreButton("plan", total, limits.plan || PAGE));
  if (plan.foundations.length) out.push(el("section", { class: "wave" }, el("h3", {}, "Foundations: trust that is set up once"), el("ul", { class: "cards" }, ...plan.foundations.map(f => el("li", { class: "card item" }, el("h3", {}, f.title), el("p", {}, f.why), el("p", { class: "small" }, "for " + count(f.needed_by.length, "item")), ...fileBlocks(f.files))))));
  if (plan.variables.length) out.push(el("section", { class: "wave" }, el("h3", {}, "What no file can tell"), el("div", { class: "scroll" }, el("table", { class: "wide" }, el("tbody", {}, ...plan.variables.map(v => el("tr", {}, el("td", {}, el("code", {}, v.name)), el("td", {}, v.what), el("td", {}, v.how), el("td", {}, v.value || ""))))))));
  return out;
}

if (D.plan) PANELS.splice(2, 0, { name: "plan", title: () => { const set = new Set(shown.map(p => p.n)); return "Plan (" + D.plan.items.filter(i => itemShown(i, set)).length + ")"; }, draw: planPanel });
