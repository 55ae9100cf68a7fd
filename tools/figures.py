# SPDX-License-Identifier: Apache-2.0
"""Figures in README and docs come from the files in benchmarks/results, so that they cannot drift.

    python tools/figures.py            # writes them into the pages
    python tools/figures.py --check    # says which pages differ, exit status 1; a test does this

A page names a figure with `<!-- figure: NAME -->...<!-- /figure -->`, around a table or a few words.
NAME is a function below.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from result_tables import results, row, soak_sentence, table  # noqa: E402

FIGURES: dict[str, Callable[[], str]] = {}
_MARK = re.compile(r"(<!-- figure: (\w+) -->)(.*?)(<!-- /figure -->)", re.DOTALL)


def figure(function: Callable[[], str]) -> Callable[[], str]:
    """Registers what makes a figure."""
    FIGURES[function.__name__] = function
    return function


@figure
def full_size() -> str:
    """Models of full size: build, memory, times."""
    tables = results("full_size.md")
    lines = []
    for model, encoder in (
        ("MobileVLM_V2-1.7B", "fp16"),
        ("MobileVLM_V2-1.7B", "int8"),
        ("MobileVLM_V2-3B", "fp16"),
        ("MobileVLM_V2-3B", "int8"),
    ):
        was = row(tables, "build s", model=model, encoder=encoder)
        first = float(was["encode s"]) + float(was["prefill s"])
        lines.append(
            [
                model,
                "fp16" if encoder == "fp16" else "`--vision int8`",
                f"{was['build s']} s",
                f"{was['build GiB']} GiB",
                f"{was['bundle GB']} GB",
                f"{was['serve GiB']} GiB",
                f"{first:.1f} s",
                f"{float(was['second question, to first token s']):.2f} s",
                f"{was['decode ms/token']} ms/token",
            ]
        )
    large, built = (row(tables, c, model="MobileVLM_V2-7B") for c in ("load s", "wall s"))
    first = float(large["encode s"]) + float(large["prefill s"])
    lines.append(
        [
            "MobileVLM_V2-7B",
            "`--vision int8`",
            f"{built['wall s']} s",
            f"{built['greatest memory GiB']} GiB",
            f"{built['bundle GB']} GB",
            f"{large['serve GiB']} GiB",
            f"{first:.1f} s",
            f"{large['second question, to first token s']} s",
            f"{large['decode ms/token']} ms/token",
        ]
    )
    head = ["model", "encoder", "build", "memory to build", "bundle", "memory to serve"]
    return table([*head, "first question, to first token", "second", "decode"], lines)


@figure
def default_build() -> str:
    """A build of 1.7B that rounds to nearest, its comparison included."""
    found = row(results("full_size.md"), "wall s", model="MobileVLM_V2-1.7B", options="`--quantize rtn`")
    return f"{found['wall s']} s and {found['greatest memory GiB']} GiB"


@figure
def nano_bundle_size() -> str:
    """Bytes of all files of the shipped bundle."""
    files = (ROOT / "models" / "nano" / "bundle").iterdir()
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


@figure
def demo_truth() -> str:
    """Right answers of the demo's questions on many scenes."""
    found = results("demo_seeds.md")[-1][0]
    return f"{found['true']} of {found['answers']}"


_ENGINES = {
    "ours, default": "ours, default (blocks of 32, output layer 8 bits)",
    "ours block 32": "ours, blocks of 32",
    "ours block 128": "ours, blocks of 128",
    "ours block 128, spinning": "ours, blocks of 128, spinning",
    "ours block 128, int8 prefill": "ours, blocks of 128, `--prefill int8`",
}


