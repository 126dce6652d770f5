#!/usr/bin/env python3
"""Writes worker/model/html_entities.h: the character references of HTML 5, from Python's html.entities.

    python entities.py        # Python 3.11
"""
import html.entities
import pathlib

HEAD = '''/* The named character references of HTML 5, sorted by name; made by
 * tests/golden/tokenizer/entities.py. `bare`: also without its semicolon. */
#pragma once

static const struct html_entity {
    const char *name, *text;
    int bare;
} html_entities[] = {
    // clang-format off
'''


def quoted(text):
    return '"' + "".join(f"\\{b:03o}" if b >= 0x7F or b < 0x20 or chr(b) in '"\\' else chr(b) for b in text.encode()) + '"'


if __name__ == "__main__":
    names = sorted((n[:-1].encode(), t) for n, t in html.entities.html5.items() if n.endswith(";"))
    rows = [f"{{{quoted(n.decode())}, {quoted(t)}, {int(n.decode() in html.entities.html5)}}}," for n, t in names]
    lines, line = [], "   "
    for row in rows:
        if len(line) + 1 + len(row) > 100:
            lines.append(line)
            line = "   "
        line += " " + row
    text = HEAD + "\n".join(lines + [line]) + "\n    // clang-format on\n};\n"
    (pathlib.Path(__file__).parents[3] / "worker/model/html_entities.h").write_text(text)
    print(len(rows), "names,", len(text), "bytes")
