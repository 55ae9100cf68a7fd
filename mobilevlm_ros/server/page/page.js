// SPDX-License-Identifier: Apache-2.0
// The page: live picture, captions and monitors as they come, questions and their answers.

import { events, request } from "./server_api.js";
import { showMonitors } from "./monitors.js";
import { beginReply, endReply, failReply, growReply } from "./reply.js";

const $ = (id) => document.getElementById(id);
const PERIOD = 100; // milliseconds between live pictures, at least
const view = {
  state: null, // what the server told last
  offset: 0, // seconds that the server's clock is ahead of ours
  picture: "", // data URL of a picture of the user's own
  stamp: 0n, // of the live picture
  url: "", // of its blob
  shown: -1, // the camera that the live picture is of
  answer: null, // AbortController of the question on its way
};

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const seen = () => !document.hidden;
const age = (seconds) => (seconds < 60 ? `${Math.max(0, seconds).toFixed(1)} s ago` : `${Math.round(seconds / 60)} min ago`);

async function untilSeen() {
  while (!seen()) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

// ---- what the server tells ------------------------------------------------------------------------------------

async function follow() {
  for (;;) {
    await untilSeen();
    const hidden = new AbortController();
    const leave = () => { if (!seen()) hidden.abort(); };
    document.addEventListener("visibilitychange", leave);
    try {
      const response = await request("api/events", { signal: hidden.signal });
      for await (const state of events(response)) show(state);
      throw new Error("the server ended the connection");
    } catch (error) {
      if (!hidden.signal.aborted) trouble(`No connection: ${error.message}`);
    } finally {
      document.removeEventListener("visibilitychange", leave);
    }
    await pause(1000);
  }
}

function show(state) {
  view.state = state;
  view.offset = state.now - Date.now() / 1000;
  trouble(state.ready ? "" : state.reason);
  if (state.model) $("model").textContent = `${state.model} on ${state.backend}`;
  showCameras(state.cameras);
  showMonitors(state.monitors);
  showCaption();
  const told = [];
  const { queue_length: queue, first_token_p50: first, decode_rate: rate, utilization: load } = state.numbers;
  if (first !== undefined) told.push(`first token ${Math.round(first * 1000)} ms`);
  if (rate !== undefined) told.push(`${Math.round(rate)} tokens/s`);
  if (load !== undefined) told.push(`busy ${Math.round(load * 100)} %`);
  if (queue) told.push(`${queue} waiting`);
  $("numbers").textContent = told.join(" · ");
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
  $("health").className = `dot ${text ? "bad" : "good"}`;
  $("health").setAttribute("aria-label", text ? "not ready" : "ready");
}

function showCameras(cameras) {
  const names = cameras.map((camera) => camera.name);
  const options = [...$("camera").options].map((option) => option.value);
  if (JSON.stringify(names) !== JSON.stringify(options)) {
    const before = $("camera").value;
    $("camera").replaceChildren(...names.map((name) => new Option(name || "default", name)));
    if (names.includes(before)) $("camera").value = before;
  }
  $("camera-label").hidden = names.length === 0;
  stage();
}

function showCaption() {
  const found = view.state?.captions.find((caption) => caption.camera === $("camera").value);
  $("caption").hidden = !found || Boolean(view.picture);
  if (!found) return;
  $("caption-text").textContent = found.text;
  const seconds = Date.now() / 1000 + view.offset - found.heard;
  $("caption-age").textContent = `${age(seconds)}, confidence ${found.confidence.toFixed(2)}`;
}

// ---- the picture ------------------------------------------------------------------------------------------------

const live = () => !view.picture && view.state?.cameras.length > 0;

function stage() {
  const something = Boolean(view.picture) || (live() && Boolean(view.url));
  $("picture").hidden = !something;
  $("empty").hidden = something || live();
  $("live").hidden = !view.picture || !view.state?.cameras.length;
  $("age").hidden = !live();
}

async function watch() {
  for (;;) {
    await untilSeen();
    if (!live()) {
      await pause(PERIOD);
      continue;
    }
    const camera = $("camera").value;
    const width = Math.round(Math.min(1280, $("stage").clientWidth * devicePixelRatio));
    const after = camera === view.shown ? view.stamp : -1n;
    try {
      const response = await request(`api/frame?camera=${encodeURIComponent(camera)}&after=${after}&width=${width}`);
      const blob = await response.blob();
      if (live() && camera === $("camera").value) {
        const before = view.url;
        view.url = URL.createObjectURL(blob);
        view.shown = camera;
        if (BigInt(response.headers.get("x-stamp")) !== view.stamp) view.arrived = Date.now();
        view.stamp = BigInt(response.headers.get("x-stamp"));
        $("picture").src = view.url;
        $("picture").alt = `what camera ${camera || "default"} sees now`;
        if (before) URL.revokeObjectURL(before);
        stage();
      }
      await pause(PERIOD);
    } catch (error) {
      $("age").textContent = error.message;
      await pause(1000);
    }
  }
}

function take(file) {
  if (!file || !file.type.startsWith("image/")) return;
  const reader = new FileReader();
  reader.onload = () => {
    view.picture = reader.result;
    $("picture").src = view.picture;
    $("picture").alt = `your picture ${file.name || ""}`;
    stage();
    showCaption();
    $("question").focus();
  };
  reader.readAsDataURL(file);
}

function backToLive() {
  view.picture = "";
  $("picture").src = view.url || "";
  stage();
}

// ---- questions --------------------------------------------------------------------------------------------------

async function ask() {
  const question = $("question").value.trim();
  if (!question) return;
  view.answer?.abort();
  const here = (view.answer = new AbortController());
  const choices = $("choices").value.split(",").map((choice) => choice.trim()).filter(Boolean);
  const text = { type: "text", text: question };
  const content = view.picture ? [{ type: "image_url", image_url: { url: view.picture } }, text] : [text];
  const body = { model: view.state?.name || "", messages: [{ role: "user", content }], stream: true };
  if (choices.length) body.choices = choices;
  if (!view.picture && $("camera").value) body["x-camera"] = $("camera").value;
  const begun = performance.now();
  beginReply(question);
  $("stop").hidden = false;
  try {
    const options = { method: "POST", body: JSON.stringify(body), signal: here.signal };
    const response = await request("v1/chat/completions", { ...options, headers: { "Content-Type": "application/json" } });
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      growReply(chunk.choices[0]?.delta.content || "");
      if (chunk.mobilevlm) endReply(chunk.mobilevlm, (performance.now() - begun) / 1000);
    }
  } catch (error) {
    failReply(here.signal.aborted ? "stopped" : error.message);
  } finally {
    if (view.answer === here) $("stop").hidden = true;
  }
}

// ---- hands ------------------------------------------------------------------------------------------------------

$("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("stop").addEventListener("click", () => view.answer?.abort());
$("choose").addEventListener("click", () => $("file").click());
$("other").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { take($("file").files[0]); $("file").value = ""; });
$("live").addEventListener("click", backToLive);
$("camera").addEventListener("change", () => { backToLive(); showCaption(); });
$("sample").addEventListener("click", async () => take(await (await request("page/sample.png")).blob()));
document.addEventListener("paste", (event) => take(event.clipboardData?.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}

function theme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = localStorage.theme = dark ? "light" : "dark";
}
if (localStorage.theme) document.documentElement.dataset.theme = localStorage.theme;
$("theme").addEventListener("click", theme);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") view.answer?.abort();
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey) return;
  if (event.key === "/") { event.preventDefault(); $("question").focus(); }
  if (event.key === "t") theme();
  const camera = $("camera").options[Number(event.key) - 1];
  if (camera) { $("camera").value = camera.value; $("camera").dispatchEvent(new Event("change")); }
});

setInterval(() => {
  showCaption();
  if (live() && view.arrived) $("age").textContent = `live · ${((Date.now() - view.arrived) / 1000).toFixed(1)} s`;
}, 250);
stage();
follow();
watch();
