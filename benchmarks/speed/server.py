# SPDX-License-Identifier: Apache-2.0
"""What HTTP adds to inference, how soon a stream begins, and whether eight clients are served alike.

    python benchmarks/speed/server.py [--bundle B] [--requests N] [--json results.json]

Starts `mobilevlm serve` in a process of its own and asks it over loopback, with plain HTTP and with the
official `openai` client.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import openai

ROOT = Path(__file__).parents[2]
QUESTION = "What is in the image?"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bundle", default="")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "road.png")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--many", type=int, default=10_000, help="requests over which memory is watched")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--node", action="store_true", help="first token of a node, and of --ros before it")
    args = parser.parse_args()
    if args.node:
        print(json.dumps({"machine": machine(), **beside_a_node(args.requests)}, indent=1))
        return
    data = base64.b64encode(args.picture.read_bytes()).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    content = [picture, {"type": "text", "text": QUESTION}]
    with serving(args.bundle) as (port, process):
        api = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        model = api.models.list().data[0].id
        body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 32}
        results: dict[str, Any] = {"machine": machine(), "model": model}
        results["first question"], results["second question"] = first_and_second(port, body)
        results["overhead"] = overhead(port, body, args.requests)
        results["first token"] = first_token(api, body, args.requests)
        results["eight clients"] = eight_clients(port, body, args.requests)
        results["memory"] = memory(port, body, args.many, process.pid)
    print(json.dumps(results, indent=1))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


@contextmanager
def serving(bundle: str, *options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The port and process of a server."""
    command = [sys.executable, "-m", "mobilevlm_ros.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, *options, *(["--bundle", bundle] if bundle else [])], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        found = re.search(r"serving http://127.0.0.1:(\d+)", process.stderr.readline())
        assert found is not None, process.stderr.read()
        yield int(found.group(1)), process
    finally:
        process.terminate()
        process.wait(20)


def post(connection: http.client.HTTPConnection, body: Any) -> Any:
    """The completion of a request over a connection that stays open."""
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    told = json.loads(response.read())
    assert response.status == 200, told
    return told


def first_and_second(port: int, body: Any) -> tuple[Any, Any]:
    """A question about a picture that the server has not seen, and another one about the same."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    told = []
    for question in (QUESTION, "Is there a person?"):
        picture = body["messages"][0]["content"][0]
        messages = [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]
        start = perf_counter()
        completion = post(connection, {**body, "messages": messages})
        details = completion["usage"]["prompt_tokens_details"]
        told.append(
            {
                "ms": 1e3 * (perf_counter() - start),
                "answer": completion["choices"][0]["message"]["content"],
                "prompt_tokens": completion["usage"]["prompt_tokens"],
                "cached_tokens": details["cached_tokens"],
            }
        )
    return told[0], told[1]


def overhead(port: int, body: Any, requests: int) -> Any:
    """Milliseconds of the round trip that are not inference (encode, prefill, decode)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    added, inference = [], []
    for _ in range(requests):
        start = perf_counter()
        latency = post(connection, body)["mobilevlm"]["latency"]
        seconds = sum(latency[part] for part in ("encode", "prefill", "decode"))
        added.append(1e3 * (perf_counter() - start - seconds))
        inference.append(1e3 * seconds)
    return {"added ms": summary(added), "inference ms": summary(inference)}


def first_token(api: openai.OpenAI, body: Any, requests: int) -> Any:
    """Milliseconds to the first text of a stream, with the official client."""
    times = []
    for _ in range(requests):
        start = perf_counter()
        stream = api.chat.completions.create(**body, stream=True)
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                times.append(1e3 * (perf_counter() - start))
                break
        for _ in stream:
            pass
    return {"ms": summary(times)}


def beside_a_node(requests: int) -> Any:
    """Milliseconds to the first text: of the node's action, and of `serve --ros` with the official client."""
    import asyncio

    from mobilevlm_ros.ros.resources import private_environment

    os.environ.update(private_environment(dict(os.environ)))
    from mobilevlm_ros.client import AsyncAskImageClient

    async def of_the_node() -> list[float]:
        times = []
        async with AsyncAskImageClient() as client:
            await client.wait_for_node(60)
            for _ in range(requests):
                start, first = perf_counter(), 0.0
                async for _ in client.stream(QUESTION, wait_for_frame=20.0):
                    first = first or perf_counter() - start
                times.append(1e3 * first)
        return times

    modules = ("mobilevlm_ros.nodes.camera_node", "mobilevlm_ros.nodes.mobilevlm_node")
    commands = [[sys.executable, "-m", module] for module in modules]
    commands[1] += ["--ros-args", "-p", "caption_rate:=0.0"]
    nodes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    try:
        node = asyncio.run(of_the_node())
        with serving("", "--ros") as (port, _):
            api = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
            body = {"model": "nano", "messages": [{"role": "user", "content": QUESTION}]}
            return {"node's action": {"ms": summary(node)}, "serve --ros": first_token(api, body, requests)}
    finally:
        for process in nodes:
            process.terminate()
            process.wait(20)


def eight_clients(port: int, body: Any, requests: int) -> Any:
    """Answers per second of eight clients that ask without a pause, and how unlike they are served."""

    def ask(_: int) -> tuple[int, float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        count, slowest = 0, 0.0
        while perf_counter() < end:
            start = perf_counter()
            post(connection, body)
            slowest = max(slowest, perf_counter() - start)
            count += 1
        return count, slowest

    begin = perf_counter()
    end = begin + max(2.0, requests / 40)
    with ThreadPoolExecutor(8) as pool:
        served = list(pool.map(ask, range(8)))
    counts = [count for count, _ in served]
    return {
        "answers per second": sum(counts) / (perf_counter() - begin),
        "fewest and most answers of a client": [min(counts), max(counts)],
        "slowest answer ms": 1e3 * max(slowest for _, slowest in served),
    }


def memory(port: int, body: Any, requests: int, process: int) -> Any:
    """Resident memory of the server in MiB, after each tenth of the requests."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    short = {**body, "max_tokens": 1}
    seen = []
    for at in range(requests):
        post(connection, short)
        if at % max(1, requests // 10) == 0:
            seen.append(resident(process))
    return {"requests": requests, "MiB": [*seen, resident(process)]}


def resident(process: int) -> int:
    """MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def summary(values: list[float]) -> Any:
    """Median and 95th percentile."""
    cuts = statistics.quantiles(values, n=20)
    return {"median": round(statistics.median(values), 2), "p95": round(cuts[-1], 2)}


def machine() -> str:
    """The processor and how many cores."""
    info = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*:\s*(.*)", info)
    return f"{found.group(1) if found else platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
