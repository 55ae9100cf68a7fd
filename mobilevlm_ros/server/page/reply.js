// SPDX-License-Identifier: Apache-2.0
// An answer: its text as it grows, how sure it is, and where the time went.

const $ = (id) => document.getElementById(id);
const PARTS = ["queue", "encode", "prefill", "decode", "other"];

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

export function beginReply(question) {
  $("reply").hidden = false;
  $("asked").textContent = question;
  $("answer").textContent = "";
  $("answer").className = "";
  $("bars").replaceChildren();
  $("confidence").hidden = $("latency").hidden = true;
}

export function growReply(text) {
  $("answer").textContent += text;
}

export function failReply(message) {
  $("answer").textContent = $("answer").textContent ? `${$("answer").textContent} (${message})` : message;
  $("answer").classList.add("failed");
}

// `told` is the field `mobilevlm` of the last chunk; `waited` are the seconds that the page waited.
export function endReply(told, waited) {
  if (told.abstained) {
    $("answer").textContent = `not sure; the best guess is: ${told.best_guess}`;
    $("answer").className = "unsure";
  }
  const odds = Object.entries(told.choice_probabilities);
  const best = Math.max(...odds.map(([, probability]) => probability));
  $("bars").replaceChildren(...odds.map(([choice, probability]) => bar(choice, probability, probability === best)));
  $("confidence").hidden = odds.length > 0;
  $("sure").value = told.confidence;
  $("sure-text").textContent = told.confidence.toFixed(2);
  latency(told.latency, waited);
}

function bar(choice, probability, best) {
  const row = element("div", best ? "bar best" : "bar");
  const track = element("div", "");
  const fill = element("i", "");
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  row.append(element("span", "", choice), track, element("span", "", `${(100 * probability).toFixed(1)} %`));
  return row;
}

function latency(split, waited) {
  const known = split.queue + split.encode + split.prefill + split.decode;
  const seconds = { ...split, other: Math.max(0, waited - known) };
  $("split").replaceChildren(...PARTS.map((part) => {
    const piece = element("i", part);
    piece.style.width = `${(100 * seconds[part]) / Math.max(waited, known)}%`;
    return piece;
  }));
  const words = PARTS.filter((part) => seconds[part] >= 0.0005).flatMap((part) => [
    element("span", `key ${part}`),
    `${part === "other" ? "the way there and back" : part} ${Math.round(1000 * seconds[part])} ms`,
  ]);
  $("split-text").replaceChildren(...words);
  $("split").setAttribute("aria-label", `${Math.round(1000 * waited)} ms: ${$("split-text").textContent}`);
  $("latency").hidden = false;
}
