#!/usr/bin/env python3
"""Checks the repository's prose: sentences of at most 20 words, in the field's words.

    python3 tools/check_prose.py [FILE...]

Markdown has one sentence a line. Its code and headings are free. A table's cell may have several
sentences. In source files the comments are checked, except code in them. Code in backticks counts
as one word, and a link as its text. Private words that a standard term has replaced are faults too.
"""

import re
import subprocess
import sys
from pathlib import Path

MOST_WORDS = 20
# A comment's text by the suffix of its file.
SLASHES = re.compile(r"^\s*(?://[/!]?|/?\*+)(?!/) ?(.*?)(?:\*/)?$")
HASHES = re.compile(r"^\s*#(?!!) ?(.*)$")
COMMENTS = dict.fromkeys((".rs", ".wgsl", ".ts", ".mjs", ".cpp"), SLASHES)
COMMENTS |= dict.fromkeys((".py", ".sh", ".toml", ".yml"), HASHES)
MOST_GLOSSARY_WORDS = 40

# Periods that end no sentence.
ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|No)\.", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?][\"'”)\]*_]*(?=\s)")
LIST_MARKER = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+(?:\[[ x]\]\s+)?")

# Folders whose paths in documents must exist.
TOP_FOLDERS = "assets benches build docs examples findings fuzz shaders src tests tools".split()

# Private words, and the standard term for each.
REPLACED = {
    r"\bso many\b": "a number",
    r"\bwhat stands\b": "a noun",
    r"\b(is|are|was|were) told\b": "a plain verb",
    r"\b(lies|lie) in\b": "is in",
    r"\b(chained|chain kernel|chain=)": "persistent kernel",
    r"\bjoints\b": "fused projections",
    r"\bsquads?\b": "cluster",
    r"\boctets?\b": "vec8",
    r"\bseam kernel\b": "add_rms_norm",
    r"\bscratch buffers?\b": "workspace",
}


def visible(text):
    """The text as a reader sees it: code is one word, a link is its text."""
    text = re.sub(r"`[^`]*`", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return ABBREVIATIONS.sub(lambda match: match.group().replace(".", "·"), text)


def sentences(text):
    """The sentences of a text."""
    found, start = [], 0
    for end in SENTENCE_END.finditer(text):
        found.append(text[start : end.end()].strip())
        start = end.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def words(sentence):
    """How many words a sentence has; signs alone are none."""
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


def faults_of_text(text, alone):
    """What is wrong with a line of prose, or a cell of a table where `alone` is false."""
    text = visible(text).strip()
    parts = sentences(text)
    if alone and len(parts) > 1:
        yield f"{len(parts)} sentences in a line"
    for part in parts:
        if words(part) > MOST_WORDS:
            yield f"a sentence of {words(part)} words: {part[:60]}…"
    for pattern, term in REPLACED.items():
        if found := re.search(pattern, text, re.IGNORECASE):
            yield f"“{found.group()}”: write {term}"


def paragraphs(lines, comment):
    """Pairs of a line's number and a paragraph of comments that begins there."""
    text, start, fenced = "", 0, False
    for number, line in enumerate([*lines, ""], 1):
        match = comment.match(line)
        found = match.group(1).rstrip() if match else ""
        fence = found.lstrip().startswith("```")
        fenced = (fenced != fence) if match else False
        # An indented line, an item of a list and a row of a table are paragraphs of their own.
        apart = not found.strip() or fenced or fence or found.startswith(("  ", "- ", "* ", "|"))
        if text and apart:
            yield start, text
            text = ""
        if found.strip() and not (fenced or fence or found.startswith("    ")):
            start = start if text else number
            text = f"{text} {found.strip()}".strip()


def comment_faults(lines, comment):
    """Pairs of a line's number and a fault of the comments there."""
    for number, text in paragraphs(lines, comment):
        yield from ((number, fault) for fault in faults_of_text(text, False))


def missing_paths(file, root, text):
    """Links to files, and paths in backticks, that do not exist."""
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in link and not (file.parent / link).exists():
            yield f"there is no {link}"
    for path in re.findall(r"`([\w.-]+/[\w./-]+)`", text):
        if path.split("/")[0] in TOP_FOLDERS and not (root / path).exists():
            yield f"there is no {path}"


def is_code(line, previous, in_list):
    """Whether a line belongs to an indented code block."""
    return not in_list and line.startswith("    ") and (not previous or previous.startswith("    "))


def faults(lines):
    """Pairs of a line's number and a fault."""
    fenced = in_list = commented = False
    front_matter = lines[:1] == ["---"]
    previous, unfinished = "", None
    for number, line in enumerate(lines, 1):
        if front_matter:
            front_matter = number == 1 or line != "---"
            continue
        if line.lstrip().startswith("```"):
            fenced = not fenced
        hidden = commented or line.lstrip().startswith("<!--")
        commented = hidden and "-->" not in line
        marker = LIST_MARKER.match(line)
        in_list = bool(marker) or (in_list and (not line.strip() or line.startswith(" ")))
        prose = not (
            fenced
            or hidden
            or not line.strip()
            or line.lstrip().startswith(("#", "|", "```"))
            or is_code(line, previous, in_list)
        )
        previous = line
        if line.lstrip().startswith("|"):
            for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")):
                yield from ((number, fault) for fault in faults_of_text(cell, False))
        if unfinished and prose and not marker:
            yield unfinished, "a sentence goes on in the next line"
        unfinished = None
        if prose:
            text = line[marker.end() :] if marker else line.strip().lstrip("> ")
            yield from ((number, fault) for fault in faults_of_text(text, True))
            if not re.search(r"[.!?:][\"'”)*_]*$", text.rstrip()):
                if not marker:
                    yield number, "a line that is no whole sentence"
                unfinished = number


def glossary_faults(lines):
    """The glossary has few words, one sentence each."""
    entries = [line for line in lines if line.startswith("| ")][1:]
    if len(entries) > MOST_GLOSSARY_WORDS:
        yield 1, f"{len(entries)} words, more than {MOST_GLOSSARY_WORDS}"
    if not entries:
        yield 1, "no table of words"
    for entry in entries:
        meaning = entry.strip().strip("|").split("|")[1]
        if len(sentences(visible(meaning).strip())) != 1:
            yield lines.index(entry) + 1, "a word's meaning is one sentence"


def main():
    root = Path(__file__).resolve().parent.parent
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True
    )
    files = [Path(name) for name in sys.argv[1:]] or [root / name for name in listed.stdout.split()]
    files = [file for file in files if file.suffix == ".md" or file.suffix in COMMENTS]
    count = 0
    for file in files:
        lines = file.read_text().split("\n")
        comment = COMMENTS.get(file.suffix)
        found = list(comment_faults(lines, comment) if comment else faults(lines))
        if file.name == "glossary.md":
            found += glossary_faults(lines)
        if file.suffix == ".md":
            for number, line in enumerate(lines, 1):
                found += ((number, fault) for fault in missing_paths(file.resolve(), root, line))
        for number, fault in found:
            print(
                f"{file.relative_to(root) if file.is_relative_to(root) else file}:{number}: {fault}"
            )
        count += len(found)
    if not files:
        sys.exit("no files found")
    if count:
        sys.exit(f"{count} faults in the prose")


if __name__ == "__main__":
    main()
