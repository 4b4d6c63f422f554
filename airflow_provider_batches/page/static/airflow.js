// What the page needs of the Airflow around it: looks, time zone, links and the REST API.

const outer = (() => {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null;
  }
})();
/** Airflow's base URL, below which the page is mounted. */
const base = new URL("../", location.href);

const VARIABLES = ["bg", "bg-subtle", "bg-muted", "fg", "fg-muted", "fg-info", "border", "brand-solid"]
  .concat(["success", "failed", "running", "deferred", "skipped", "up_for_retry"].map((name) => `${name}-solid`))
  .map((name) => `--chakra-colors-${name}`)
  .concat("--chakra-fonts-body", "--chakra-fonts-mono");

/** Look as Airflow does, and follow when its user switches the theme or the language. */
export function followTheme() {
  const own = document.documentElement;
  const other = outer?.document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    own.classList.toggle("dark", other ? other.classList.contains("dark") : dark.matches);
    if (!other) return;
    own.lang = other.lang || "en";
    const style = outer.getComputedStyle(other);
    for (const name of VARIABLES) own.style.setProperty(name, style.getPropertyValue(name));
  };
  follow();
  if (other) new MutationObserver(follow).observe(other, { attributes: true, attributeFilter: ["class", "style", "lang"] });
  else dark.addEventListener("change", follow);
}

/** Open Airflow's own pages in Airflow instead of in this frame: its router follows the history. */
export function openLinksInAirflow() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || !outer || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    outer.history.pushState(null, "", link.href);
    outer.dispatchEvent(new PopStateEvent("popstate", { state: null }));
  });
}

const timeZone = () => {
  try {
    return JSON.parse(localStorage.getItem("timezone")) ?? undefined;
  } catch {
    return undefined;
  }
};

const formats = new Map();

/** Return a formatter of `Intl`; making one for each cell of a long table would take seconds. */
function format(kind, options) {
  const { lang } = document.documentElement;
  const key = JSON.stringify([kind, lang, options]);
  if (!formats.has(key)) formats.set(key, new Intl[kind](lang, options));
  return formats.get(key);
}

/** Return a time as a text, in the time zone of Airflow's UI. */
export function absolute(time) {
  try {
    return format("DateTimeFormat", { dateStyle: "medium", timeStyle: "long", timeZone: timeZone() }).format(new Date(time));
  } catch {
    return time;
  }
}

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

/** Return a time relative to now, such as "3 hours ago". */
export function relative(time) {
  const seconds = (new Date(time) - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? ["second", 1];
  return format("RelativeTimeFormat", {}).format(Math.round(seconds / size), unit);
}

export const runLink = (dagId, runId) => new URL(`dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(runId)}`, base).href;

export const taskLink = ({ dag_id, run_id, task_id, map_index }) =>
  `${runLink(dag_id, run_id)}/tasks/${encodeURIComponent(task_id)}${map_index >= 0 ? `/mapped/${map_index}` : ""}`;

/** Return the JSON that the page's own server side, or Airflow's REST API (`api/v2/...`), answers. */
export async function request(path, query = {}, body = undefined) {
  const url = new URL(path, path.startsWith("api/v2/") ? base : location.href);
  url.search = "";
  for (const [name, value] of Object.entries(query))
    for (const each of [value].flat()) if (each !== null && each !== undefined) url.searchParams.append(name, each);
  const headers = { accept: "application/json", ...(body && { "content-type": "application/json" }) };
  let response;
  try {
    response = await fetch(url, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  } catch {
    throw Object.assign(new Error("Airflow's API server does not answer."), { status: 0 });
  }
  const text = await response.text();
  let found = null;
  try {
    found = JSON.parse(text);
  } catch {
    // A proxy's page, for example.
  }
  if (response.ok && found) return found;
  const detail = found?.detail ?? `${response.status} ${response.statusText}`;
  throw Object.assign(new Error(typeof detail === "string" ? detail : JSON.stringify(detail)), { status: response.status });
}
