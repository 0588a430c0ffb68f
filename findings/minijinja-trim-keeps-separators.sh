#!/usr/bin/env bash
# Guess: the filter trim of minijinja and of jinja2 removes the same white space from a message.
# Seen: they differ in the four separators U+001C to U+001F.
#   Python counts them as white space, Unicode and Rust do not.
#   Gemma's chat templates trim each message, so a Rust renderer gives such a prompt other tokens.
#   Both agree on the no-break space and on U+0085.
# Versions: minijinja 3.1.0 (its Python package), jinja2 3.1.6.
# Output seen:
#   U+000B jinja2 1 minijinja 1
#   U+001C jinja2 1 minijinja 2
#   U+001D jinja2 1 minijinja 2
#   U+001E jinja2 1 minijinja 2
#   U+001F jinja2 1 minijinja 2
#   U+0085 jinja2 1 minijinja 1
#   U+00A0 jinja2 1 minijinja 1
#   U+200B jinja2 2 minijinja 2
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q --disable-pip-version-check minijinja==3.1.0 jinja2==3.1.6
"$scratch/venv/bin/python" - <<'PYTHON'
import jinja2, minijinja

template = "{{ content | trim | length }}"
python, rust = jinja2.Environment().from_string(template), minijinja.Environment()
differ = []
for code in (0x0B, 0x1C, 0x1D, 0x1E, 0x1F, 0x85, 0xA0, 0x200B):
    content = "x" + chr(code)
    left, right = python.render(content=content), rust.render_str(template, content=content)
    print(f"U+{code:04X} jinja2 {left} minijinja {right}")
    if left != right:
        differ.append(code)
assert differ == [0x1C, 0x1D, 0x1E, 0x1F]
PYTHON
