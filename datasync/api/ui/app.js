// Shows one node to its administrator by polling the admin API. The token is kept in sessionStorage alone.
// Everything that the node says reaches the page as text nodes, never as markup. Each update is a turn; a later turn,
// and forgetting the token, voids the answers to an earlier one, so nothing appears that the reader has left behind.

const POLL_MS = 3000;
const ANSWER_MS_MAX = 10000;
const TOKEN = "datasync.token";

let turn = 0;
let timer = 0;

const byId = (id) => document.getElementById(id);

class Refused extends Error {
  constructor(status, problem) {
    super(`${problem.detail ?? problem.title ?? "no reason given"} [${problem.code ?? status}]`);
    this.tokenIsBad = status === 401 || status === 403;
  }
}

class Silent extends Error {}

async function get(path, token) {
  const signal = AbortSignal.timeout(ANSWER_MS_MAX);
  const asked = fetch(`v1/admin/${path}`, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store", signal });
  const response = await asked.catch(() => { throw new Silent("it does not answer"); });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

// A column: heading, what a row shows in it, and the class of its cells. The first column names the row.
const DEVICES = [
  ["Device", (d) => d.device],
  ["State", (d) => d.state],
  ["Attached to", (d) => d.edge],
  ["Incarnation", (d) => d.incarnation, "number"],
  ["Epoch", (d) => d.epoch, "number"],
  ["Mode", (d) => d.mode],
  ["Policy", (d) => d.policy_revision, "number"],
  ["Rows waiting", (d) => count(d.waiting.rows), "number"],
  ["Segments waiting", (d) => count(d.waiting.segments), "number"],
  ["Since", (d) => time(d.since_ms)],
];

const EDGES = [
  ["Edge", (e) => e.name],
  ["Operator", (e) => e.operator],
  ["Devices", (e) => count(e.devices), "number"],
  ["Load", (e) => e.load?.toFixed(2), "number"],
  ["Policy", (e) => e.policy_revision, "number"],
  ["Address", (e) => e.address],
  ["Last heard of", (e) => time(e.seen_ms)],
];

const HANDOVERS = [
  ["Device", (h) => h.device],
  ["Started", (h) => time(h.started_ms)],
  ["Role here", (h) => h.role],
  ["Other edge", (h) => h.peer],
  ["Phase", (h) => h.phase],
  ["Planned", (h) => (h.planned ? "yes" : "no")],
  ["Epoch", (h) => h.epoch, "number"],
  ["Frozen for", (h) => span(h.frozen_ms, h.active_ms), "number"],
  ["Rows", (h) => count(h.rows), "number"],
  ["Bytes", (h) => count(h.bytes), "number"],
];

const WORKERS = [
  ["Worker", (w) => w.worker],
  ["In the policy", (w) => (w.in_policy ? "yes" : "no: reads nothing")],
  ["Registered", (w) => time(w.created_ms)],
  ["Valid", (w) => `until ${time(w.expires_ms) ?? "revoked"}`],
];

const MODELS = [
  ["Model", (m) => m.name],
  ["Id", (m) => m.model.slice(0, 16)],
  ["Worker", (m) => m.worker],
  ["Label", (m) => m.label],
  ["State", (m) => m.state],
  ["Bytes", (m) => count(m.bytes), "number"],
  ["Streams erased", (m) => count(m.streams_erased), "number"],
  ["Registered", (m) => time(m.created_ms)],
];

const POLICIES = [
  ["Revision", (p) => p.revision],
  ["Active", (p) => (p.active ? "yes" : "no")],
  ["Digest", (p) => p.digest.slice(0, 16)],
  ["Received", (p) => time(p.received_ms)],
];

function time(ms) {
  return ms === null ? null : new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

function count(number) {
  return number.toLocaleString();
}

function span(from, to) {
  return from === null || to === null ? null : `${count(to - from)} ms`;
}

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  made.append(...[content].flat());
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// What did not change stays as it is, with whatever the reader has selected in it.
function put(id, ...parts) {
  const old = byId(id);
  const made = old.cloneNode(false);
  made.append(...parts);
  if (!made.isEqualNode(old)) old.replaceChildren(...made.childNodes);
}

function showTable(id, columns, rows, more = null) {
  const head = columns.map(([heading, , kind = ""]) => element("th", heading, { scope: "col", class: kind }));
  const lines = rows.map((row) => columns.map(([, cell, kind = ""], position) => {
    const text = String(cell(row) ?? "–");
    return position ? element("td", text, { class: kind }) : element("th", element("span", text), { scope: "row" });
  }));
  if (!lines.length) lines.push([element("td", "none", { class: "empty", colspan: columns.length })]);
  const body = element("tbody", lines.map((cells) => element("tr", cells)));
  put(id, element("thead", element("tr", head)), body);
  byId(`${id}-title`).querySelector("small").textContent = more === null ? "" : `the first ${rows.length} of more`;
}

function showSummary(node) {
  const refused = node.policy_refused;
  const facts = [
    ["Place", node.place],
    ["Operator", node.operator],
    ["Policy", node.policy_revision === null ? "none: all is denied" : `revision ${node.policy_revision}`,
      node.policy_revision === null],
    ["Digest", node.policy_digest?.slice(0, 16) ?? "–"],
    ["Policy refused last", refused ? `${refused.code}, ${time(refused.at_ms)}` : "none", refused],
    ["Ready", node.not_ready.length ? `no: ${node.not_ready.join(", ")}` : "yes", node.not_ready.length],
    ["Version", node.version],
  ];
  put("name", node.name);
  put("summary", ...facts.map(([term, value, bad]) =>
    element("div", [element("dt", term), element("dd", value, { class: bad ? "bad" : "" })])));
  document.title = `${node.name} – datasync`;
}

function show([node, devices, edges, handovers, workers, models, policies]) {
  showSummary(node);
  showTable("devices", DEVICES, devices.devices, devices.next);
  showTable("edges", EDGES, edges.edges, edges.next);
  showTable("handovers", HANDOVERS, handovers.handovers, handovers.next);
  showTable("workers", WORKERS, workers.workers, workers.next);
  showTable("models", MODELS, models.models, models.next);
  showTable("policies", POLICIES, policies.policies);
  byId("status").textContent = `as of ${new Date().toLocaleTimeString()}`;
  put("trouble");
  if (byId("node").hidden) arrive();
}

function arrive() {
  byId("sign-in").hidden = true;
  byId("node").hidden = false;
  byId("node").focus({ preventScroll: true });
}

function leave(why = "") {
  turn += 1;
  clearTimeout(timer);
  sessionStorage.removeItem(TOKEN);
  for (const filled of document.querySelectorAll("#name, #summary, table, small")) filled.replaceChildren();
  document.title = "datasync";
  byId("status").textContent = "not signed in";
  byId("node").hidden = true;
  byId("leave").hidden = true;
  byId("sign-in").hidden = false;
  put("trouble", why);
  byId("token").focus();
}

function explain(error) {
  if (error.tokenIsBad) leave(`Refused: ${error.message}`);
  else if (error instanceof Refused || error instanceof Silent) {
    put("trouble", `The node cannot be asked: ${error.message}. Trying again.`);
  } else throw error;
}

async function update() {
  const mine = ++turn;
  clearTimeout(timer);
  const token = sessionStorage.getItem(TOKEN);
  if (token === null || document.hidden) return;
  byId("leave").hidden = false;
  if (byId("node").hidden) byId("status").textContent = "asking the node";
  try {
    const paths = ["node", "devices", "edges", "handovers", "workers", "models", "policies"];
    const answers = await Promise.all(paths.map((path) => get(path, token)));
    if (mine === turn) show(answers);
  } catch (error) {
    if (mine === turn) explain(error);
  } finally {
    if (mine === turn) timer = setTimeout(update, POLL_MS);
  }
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value.trim());
  byId("token").value = "";
  put("trouble");
  update();
});

byId("leave").addEventListener("click", () => leave());
document.addEventListener("visibilitychange", update);
byId("sign-in").hidden = sessionStorage.getItem(TOKEN) !== null;
update();
