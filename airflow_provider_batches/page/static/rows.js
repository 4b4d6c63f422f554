// Draws batches. Texts of others (IDs, names, errors) become text nodes only.

import { absolute, relative, runLink, taskLink } from "./airflow.js";

const DAY = 86400_000;
const STATES = { in_progress: "In progress", canceling: "Canceling", ended: "Ended" };
const OUTCOMES = ["succeeded", "errored", "canceled", "expired"];

export function element(name, properties = {}, ...children) {
  const { label, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  if (label) made.setAttribute("aria-label", label);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function tell(time) {
  const text = `${time.dataset.word} ${relative(time.dateTime)}`.trim();
  if (time.textContent !== text) time.textContent = text;
}

function moment(time, word = "") {
  if (!time) return "";
  const made = element("time", { dateTime: time, title: absolute(time) });
  made.dataset.word = word;
  tell(made);
  return made;
}

function bar(parts, text) {
  const drawn = parts.map(([name, share]) => {
    const part = element("i", { className: name });
    part.style.width = `${100 * share}%`;
    return part;
  });
  const made = element("div", { className: "bar", title: text, label: text }, ...drawn);
  made.setAttribute("role", "img");
  return made;
}

/** The outcomes of a batch that has ended. Before, the API counts nothing, so its age is shown against its 24 hours. */
function requests(batch) {
  const counts = batch.request_counts;
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  if (batch.processing_status === "ended") {
    const found = OUTCOMES.filter((name) => counts[name]);
    const text = found.map((name) => `${counts[name].toLocaleString()} ${name}`).join(", ") || "none";
    return [bar(found.map((name) => [name, counts[name] / total]), text), element("div", { className: "small" }, text)];
  }
  const age = Math.max(0, Math.min(1, (Date.now() - new Date(batch.created_at)) / DAY));
  const since = age < 1 / 24 ? `${Math.floor(24 * 60 * age)} minutes` : `${Math.floor(24 * age)}`;
  const text = batch.created_at ? `${since} of at most 24 hours` : "age unknown";
  const size = total ? `${total.toLocaleString()} requests, ` : "";
  return [bar([["age", age]], text), element("div", { className: "small" }, `${size}${text}`)];
}

function results(batch) {
  if (batch.archived_at) return "archived";
  if (!batch.results_until) return "";
  const soon = new Date(batch.results_until) - Date.now() < 3 * DAY;
  return element("span", { className: soon ? "warn" : "" }, moment(batch.results_until));
}

function copyButton(id) {
  const button = element("button", { type: "button", className: "small", label: `Copy the ID ${id}` }, "Copy");
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(id);
    } catch {
      // Without permission, or without https.
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  };
  return button;
}

const RUN = { queued: "running", running: "running", failed: "failed", success: "done" };

function teardown(runs) {
  return runs.map((run) => {
    const link = element("a", { href: runLink(run.dag_id, run.dag_run_id) }, `${run.conf.action ?? "run"}: ${RUN[run.state] ?? run.state}`);
    return element("div", { className: run.state === "failed" ? "warn" : "" }, link, " ", moment(run.run_after));
  });
}

function row(batch, runs, onSelect) {
  const by = batch.created_by;
  const name = STATES[batch.processing_status] ?? batch.processing_status;
  const ended = batch.ended_at ? moment(batch.ended_at, "ended") : moment(batch.expires_at, "expires");
  const cells = [
    ["", onSelect && element("input", { type: "checkbox", label: `Select ${batch.id}`, onchange: (event) => onSelect(batch.id, event.target) })],
    ["Batch", element("code", {}, batch.id), " ", copyButton(batch.id)],
    ["State", element("span", { className: `state ${batch.processing_status}` }, name)],
    ["Requests", ...requests(batch)],
    ["Created", moment(batch.created_at)],
    ["Ended or expires", ended],
    ["Results until", results(batch)],
    ["Created by", by ? element("a", { href: taskLink(by) }, `${by.dag_id}.${by.task_id}`) : ""],
    ["Teardown", ...teardown(runs)],
  ];
  const drawn = cells.map(([label, ...content]) => {
    const cell = element("td", {}, ...content);
    if (label) cell.dataset.label = label;
    return cell;
  });
  return element("tr", {}, ...drawn);
}

export function mark(row, selected) {
  row.classList.toggle("selected", selected);
  const box = row.querySelector("input");
  if (box) box.checked = selected;
}

const known = new Map();

/** Show batches in a table. What has not changed stays: thousands of rows take seconds to draw, and one has the focus. */
export function drawRows(body, batches, { runs, selected, onSelect }) {
  if (!batches.length) known.clear();
  // Colors and titles depend on the time and the time zone.
  const now = [absolute(0), Math.floor(Date.now() / 3600_000)];
  const rows = batches.map((batch) => {
    const itsRuns = runs.get(batch.id) ?? [];
    const key = JSON.stringify([now, batch, itsRuns]);
    // A running batch grows older.
    if (known.get(batch.id)?.key !== key || batch.processing_status !== "ended")
      known.set(batch.id, { key, drawn: row(batch, itsRuns, onSelect) });
    const { drawn } = known.get(batch.id);
    for (const time of drawn.querySelectorAll("time")) tell(time);
    mark(drawn, selected.has(batch.id));
    return drawn;
  });
  const focused = document.activeElement?.getAttribute("aria-label");
  const kept = new Set(rows);
  for (const each of [...body.children]) if (!kept.has(each)) each.remove();
  let at = body.firstChild;
  for (const each of rows)
    if (each === at) at = at.nextSibling;
    else body.insertBefore(each, at);
  if (focused && document.activeElement === document.body)
    [...body.querySelectorAll("[aria-label]")].find((each) => each.getAttribute("aria-label") === focused)?.focus();
}