@figure
def llama_cpp() -> str:
    """Speed and memory beside llama.cpp."""
    measured = results("vs_llama_cpp.json")

    def middle(runs: list[dict[str, Any]]) -> tuple[float, float, float]:
        prefill = median(measured["prompt_tokens"] / s for run in runs for s in run["prefill"])
        decode = median(measured["decoded_tokens"] / s for run in runs for s in run["decode"])
        return prefill, decode, max(run["memory"]["peak"] for run in runs)

    base = middle(measured["runs"]["llama.cpp Q4_0"])
    known = ["llama.cpp Q4_0", "llama.cpp Q4_K_M", *_ENGINES]
    order = sorted(measured["runs"], key=lambda name: known.index(name) if name in known else len(known))
    lines = []
    for name in order:
        values = middle(measured["runs"][name])
        shown = (f"{values[0]:.0f}", f"{values[1]:.1f}", f"{values[2]:.0f}")
        ratios = ["1" if name == known[0] else f"{a / b:.2f}" for a, b in zip(values, base)]
        lines.append([_ENGINES.get(name, name), *(cell for pair in zip(shown, ratios) for cell in pair)])
    head = ["engine", "prefill tok/s", "x Q4_0", "decode tok/s", "x Q4_0", "peak MiB", "x Q4_0"]
    return table(head, lines)


@figure
def frame_batch() -> str:
    """Seconds for several yes/no questions about one new picture."""
    names = {"block32": "blocks of 32", "block128": "blocks of 128"}
    names["block128-prefill8"] = "blocks of 128, `--prefill int8`"
    measured = results("frame_batch.json")["bundles"]
    lines = []
    for name in sorted(measured, key=lambda n: list(names).index(n) if n in names else len(names)):
        seconds = {int(count): median(s) for count, s in measured[name]["questions"].items()}
        one = seconds[1]
        cells = [
            f"{s:.2f}" if count == 1 else f"{s:.2f} ({s / one:.2f} x)" for count, s in sorted(seconds.items())
        ]
        lines.append([names.get(name, name), *cells])
    counts = sorted(int(count) for count in next(iter(measured.values()))["questions"])
    return table(["bundle", *map(str, counts)], lines)


@figure
def damaged_pictures() -> str:
    """How many damaged pictures pass for whole, and how many of those look damaged."""
    passed = results("damaged_pictures.json")["passed for whole"]
    groups = (
        ("jpeg", "jpeg 4:4:4", "jpeg with restarts", "jpeg optimised"),
        ("jpeg progressive",),
        ("webp", "webp lossless"),
        ("png",),
    )

    def cell(group: tuple[str, ...], damage: str) -> str:
        pairs = [re.findall(r"(\d+) of \d+, visible (\d+)", passed[name][damage])[0] for name in group]
        count, visible = (sum(int(pair[i]) for pair in pairs) for i in (0, 1))
        return f"{count}, {visible} visible" if count else "none"

    names = {
        "cut": "cut short",
        "rest zeroed": "everything from some place on zeroed",
        "packet of 200 to 1500 bytes lost": "200 to 1 500 bytes lost",
        "200 to 1500 bytes zeroed": "200 to 1 500 bytes zeroed",
        "1 to 199 bytes lost": "1 to 199 bytes lost",
        "200 to 1500 bytes overwritten": "200 to 1 500 bytes overwritten with noise",
        "one bit wrong": "one wrong bit",
    }
    head = ["passes for whole, after", "JPEG (baseline, four kinds), of 800", "progressive JPEG, of 200"]
    head += ["WebP (two kinds), of 400", "PNG, of 200"]
    return table(head, [[text, *(cell(group, damage) for group in groups)] for damage, text in names.items()])


@figure
def quantisation() -> str:
    """Answers and divergence of 4-bit language models of nano, at 16 and 4 levels."""
    told = {
        "": "simulated scenes with their questions and answers",
        "scenes": "simulated scenes as mere pictures, general questions",
        "photos": "photographs (another world than the exam's)",
    }
    cells: dict[tuple[int, str], dict[int, str]] = {}
    for run in results("quantisation.json")["runs"]:
        found = re.search(r"--calibration (\w+)", run["command"])
        for measured in run["rows"]:
            if measured["method"] == "gptq" and measured["samples"] != 64:
                continue
            method = "rtn" if measured["method"] == "rtn" else f"gptq, {told[found[1] if found else '']}"
            kl = measured["mean_kl"]
            amount = f"{kl:.1e}".replace("e-0", "e-") if kl < 1e-3 else f"{kl:.4f}"
            text = f"{measured['equal']} of {measured['questions']}, {amount}"
            cells.setdefault((measured["levels"], method), {})[measured["block_size"]] = text
    head = ["levels", "method, calibrated on", "block 32: equal answers, mean KL", "block 128"]
    order = ["rtn", *(f"gptq, {text}" for text in told.values())]
    keys = sorted(cells, key=lambda key: (-key[0], order.index(key[1])))
    return table(head, [[str(k[0]), k[1], cells[k].get(32, ""), cells[k].get(128, "")] for k in keys])


