// SPDX-License-Identifier: Apache-2.0
// How the page talks to the server.

let token = sessionStorage.getItem("token") || "";
let asking = null;

function askForToken() {
  const door = document.getElementById("door");
  asking ??= new Promise((resolve) => {
    door.showModal();
    door.onclose = () => {
      token = document.getElementById("token").value;
      sessionStorage.setItem("token", token);
      asking = null;
      resolve();
    };
  });
  return asking;
}

// A response that is fine; anything else is an Error with the server's own sentence.
export async function request(path, options = {}) {
  const sent = token;
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  if (response.status === 401) {
    if (sent === token) await askForToken();
    return request(path, options);
  }
  let message = `HTTP ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch { /* no error object: the status has to do */ }
  throw new Error(message);
}

// The JSON of each server-sent event, as it comes.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
