// SPDX-License-Identifier: Apache-2.0
// Standing questions: a lamp, the probability of yes now, and how it went lately.

const LENGTH = 120; // probabilities of a sparkline
const SVG = "http://www.w3.org/2000/svg";
const rows = new Map(); // by camera and name

function element(tag, className = "") {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}

function line(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function newRow(monitor) {
  const row = { item: element("li"), name: element("span"), question: element("small"), percent: element("span", "percent") };
  const words = element("span");
  words.append(row.name, row.question);
  const spark = line("svg", { viewBox: `0 0 ${LENGTH} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const height = 100 * (1 - monitor.threshold_up);
  row.curve = line("polyline", { points: "" });
  spark.append(line("line", { x1: 0, x2: LENGTH, y1: height, y2: height }), row.curve);
  row.item.append(element("span", "lamp"), words, spark, row.percent);
  row.history = [];
  return row;
}

export function showMonitors(monitors) {
  document.getElementById("monitors").hidden = monitors.length === 0;
  for (const monitor of monitors) {
    const key = `${monitor.camera}\n${monitor.name}`;
    if (!rows.has(key)) {
      rows.set(key, newRow(monitor));
      document.getElementById("lamps").append(rows.get(key).item);
    }
    const row = rows.get(key);
    row.item.className = monitor.state;
    row.item.dataset.monitor = monitor.name;
    row.item.setAttribute("aria-label", `${monitor.name} is ${monitor.state}`);
    row.name.textContent = monitor.camera ? `${monitor.name} (${monitor.camera})` : monitor.name;
    row.question.textContent = monitor.probability === null ? monitor.message : monitor.question;
    row.percent.textContent = monitor.probability === null ? "?" : `${Math.round(100 * monitor.probability)} %`;
    if (monitor.heard !== row.heard && monitor.probability !== null) {
      row.heard = monitor.heard;
      row.history = [...row.history, monitor.probability].slice(-LENGTH);
      const start = LENGTH - row.history.length;
      row.curve.setAttribute("points", row.history.map((p, at) => `${start + at},${98 - 96 * p}`).join(" "));
    }
  }
}