@figure
def language_quality() -> str:
    """What 4 bits cost a real language model."""
    lines = [
        [
            r["method"],
            str(r["block_size"]),
            f"{r['perplexity_ratio']:.3f} x",
            f"{r['kl']:.3f}",
            f"{r['same_top']:.1%}",
        ]
        for r in results("language_quality.json")["rows"]
    ]
    head = ["method", "block", "perplexity, beside 32-bit floats", "KL, nats", "same most likely token"]
    return table(head, [[c.replace("%", " %") for c in line] for line in lines])


@figure
def growth() -> str:
    """One token behind a context, and a prompt, by their length."""
    found = results("growth.json")
    columns = {r["context"]: [f"{r['ms']:.1f}", ""] for r in found["decode"]}
    for r in found["prefill"]:
        columns.setdefault(r["prompt"], ["", ""])[1] = f"{r['seconds']:.2f}"
    lines = [["one token behind it, ms"], ["reading it as a prompt, s"]]
    for length in sorted(columns):
        lines = [[*line, cell] for line, cell in zip(lines, columns[length])]
    return table(["tokens", *map(str, sorted(columns))], lines)


@figure
def presets() -> str:
    """What `mobilevlm build --preset` does to size and speed of a 1.7B model's matrices."""
    from mobilevlm_ros.export.presets import DEFAULT, PRESETS

    head = 32000 * 2048 / (32000 * 2048 + 24 * (4 * 2048**2 + 3 * 2048 * 5632))  # share of the weights
    rows = [r for r in results("matrices.json")["rows"] if not r["zero_points"]]
    time = {(r["tokens"], r["bits"], r["block_size"]): r["ratio"] for r in rows}
    lines = []
    for name, (size, _) in PRESETS.items():
        bits = (1 - head) * 4 + head * 8 + 16 / size
        one = (1 - head) * time[1, 4, size] + head * time[1, 8, min(size, 64)]  # 8 bits: the nearest measured
        shown = f"`{name}`" + " (default)" * (name == DEFAULT)
        lines.append([shown, str(size), f"{bits:.2f}", f"{one:.2f}", f"{time[196, 4, size]:.2f}"])
    head_line = "`--preset`|weights that share a scale|bits per weight|products of a token|of 196 tokens"
    return table(head_line.split("|"), lines)


@figure
def published() -> str:
    """Scores that the authors print."""
    from mobilevlm_ros.evaluation.report.published import COLUMNS, PUBLISHED

    lines = [[r.name, *(f"{r.scores[c]}" for c in COLUMNS), f"{r.average():.1f}"] for r in PUBLISHED]
    head = ["model", "GQA", "SQA-I", "VQA-T", "POPE", "MME-P", "MMB-dev", "average"]
    return table(head, [line for line in lines if line[0].startswith("MobileVLM")])


FIGURES["soak"] = lambda: soak_sentence(results("soak.json"))


def pages() -> list[Path]:
    """Where figures stand."""
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), ROOT / "models" / "nano" / "README.md"]


def filled(text: str) -> str:
    """A page with its figures made anew. Raises KeyError for a name that has no function."""
    return _MARK.sub(lambda match: f"{match[1]}{FIGURES[match[2]]()}{match[4]}", text)


def main() -> int:
    """Writes or checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 where a page differs"
    )
    check = parser.parse_args().check
    status = 0
    for page in pages():
        before = page.read_text(encoding="utf-8")
        if (after := filled(before)) == before:
            continue
        if check:
            name = page.relative_to(ROOT)
            print(f"{name}: figures differ from benchmarks/results: run python tools/figures.py")
            status = 1
        else:
            page.write_text(after, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: written")
    return status


if __name__ == "__main__":
    sys.exit(main())
