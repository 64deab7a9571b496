// Shows /status.json. Security: what comes from there becomes text and never markup.
"use strict";

const EVERY = 2000, HOUR = 3600, DAY = 86400, DAYS = 90;
const OPERATIONS = ["GenerateMac", "VerifyMac", "others"], LINES = ["one", "two", "three"];
const at = (id) => document.getElementById(id);
let paused = false, last = null, before = null, heard = 0;

function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key === "class") element.className = value;
    else if (key === "label") element.dataset.label = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function draw(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// What has not changed stays as it is: a selection in it too.
const shown = new Map();
function show(id, ...children) {
  const key = children.map((child) => child.outerHTML || child).join("\n");
  if (shown.get(id) === key) return;
  shown.set(id, key);
  at(id).replaceChildren(...children);
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const pad = (number) => String(number).padStart(2, "0");
function clock(seconds) {
  const time = new Date(seconds * 1000);
  return `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`;
}
function day(seconds) {
  const time = new Date(seconds * 1000);
  return `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
}
const date = (seconds) => `${day(seconds)} ${clock(seconds).slice(0, 5)}`;
const moment = (seconds, now) => (now - seconds > DAY / 2 ? `${day(seconds)} ` : "") + clock(seconds);
function span(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < HOUR) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * DAY) return `${Math.floor(seconds / HOUR)} h`;
  return `${Math.floor(seconds / DAY)} days`;
}
function number(value) {
  if (value === 0) return "0";
  if (value < 10) return value.toFixed(value < 0.1 ? 2 : 1);
  return Math.round(value).toLocaleString("en");
}
function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Math.round(seconds * 1e3)} ms`;
  return `${seconds} s`;
}

function plot(title, now, lines, samples, unit) {
  const values = lines.map((line) => samples.map(line.of));
  const most = Math.max(0, ...values.flat().filter((value) => value !== null));
  const place = (index) => (360 - (now - samples[index].at) / 10).toFixed(1);
  const height = (value) => (most ? 58 - (value / most) * 54 : 58).toFixed(1);
  const paths = values.flatMap((row, line) => {
    let path = "", area = "", begun = null;
    row.forEach((value, index) => {
      if (value === null) { begun = null; return; }
      path += `${begun === null ? "M" : "L"}${place(index)} ${height(value)}`;
      // A lone point is seen too.
      if (begun === null) path += "h.6";
      begun = index;
    });
    if (line === 0 && lines.length < 4 && row.length > 1 && !row.includes(null)) {
      area = `${path}L${place(row.length - 1)} 60L${place(0)} 60Z`;
    }
    return [area && draw("path", { d: area, class: "area" }), path && draw("path", { d: path, class: LINES[line] })].filter(Boolean);
  });
  const label = `${title} over the last hour, at most ${unit(most)}`;
  return [
    draw("svg", { viewBox: "0 0 360 60", preserveAspectRatio: "none", role: "img", "aria-label": label }, ...paths),
    make("div", { class: "scale" }, make("span", {}, "an hour ago"), make("span", {}, `most: ${most ? unit(most) : "none"}`), make("span", {}, "now")),
  ];
}

function figure(title, now, samples, value, unit, lines, tone) {
  const newest = samples[samples.length - 1];
  // Where there is one line alone, its place is kept: plots stand side by side.
  const legend = make("div", { class: "legend" }, ...lines.map((line, index) => make("span", { class: LINES[index] },
    lines.length < 2 ? "\u00a0" : `${["━", "┅", "┉"][index]} ${line.name} ${newest ? unit(line.of(newest)) : ""}`)));
  return make("div", { class: "card figure" },
    make("h3", {}, title), make("b", { class: tone || "" }, value), legend, ...plot(title, now, lines, samples, unit));
}

function figures(state) {
  const samples = state.history.filter((sample) => state.at - sample.at < HOUR);
  const newest = samples[samples.length - 1];
  const sum = (sample) => sample.rate.reduce((all, one) => all + one, 0);
  // Of MACs, if there were any: what others take is beside it.
  const slowest = ({ p99: [made, verified, others] }) => (made === null && verified === null ? others : Math.max(made, verified));
  const rate = (value) => `${number(value)}/s`;
  const operations = (of) => OPERATIONS.map((name, index) => ({ name, of: (sample) => of(sample)[index] }));
  const when = (show) => (newest ? show(newest) : "–");
  show("figures",
    figure("Calls", state.at, samples, when((one) => rate(sum(one))), rate, operations((sample) => sample.rate)),
    figure("Time of a call, p99", state.at, samples, when((one) => time(slowest(one))), time, operations((sample) => sample.p99)),
    figure("Our faults", state.at, samples, when((one) => rate(one.our_faults)), rate,
      [{ of: (sample) => sample.our_faults }], newest && newest.our_faults > 0 ? "bad" : ""),
    figure("Wait in the queue, p99", state.at, samples, when((one) => time(one.queue_p99)), time, [{ of: (sample) => sample.queue_p99 }]));
}

const TONES = { up: "good", starting: "warn", degraded: "warn" };
const tone = (state) => TONES[state] || "bad";
const SIGNS = { good: "●", warn: "▲", bad: "✖" };

function host(one, now) {
  const what = one.stuck ? "stuck" : one.jobs ? plural(one.jobs, "job") : "idle";
  return make("li", { class: one.stuck ? "bad" : "good", title: `since ${moment(one.since, now)}` },
    one.stuck ? "✖" : "●", make("span", { class: "soft" }, ` host ${one.generation}, ${span(now - one.since)}, ${what}`));
}

function token(one, group, now, rate) {
  const facts = make("dl", { class: "facts" });
  const fact = (name, ...value) => facts.append(make("dt", {}, name), make("dd", {}, ...value));
  const starting = Array.from({ length: one.hosts_starting }, () => make("li", { class: "warn" }, "◌", make("span", { class: "soft" }, " starting")));
  const hosts = [...one.hosts.map((each) => host(each, now)), ...starting];
  fact("Hosts", hosts.length ? make("ul", { class: "dots" }, ...hosts) : `none of ${one.hosts_configured}`);
  if (one.pending_settings) fact("New settings", make("span", { class: "warn" }, "▲ "), `wait for their hosts: ${one.pending_settings}`);
  const limit = one.hosts.reduce((all, each) => all + each.sessions, 0);
  const busy = one.hosts.reduce((all, each) => all + Math.min(each.sessions, each.jobs), 0);
  const meter = make("span", { class: "meter", "aria-hidden": "true" }, make("i"));
  meter.firstChild.style.width = `${limit ? (100 * busy) / limit : 0}%`;
  fact("Sessions", `${busy} of ${limit} busy`, meter);
  fact("MACs", `${rate === null ? "–" : number(rate)}/s, ${one.macs.toLocaleString("en")} in all; p50 ${time(one.mac_p50)}, p99 ${time(one.mac_p99)}`);
  if (group.name !== one.name) fact("Group", group.name);
  fact("Queue", `${group.queued} of ${group.queue_limit} waiting`);
  const ends = Object.entries(one.host_ends).filter(([, count]) => count);
  if (ends.length) fact("Hosts ended", ends.map(([how, count]) => `${how} ${count}`).join(", "));
  if (one.last_fault) {
    const fault = one.last_fault;
    fact("Last fault", make("span", { class: "code" }, `${fault.function} ${fault.code}`), ` ${moment(fault.at, now)}, ${one.faults} in all`,
      fault.reason && !fault.reason.includes(fault.code) ? make("div", { class: "soft" }, fault.reason) : null);
  }
  const kind = tone(one.state);
  return make("article", { class: `card ${kind === "good" ? "" : kind}` },
    make("header", {}, make("h3", {}, one.name), make("span", { class: kind }, `${SIGNS[kind]} ${one.state.replace("_", " ")}`)),
    kind === "good" ? null : make("p", {}, one.reason), one.advice ? make("p", {}, make("b", {}, "Do: "), one.advice) : null,
    make("p", { class: "soft" }, `for ${span(now - one.since)}, since ${moment(one.since, now)}`), facts);
}

function tokens(state) {
  const elapsed = before ? state.at - before.at : 0;
  const earlier = (name) => before && before.groups.flatMap((group) => group.tokens).find((one) => one.name === name);
  const rate = (one) => {
    const was = earlier(one.name);
    return was && elapsed > 0 ? Math.max(0, one.macs - was.macs) / elapsed : null;
  };
  const cards = state.groups.flatMap((group) => group.tokens.map((one) => token(one, group, state.at, rate(one))));
  show("tokens", ...(cards.length ? cards : [none("No token is configured.")]));
}

const none = (text) => make("p", { class: "none" }, text);

function table(columns, rows) {
  const head = make("tr", {}, ...columns.map(([name, kind]) => make("th", { scope: "col", class: kind || "" }, name)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell, index) =>
    make("td", { class: columns[index][1] || "", label: columns[index][0] }, cell))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}
const code = (text) => make("span", { class: "code" }, text);

function keys(state) {
  const counts = Object.entries(state.keys).filter(([, count]) => count).map(([name, count]) => `${count.toLocaleString("en")} ${name}`);
  const trouble = state.troubled_keys.length
    ? table([["Key"], ["Description"], ["Why it cannot serve"]], state.troubled_keys.map((key) => [code(key.arn), key.description, key.reason]))
    : none("None is in trouble.");
  show("keys", make("p", {}, counts.join(", ") || "There is no key."), trouble);
}

function coming(state) {
  const events = [
    ...state.certificates.map((one) => ({ at: one.ends, sign: "◆", what: `${one.listener}.tls.${one.kind} ends`, of: "" })),
    ...state.deletions.map((one) => ({ at: one.at, sign: "✖", what: "a key is deleted", of: one.arn, more: one.description })),
  ].sort((one, other) => one.at - other.at);
  const held = state.deletions_held
    ? make("p", { class: "warn" }, "▲ Deletions, and keys that were enabled, wait for a person: the store was restored. Look at the keys, stop hsmac, and run hsmac store confirm.") : null;
  const alarms = state.deletion_alarms
    ? make("p", { class: "bad" }, `✖ ${plural(state.deletion_alarms, "object")} of deleted keys left alone, not being what they should be: the log says ALARM, and why.`) : null;
  if (!events.length) { show("coming", ...[held, alarms, none("No deletion and no certificate's end is known.")].filter(Boolean)); return; }
  const axis = make("div", { class: "days", "aria-hidden": "true" });
  const put = (element, days) => { element.style.left = `${(100 * Math.sqrt(days / DAYS)).toFixed(2)}%`; axis.append(element); };
  for (const days of [0, 3, 14, 30, 60, 90]) put(make("span", {}, days ? `${days} d` : "today"), days);
  const rows = events.map((event) => {
    const left = event.at - state.at, kind = left < 3 * DAY ? "bad" : left < 14 * DAY ? "warn" : "soft";
    if (left < DAYS * DAY) put(make("b", { class: kind, title: event.what }, event.sign), Math.max(0, left / DAY));
    const what = make("span", {}, event.what);
    if (event.of) what.append(" ", code(event.of));
    if (event.more) what.append(` ${event.more}`);
    return [make("span", { class: kind }, `${event.sign} ${left < 0 ? `${span(-left)} ago` : `in ${span(left)}`}`), date(event.at), what];
  });
  show("coming", ...[held, alarms, axis, table([["When", "short"], ["At", "short"], ["What"]], rows)].filter(Boolean));
}

function refused(state) {
  const rows = state.refusals.map((one) => [one.caller || "unknown", one.operation, one.exception, one.count.toLocaleString("en"), moment(one.at, state.at), code(one.request_id)]);
  show("refused", rows.length
    ? table([["Who"], ["Operation"], ["Exception"], ["Times", "number"], ["Last", "short"], ["Request ID"]], rows)
    : none("Nobody was denied or throttled."));
  const limited = state.throttled.map((one) => [one.principal, code(one.quota), one.count.toLocaleString("en"), moment(one.at, state.at)]);
  show("throttled", limited.length
    ? table([["Over its limits"], ["Quota"], ["Times", "number"], ["Last", "short"]], limited)
    : "");
}

function faults(state) {
  const rows = state.faults.slice(0, 20).map((one) => [moment(one.at, state.at), `${one.operation} (${one.wire})`,
    make("span", {}, make("span", { class: "bad" }, one.exception), make("div", {}, one.cause || "")), one.advice, code(one.request_id)]);
  show("faults", rows.length
    ? table([["At", "short"], ["Operation"], ["What happened"], ["Do"], ["Request ID", "id"]], rows)
    : none("No call has failed for a reason that is ours."));
}

function server(state) {
  const facts = make("dl", { class: "facts card" });
  const fact = (name, ...value) => facts.append(make("dt", {}, name), make("dd", {}, ...value));
  fact("hsmac", `${state.hsmac}, up for ${span(state.at - state.started)}`);
  for (const check of state.checks) {
    fact(check.name === "token" ? "Ready: tokens" : "Ready", make("span", { class: check.good ? "good" : "bad" }, check.good ? "● " : "✖ "), check.reason);
  }
  for (const one of state.conditions) fact(one.name, make("span", { class: "warn" }, "▲ "), `${one.words}. ${one.advice}`);
  if (state.pending_restart.length) fact("Restart", make("span", { class: "warn" }, "▲ "), `changed, and waiting for a restart: ${state.pending_restart.join(", ")}`);
  for (const one of state.connections) {
    fact(`Connections, ${one.wire}`, `${one.authenticated} of ${one.authenticated_limit}; ${one.unauthenticated} of ${one.unauthenticated_limit} unknown`);
  }
  show("server", facts);
}

function headline(text, kind, advice, about) {
  const sentence = at("sentence");
  // A screen reader says it when it changes.
  if (sentence.textContent !== text) sentence.textContent = text;
  sentence.className = kind;
  document.title = `${SIGNS[kind]} hsmac: ${text}`;
  const link = about ? make("a", { href: `#h-${about}` }, "Show") : null;
  show("advice", ...[advice || "", link ? " " : null, link].filter((part) => part !== null));
}

function render(state) {
  headline(state.summary, state.ready ? (state.well ? "good" : "warn") : "bad", state.advice, state.about);
  for (const part of [figures, tokens, keys, coming, refused, faults, server]) part(state);
}

function clockLine() {
  const age = Date.now() - heard;
  at("when").textContent = last ? `${paused ? "Paused at" : "As of"} ${clock(last.at)}${!paused && age > 3 * EVERY ? `, ${span(age / 1000)} ago` : ""}` : "";
}

async function look() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(5 * EVERY) });
    if (answer.status === 503) {
      headline("hsmac starts.", "warn", "It is not ready yet. If this lasts, look at its log.", null);
    } else if (!answer.ok) {
      headline(`hsmac does not show its state: ${answer.status}.`, "bad", await answer.text(), null);
    } else {
      const state = await answer.json();
      if (!last || state.at > last.at) [before, last] = [last, state];
      heard = Date.now();
      render(state);
    }
  } catch {
    const advice = last ? "What is below is old. Is the tunnel still there, and hsmac running?" : "Is hsmac running?";
    headline("hsmac does not answer.", "bad", advice, null);
  }
  clockLine();
}

async function follow() {
  if (!paused && !document.hidden) await look();
  setTimeout(follow, EVERY);
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").textContent = paused ? "Go on" : "Pause";
  at("pause").setAttribute("aria-pressed", String(paused));
  clockLine();
});
follow();
