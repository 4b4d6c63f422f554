// The page: loads batches, keeps the selection, and asks Airflow to run the DAG that acts.

import { absolute, followTheme, openLinksInAirflow, request, runLink } from "./airflow.js";
import { element, row } from "./rows.js";

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
const state = { batches: [], hasMore: false, selected: new Set(), runs: new Map(), dag: { id: "", why: "" }, folder: "" };

const TEXTS = {
  none: "There are no batches.",
  noneMatch: "No loaded batch matches.",
  noConnection: "There is no connection to Anthropic that you may read.",
  login: "You are not logged in any more. Reload the page.",
  missing: (id) => `The DAG ${id} does not exist. Copy example_dags/teardown_selected.py of this provider to your DAGs folder, to cancel and tear down batches here.`,
  paused: (id) => `The DAG ${id} is paused. Unpause it, to cancel and tear down batches here.`,
  forbidden: (id) => `You may not trigger the DAG ${id}. Ask an administrator, to cancel and tear down batches here.`,
  noTask: "This task has no message batches, or none yet.",
  gone: (ids) => `Not found, most likely deleted: ${ids.join(", ")}`,
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

async function start() {
  followTheme();
  openLinksInAirflow();
  if (task) {
    for (const id of ["controls", "totals"]) $(id).hidden = true;
    document.querySelector("table").classList.add("of-task");
    return load();
  }
  const { conn_ids, teardown } = await request("api/connections");
  const wanted = own.get("conn_id") ?? conn_ids.find((name) => name === "anthropic_default");
  $("connection").replaceChildren(...conn_ids.map((name) => new Option(name, name, false, name === wanted)));
  if (!conn_ids.length) return notice(TEXTS.noConnection);
  await findDag(teardown);
  await load();
}

/** Find out whether the user can act: the DAG exists, is not paused, and may be triggered. */
async function findDag({ dag_id: id, may_trigger: mayTrigger }) {
  state.dag = { id, why: mayTrigger ? "" : TEXTS.forbidden(id) };
  try {
    const dag = await request(`api/v2/dags/${encodeURIComponent(id)}/details`);
    if (dag.is_paused) state.dag.why ||= TEXTS.paused(id);
    const folder = dag.params?.folder;
    state.folder = String(folder?.value ?? folder ?? "");
  } catch (error) {
    state.dag.why = error.status === 404 ? TEXTS.missing(id) : error.status === 403 ? TEXTS.forbidden(id) : error.message;
  }
}

let loading = false;

async function load({ more = false } = {}) {
  if (loading) return;
  loading = true;
  $("refresh").disabled = true;
  try {
    if (task) await loadTask();
    else await loadList(more);
    $("updated").textContent = `Updated ${absolute(new Date().toISOString())}`;
    notice(task ? "" : state.dag.why);
    draw();
  } catch (error) {
    // What was loaded before stays.
    report(error);
  } finally {
    loading = false;
    $("refresh").disabled = false;
  }
}

async function loadTask() {
  const found = await request("api/task", task);
  state.batches = found.batches;
  $("done").hidden = !found.missing.length;
  $("done").textContent = TEXTS.gone(found.missing);
}

async function loadList(more) {
  const conn_id = $("connection").value;
  const limit = more ? PAGE_SIZE : Math.max(PAGE_SIZE, Math.min(1000, state.batches.length));
  const found = await request("api/batches", { conn_id, limit, after_id: more ? state.batches.at(-1)?.id : null });
  if (conn_id !== $("connection").value) return;
  if (more) state.batches = state.batches.concat(found.batches);
  else {
    // Batches beyond the first 1,000 are not asked for again.
    const last = state.batches.findIndex((batch) => batch.id === found.batches.at(-1)?.id);
    const older = state.batches.length > limit && last >= 0 ? state.batches.slice(last + 1) : [];
    state.batches = found.batches.concat(older);
  }
  if (more || state.batches.length <= limit) state.hasMore = found.has_more;
  await loadRuns();
}

/** The latest runs of the DAG, by the batches that they are for. */
async function loadRuns() {
  state.runs.clear();
  const query = { limit: 100, order_by: "-run_after" };
  let found;
  try {
    found = await request(`api/v2/dags/${encodeURIComponent(state.dag.id)}/dagRuns`, query);
  } catch {
    return;
  }
  for (const run of found.dag_runs)
    for (const id of run.conf?.batch_ids ?? [])
      if (!state.runs.has(id)) state.runs.set(id, [run]);
}

function shown() {
  const words = $("search").value.trim().toLowerCase();
  const matches = (batch) => `${batch.id} ${batch.created_by?.dag_id ?? ""}`.toLowerCase().includes(words);
  return state.batches.filter((batch) => (!$("state").value || batch.processing_status === $("state").value) && matches(batch));
}

function draw() {
  const batches = shown();
  const loaded = new Set(batches.map((batch) => batch.id));
  for (const id of state.selected) if (!loaded.has(id)) state.selected.delete(id);
  const focused = document.activeElement?.getAttribute("aria-label");
  const drawn = batches.map((batch) => row(batch, {
    selected: state.selected.has(batch.id),
    runs: state.runs.get(batch.id) ?? [],
    onSelect: task ? null : (event) => {
      if (event.target.checked && state.selected.size < MOST_SELECTED) state.selected.add(batch.id);
      else state.selected.delete(batch.id);
      draw();
    },
  }));
  $("rows").replaceChildren(...drawn);
  // A refresh must not take the keyboard's place away.
  if (focused && document.activeElement === document.body)
    [...document.querySelectorAll("#rows [aria-label]")].find((each) => each.getAttribute("aria-label") === focused)?.focus();
  $("empty").hidden = batches.length > 0;
  $("empty").textContent = task ? TEXTS.noTask : state.batches.length ? TEXTS.noneMatch : TEXTS.none;
  $("more").hidden = !state.hasMore;
  $("totals").textContent = totals();
  $("selection").hidden = !state.selected.size;
  $("selected").textContent = `${state.selected.size} selected`;
  for (const id of ["cancel", "teardown"]) {
    $(id).disabled = Boolean(state.dag.why);
    $(id).title = state.dag.why;
  }
  $("all").checked = batches.length > 0 && batches.every((batch) => state.selected.has(batch.id));
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
  const many = ids.length === 1 ? "this batch" : `these ${ids.length.toLocaleString()} batches`;
  const isCancel = action === "cancel";
  $("question").textContent = isCancel ? `Cancel ${many}?` : `Tear down ${many}?`;
  $("chosen").replaceChildren(...ids.slice(0, 100).map((id) => element("li", {}, element("code", {}, id))));
  if (ids.length > 100) $("chosen").append(element("li", {}, `and ${ids.length - 100} more`));
  $("actions").hidden = isCancel;
  $("folder").value ||= state.folder;
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
  try {
    const run = await request(path, {}, { logical_date: null, conf, note: $("note").value.trim() || null });
    const link = element("a", { href: runLink(run.dag_id, run.dag_run_id) }, run.dag_run_id);
    $("done").replaceChildren(`${run.dag_id} has started: `, link);
    $("done").hidden = false;
    $("note").value = "";
    state.selected.clear();
    await load();
  } catch (error) {
    report(error);
  }
}

$("refresh").onclick = () => load();
$("more").onclick = () => load({ more: true });
$("connection").onchange = () => {
  Object.assign(state, { batches: [], hasMore: false });
  state.selected.clear();
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
setInterval(() => {
  if (document.visibilityState === "visible" && !$("dialog").open) load();
}, REFRESH_SECONDS * 1000);
start().catch(report);
