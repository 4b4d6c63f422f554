// The page: loads batches, keeps the selection, and asks Airflow to run the DAG that acts.

import { absolute, followTheme, openLinksInAirflow, request, runLink } from "./airflow.js";
import { drawRows, element, mark } from "./rows.js";

const REFRESH_SECONDS = 15;
const PAGE_SIZE = 100;
const MOST_SELECTED = 1024;
const $ = (id) => document.getElementById(id);
// Airflow 3.1 does not encode the `+` in run IDs.
const own = new URL(location.href.replaceAll("+", "%2B")).searchParams;
/** On the tab of a task instance, the page shows that task's batches only. */
const task = own.has("dag_id") ? Object.fromEntries(["dag_id", "run_id", "task_id", "map_index"].map((name) => [name, own.get(name)])) : null;
// Airflow leaves the placeholder in place if the task is not mapped.
if (task && !/^-?\d+$/.test(task.map_index)) task.map_index = -1;
const state = {
  batches: [],
  hasMore: false,
  /** "loading" and "failed" as long as nothing is loaded: the page must not claim that there are no batches. */
  phase: "loading",
  selected: new Set(),
  runs: new Map(),
  /** The DAG that acts, and why it cannot. */
  dag: { id: "", mayTrigger: false, why: "", folder: "", pattern: "" },
  /** Why the last action failed. */
  failure: "",
};

const TEXTS = {
  loading: "Loading…",
  none: "There are no batches.",
  noneMatch: "No loaded batch matches.",
  noConnection: "There is no connection to Anthropic that you may read.",
  login: "You are not logged in any more. Reload the page.",
  missing: (id) => `The DAG ${id} does not exist. Copy example_dags/teardown_selected.py of this provider to your DAGs folder, to cancel and tear down batches here.`,
  paused: (id) => `The DAG ${id} is paused. Unpause it, to cancel and tear down batches here.`,
  forbidden: (id) => `You may not trigger the DAG ${id}. Ask an administrator, to cancel and tear down batches here.`,
  connection: (id, connection, pattern) => `The DAG ${id} does not accept the connection ${connection}. Change the pattern ${pattern} of its param conn_id, to cancel and tear down batches here.`,
  most: `${MOST_SELECTED.toLocaleString()} batches are selected, the most that one run accepts.`,
  noTask: "This task has no message batches, none yet, or Airflow no longer stores its rendered fields.",
  gone: (ids) => `Not found, most likely deleted: ${ids.join(", ")}`,
  partial: "This task has more batches than are shown here.",
  cancelLoss: "Requests that are not answered yet get no answer. Results that exist are kept, and are billed.",
  saveLoss: "Running batches are canceled first. The batches are deleted once their results are saved.",
  discardLoss: "The results are lost. This cannot be undone.",
};

