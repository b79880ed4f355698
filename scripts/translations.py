"""The catalogues in locale/: what they lack, and their compiled files.

Run as `python scripts/translations.py missing` to list texts without a translation, or `update` to
add them, without one, to the catalogues, drop texts that are gone, and compile.
"""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel.messages import Catalog, Message
from babel.messages.extract import extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
LOCALE = ROOT / "locale"
PACKAGES = ("agentsite", "conversations", "realtime")
TEMPLATES = ("templates", "conversations/templates")
KEYWORDS = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
}
PLACEHOLDER = re.compile(r"%\(\w+\)s|%d|%s|\{\w*\}")

Id = str | tuple[str, str]


def list_texts() -> set[Id]:
    """Return all texts that are marked for translation; one with a plural is a pair."""
    return {text for source in _list_sources() for text in _extract(source)}


def _list_sources() -> Iterator[str]:
    """Yield Python code: modules, and templates as Django turns them into calls of `gettext`."""
    from django.utils.translation.template import templatize

    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield path.read_text()
    for folder in TEMPLATES:
        for path in (ROOT / folder).rglob("*.*"):
            code = templatize(path.read_text())
            # One call a line, without indentation: what is between the calls is no Python.
            calls = re.findall(
                r"\bn?gettext\((?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^'\")])*\)", code
            )
            yield "\n".join(calls)


def _extract(source: str) -> Iterator[Id]:
    code = io.BytesIO(source.encode())
    found: Any
    for _line, _function, found, _comments in extract_python(code, KEYWORDS, [], {}):
        if isinstance(found, str):
            yield found
        else:
            yield found[0], found[1]


def read_catalogue(folder: Path) -> Catalog:
    """Return the catalogue of a language; `folder` is its one in `LOCALE`."""
    with (folder / "LC_MESSAGES" / "django.po").open("rb") as file:
        return read_po(file, locale=folder.name)


def list_languages() -> list[Path]:
    """Return the folders of all catalogues."""
    return sorted(path for path in LOCALE.iterdir() if path.is_dir())


def list_faults(catalogue: Catalog, texts: set[Id]) -> Iterator[str]:
    """Yield what is wrong with a catalogue: texts that it lacks, and translations of another shape.

    A translation must have the placeholders of its text; of a plural, each form but those for one
    and none must.
    """
    for text in sorted(texts, key=str):
        message = catalogue.get(text if isinstance(text, str) else text[0])
        if message is None or message.id != text or not _is_whole(message, catalogue.num_plurals):
            yield f"missing: {text!r}"
        elif not _has_placeholders(message):
            yield f"other placeholders: {text!r}"
    known = {message.id for message in catalogue if message.id}
    yield from (f"not used: {text!r}" for text in sorted(known - texts, key=str))


def _forms(message: Message) -> tuple[str, ...]:
    return (message.string,) if isinstance(message.string, str) else tuple(message.string or ())


def _is_whole(message: Message, plurals: int) -> bool:
    forms = _forms(message)
    return (
        all(forms) and not message.fuzzy and len(forms) == (plurals if message.pluralizable else 1)
    )


def _has_placeholders(message: Message) -> bool:
    wanted = message.id if isinstance(message.id, str) else message.id[1]
    expected = sorted(PLACEHOLDER.findall(wanted))
    forms = [sorted(PLACEHOLDER.findall(form)) for form in _forms(message)]
    if message.pluralizable:
        return forms[-1] == expected and all(set(form) <= set(expected) for form in forms)
    return forms == [expected]


def compile_catalogue(catalogue: Catalog) -> bytes:
    """Return the compiled catalogue, as Django reads it."""
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    return compiled.getvalue()


def update(folder: Path, texts: set[Id]) -> None:
    """Give a catalogue all `texts` and no others, and write its compiled file."""
    catalogue = read_catalogue(folder)
    for message in list(catalogue):
        if message.id and message.id not in texts:
            catalogue.delete(message.id)
    for text in texts:
        if catalogue.get(text if isinstance(text, str) else text[0]) is None:
            catalogue.add(text)
    place = folder / "LC_MESSAGES"
    with (place / "django.po").open("wb") as file:
        write_po(file, catalogue, width=100, sort_output=True, omit_header=False)
    (place / "django.mo").write_bytes(compile_catalogue(catalogue))


def main(arguments: list[str]) -> int:
    """Do what the argument says, see the module; return 1 if something is missing or wrong."""
    texts = list_texts()
    if arguments == ["update"]:
        for folder in list_languages():
            update(folder, texts)
    faults = [
        f"{folder.name}: {fault}"
        for folder in list_languages()
        for fault in list_faults(read_catalogue(folder), texts)
    ]
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
