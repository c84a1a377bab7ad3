// Shows one node to its administrator by polling the admin API. The token is kept in sessionStorage alone.
// Everything that the node says reaches the page as text nodes, never as markup.

const POLL_MS = 3000;
const TOKEN = "datasync.token";

const byId = (id) => document.getElementById(id);

class Refused extends Error {
  constructor(status, problem) {
    super(`${problem.detail ?? problem.title ?? "no reason given"} [${problem.code ?? status}]`);
    this.status = status;
  }
}

async function get(path) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` };
  const response = await fetch(`v1/admin/${path}`, { headers, cache: "no-store" });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

// A column: heading, what a row shows in it, and whether that is a number.
const DEVICES = [
  ["Device", (d) => d.device],
  ["State", (d) => d.state],
  ["Attached to", (d) => d.edge],
  ["Incarnation", (d) => d.incarnation, true],
  ["Epoch", (d) => d.epoch, true],
  ["Mode", (d) => d.mode],
  ["Rows waiting", (d) => d.waiting.rows, true],
  ["Segments waiting", (d) => d.waiting.segments, true],
  ["Since", (d) => time(d.since_ms)],
];

const EDGES = [
  ["Edge", (e) => e.name],
  ["Operator", (e) => e.operator],
  ["Devices", (e) => e.devices, true],
  ["Load", (e) => (e.load === null ? null : e.load.toFixed(2)), true],
  ["Address", (e) => e.address],
  ["Last heard of", (e) => time(e.seen_ms)],
];

const HANDOVERS = [
  ["Started", (h) => time(h.started_ms)],
  ["Device", (h) => h.device],
  ["Role here", (h) => h.role],
  ["Other edge", (h) => h.peer],
  ["Phase", (h) => h.phase],
  ["Planned", (h) => (h.planned ? "yes" : "no")],
  ["Epoch", (h) => h.epoch, true],
  ["Frozen for", (h) => span(h.frozen_ms, h.active_ms), true],
  ["Rows", (h) => h.rows, true],
  ["Bytes", (h) => h.bytes, true],
];

const WORKERS = [
  ["Worker", (w) => w.worker],
  ["In the policy", (w) => (w.in_policy ? "yes" : "no: reads nothing")],
  ["Registered", (w) => time(w.created_ms)],
  ["Valid until", (w) => (w.expires_ms === null ? "until revoked" : time(w.expires_ms))],
];

const POLICIES = [
  ["Revision", (p) => p.revision, true],
  ["Active", (p) => (p.active ? "yes" : "")],
  ["Digest", (p) => p.digest.slice(0, 16)],
  ["Received", (p) => time(p.received_ms)],
];

function time(ms) {
  return ms === null ? null : new Date(ms).toLocaleString();
}

function span(from, to) {
  return from === null || to === null ? null : `${to - from} ms`;
}

function showTable(id, columns, rows, more) {
  const head = document.createElement("tr");
  head.append(...columns.map(([heading, , number]) => element("th", heading, number ? "number" : "")));
  const lines = rows.map((row) => {
    const line = document.createElement("tr");
    line.append(...columns.map(([, cell, number]) => element("td", cell(row) ?? "–", number ? "number" : "")));
    return line;
  });
  if (!lines.length) {
    const line = document.createElement("tr");
    line.append(element("td", "none", "empty"));
    line.firstChild.colSpan = columns.length;
    lines.push(line);
  }
  byId(id).replaceChildren(head, ...lines);
  const title = byId(id).closest("section").querySelector("h2");
  title.querySelector("small")?.remove();
  if (more) title.append(element("small", ` the first ${rows.length}`));
}

function showSummary(node) {
  const facts = [
    ["Place", node.place],
    ["Operator", node.operator],
    ["Policy", node.policy_revision === null ? "none: all is denied" : `revision ${node.policy_revision}`],
    ["Digest", node.policy_digest?.slice(0, 16) ?? "–"],
    ["Ready", node.not_ready.length ? `no: ${node.not_ready.join(", ")}` : "yes"],
    ["Version", node.version],
  ];
  byId("name").textContent = node.name;
  byId("summary").replaceChildren(
    ...facts.map(([term, value]) => {
      const fact = document.createElement("div");
      fact.append(element("dt", term), element("dd", value));
      return fact;
    }),
  );
}

async function refresh() {
  const [node, devices, edges, handovers, workers, policies] = await Promise.all(
    ["node", "devices", "edges", "handovers", "workers", "policies"].map(get),
  );
  showSummary(node);
  showTable("devices", DEVICES, devices.devices, devices.next);
  showTable("edges", EDGES, edges.edges, edges.next);
  showTable("handovers", HANDOVERS, handovers.handovers, handovers.next);
  showTable("workers", WORKERS, workers.workers, workers.next);
  showTable("policies", POLICIES, policies.policies, null);
}

function say(text, bad = false) {
  byId("status").textContent = text;
  byId("status").className = bad ? "bad" : "";
}

function signedIn(yes) {
  byId("sign-in").hidden = yes;
  byId("node").hidden = !yes;
  byId("leave").hidden = !yes;
}

function leave(why, bad = false) {
  sessionStorage.removeItem(TOKEN);
  signedIn(false);
  say(why, bad);
}

async function poll() {
  if (sessionStorage.getItem(TOKEN) && !document.hidden) {
    try {
      await refresh();
      signedIn(true);
      say(`as of ${new Date().toLocaleTimeString()}`);
    } catch (error) {
      if (error.status === 401 || error.status === 403) leave(error.message, true);
      else say(`cannot be reached: ${error.message}`, true);
    }
  }
  setTimeout(poll, POLL_MS);
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value.trim());
  byId("token").value = "";
  try {
    await refresh();
    signedIn(true);
    say(`as of ${new Date().toLocaleTimeString()}`);
  } catch (error) {
    leave(error.message, true);
  }
});

byId("leave").addEventListener("click", () => leave("not signed in"));

poll();