function notice(text = "") {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

function report(error) {
  notice(error.status === 401 ? TEXTS.login : error.message);
}

async function findConnections() {
  const { conn_ids, teardown } = await request("api/connections");
  if (!conn_ids.length) throw new Error(TEXTS.noConnection);
  const wanted = own.get("conn_id") ?? conn_ids.find((name) => name === "anthropic_default");
  $("connection").replaceChildren(...conn_ids.map((name) => new Option(name, name, false, name === wanted)));
  state.dag = { ...state.dag, id: teardown.dag_id, mayTrigger: teardown.may_trigger };
}

/** Find out whether the user can act: the DAG exists, is not paused, and may be triggered. */
async function findDag() {
  const { id, mayTrigger } = state.dag;
  let why = mayTrigger ? "" : TEXTS.forbidden(id);
  try {
    const dag = await request(`api/v2/dags/${encodeURIComponent(id)}/details`);
    if (dag.is_paused) why ||= TEXTS.paused(id);
    Object.assign(state.dag, { folder: dag.params?.folder?.value ?? "", pattern: dag.params?.conn_id?.schema?.pattern ?? "" });
  } catch (error) {
    why = error.status === 404 ? TEXTS.missing(id) : error.status === 403 ? TEXTS.forbidden(id) : error.message;
  }
  state.dag.why = why;
}

/** Why the user cannot act on batches of the chosen connection; empty if nothing is in the way. */
function obstacle() {
  const { id, why, pattern } = state.dag;
  const connection = $("connection").value;
  let accepted = true;
  try {
    accepted = new RegExp(pattern, "u").test(connection);
  } catch {
    // A pattern that Python alone understands. Airflow checks it.
  }
  return why || (accepted ? "" : TEXTS.connection(id, connection, pattern));
}

let turn = 0;
let busy = false;

/** Load what is shown. A later call, such as for another connection, makes an earlier one void. */
async function load({ more = false } = {}) {
  const mine = ++turn;
  busy = $("refresh").disabled = true;
  try {
    const apply = task ? await loadTask() : await loadList(more);
    if (mine !== turn) return;
    apply();
    state.phase = "loaded";
    $("updated").textContent = `Updated ${absolute(new Date().toISOString())}`;
    notice(task ? "" : state.failure || obstacle());
  } catch (error) {
    if (mine !== turn) return;
    // What was loaded before stays.
    if (state.phase === "loading") state.phase = "failed";
    report(error);
  }
  busy = $("refresh").disabled = false;
  draw();
}

async function loadTask() {
  const found = await request("api/task", task);
  return () => {
    state.batches = found.batches;
    const texts = [found.missing.length && TEXTS.gone(found.missing), found.partial && TEXTS.partial].filter(Boolean);
    $("done").hidden = !texts.length;
    $("done").textContent = texts.join("\n");
  };
}

async function loadList(more) {
  if (!$("connection").value) await findConnections();
  const conn_id = $("connection").value;
  // Twice as many each time, up to what the API lists at once.
  const limit = Math.min(1000, Math.max(PAGE_SIZE, state.batches.length));
  const query = { conn_id, limit, after_id: more ? state.batches.at(-1)?.id : null };
  const [found, runs] = await Promise.all([request("api/batches", query), latestRuns(), findDag()]);
  return () => {
    state.runs = runs;
    if (more) state.batches = state.batches.concat(found.batches);
    else {
      // Batches beyond the first 1,000 are not asked for again.
      const last = state.batches.findIndex((batch) => batch.id === found.batches.at(-1)?.id);
      const older = state.batches.length > limit && last >= 0 ? state.batches.slice(last + 1) : [];
      state.batches = found.batches.concat(older);
    }
    if (more || state.batches.length <= limit) state.hasMore = found.has_more;
  };
}

/** Return the latest runs of the DAG, by the batches that they are for. */
async function latestRuns() {
  const runs = new Map();
  const query = { limit: 100, order_by: "-run_after" };
  let found;
  try {
    found = await request(`api/v2/dags/${encodeURIComponent(state.dag.id)}/dagRuns`, query);
  } catch {
    return runs;
  }
  for (const run of found.dag_runs)
    for (const id of [run.conf?.batch_ids ?? []].flat())
      if (!runs.has(id)) runs.set(id, [run]);
  return runs;
}

function shown() {
  const words = $("search").value.trim().toLowerCase();
  const matches = (batch) => `${batch.id} ${batch.created_by?.dag_id ?? ""}`.toLowerCase().includes(words);
  return state.batches.filter((batch) => (!$("state").value || batch.processing_status === $("state").value) && matches(batch));
}

function draw() {
  const batches = shown();
  const ids = new Set(batches.map((batch) => batch.id));
  for (const id of state.selected) if (!ids.has(id)) state.selected.delete(id);
  drawRows($("rows"), batches, { runs: state.runs, selected: state.selected, onSelect: task ? null : select });
  const texts = { loading: TEXTS.loading, failed: "", loaded: task ? TEXTS.noTask : state.batches.length ? TEXTS.noneMatch : TEXTS.none };
  $("empty").textContent = batches.length ? "" : texts[state.phase];
  $("more").hidden = !state.hasMore;
  $("totals").textContent = totals();
  drawSelection();
}

function drawSelection() {
  $("selection").hidden = !state.selected.size;
  $("selected").textContent = state.selected.size < MOST_SELECTED ? `${state.selected.size} selected` : TEXTS.most;
  const why = obstacle();
  for (const id of ["cancel", "teardown"]) {
    $(id).disabled = Boolean(why);
    $(id).title = why;
  }
  const batches = shown();
  $("all").checked = batches.length > 0 && batches.every((batch) => state.selected.has(batch.id));
}

function select(id, box) {
  if (box.checked && state.selected.size < MOST_SELECTED) state.selected.add(id);
  else state.selected.delete(id);
  mark(box.closest("tr"), state.selected.has(id));
  drawSelection();
}

function totals() {
  const counts = {};
  for (const batch of state.batches) counts[batch.processing_status] = (counts[batch.processing_status] ?? 0) + 1;
  const parts = Object.entries(counts).map(([name, count]) => `${count.toLocaleString()} ${name.replace("_", " ")}`);
  const which = state.hasMore ? `the newest ${state.batches.length.toLocaleString()} batches` : "all batches";
  return parts.length ? `Of ${which}: ${parts.join(", ")}` : "";
}

/** Ask what to do with the selected batches, naming what will be lost, and do it. */
function ask(action) {
  const ids = [...state.selected];
  state.failure = "";
  const many = ids.length === 1 ? "this batch" : `these ${ids.length.toLocaleString()} batches`;
  const isCancel = action === "cancel";
  $("question").textContent = isCancel ? `Cancel ${many}?` : `Tear down ${many}?`;
  $("chosen").replaceChildren(...ids.slice(0, 100).map((id) => element("li", {}, element("code", {}, id))));
  if (ids.length > 100) $("chosen").append(element("li", {}, `and ${ids.length - 100} more`));
  $("actions").hidden = isCancel;
  $("folder").value ||= state.dag.folder;
  const radios = [...document.querySelectorAll("input[name=action]")];
  const update = () => {
    const chosen = isCancel ? "cancel" : radios.find((each) => each.checked).value;
    $("folder").disabled = chosen !== "save_and_delete";
    $("folder").required = chosen === "save_and_delete";
    $("loss").textContent = { cancel: TEXTS.cancelLoss, save_and_delete: TEXTS.saveLoss, discard: TEXTS.discardLoss }[chosen];
    $("confirm").textContent = { cancel: "Cancel the batches", save_and_delete: "Save and delete", discard: "Delete without saving" }[chosen];
    return chosen;
  };
  for (const each of radios) {
    each.checked = each.value === "save_and_delete";
    each.onchange = update;
  }
  update();
  $("dialog").returnValue = "";
  $("dialog").onclose = () => {
    if ($("dialog").returnValue === "yes") act(ids, update());
  };
  $("dialog").showModal();
}

async function act(ids, action) {
  const conf = { batch_ids: ids, conn_id: $("connection").value, action };
  if (action === "save_and_delete") conf.folder = $("folder").value.trim();
  const path = `api/v2/dags/${encodeURIComponent(state.dag.id)}/dagRuns`;
  // A second click must not start a second run.
  state.selected.clear();
  $("done").hidden = true;
  draw();
  try {
    const run = await request(path, {}, { logical_date: null, conf, note: $("note").value.trim() || null });
    const link = element("a", { href: runLink(run.dag_id, run.dag_run_id) }, run.dag_run_id);
    $("done").replaceChildren(`${run.dag_id} has started: `, link);
    $("done").hidden = false;
    $("note").value = "";
  } catch (error) {
    state.failure = error.status === 401 ? TEXTS.login : `${state.dag.id} has not started: ${error.message}`;
    state.selected = new Set(ids);
  }
  await load();
}

$("refresh").onclick = () => load();
$("more").onclick = () => load({ more: true });
$("connection").onchange = () => {
  Object.assign(state, { batches: [], hasMore: false, phase: "loading", failure: "" });
  state.selected.clear();
  notice();
  draw();
  load();
};
for (const id of ["state", "search"]) $(id).oninput = draw;
$("all").onchange = () => {
  const checked = $("all").checked;
  for (const batch of shown().slice(0, MOST_SELECTED)) state.selected[checked ? "add" : "delete"](batch.id);
  draw();
};
$("clear").onclick = () => {
  state.selected.clear();
  draw();
};
$("cancel").onclick = () => ask("cancel");
$("teardown").onclick = () => ask("teardown");
const refresh = () => {
  if (document.visibilityState === "visible" && !$("dialog").open && !busy) load();
};
setInterval(refresh, REFRESH_SECONDS * 1000);
followTheme();
openLinksInAirflow();
if (task) {
  for (const id of ["controls", "totals"]) $(id).hidden = true;
  document.querySelector("table").classList.add("of-task");
}
draw();
load();
