#!/usr/bin/env python3
"""The tables of DICOM that dicom-validator reads, from a package in place of dicom.nema.org.

    pip download --no-deps dicom-standard && unzip dicom_standard-*.whl
    PYTHON scripts/dicom_standard.py dicom_standard-0.1.0.data/data/standard FOLDER
    PYTHON scripts/dicom-out-check ... --standard FOLDER

The package (innolitics, April 2020) has the modules of every object with types, conditions and values, which this writes
as the XML that dicom-validator parses. Only what segmentations and structure sets have is taken. Where dicom.nema.org can
be reached, dicom-validator fetches the standard itself, and this is not needed.
"""
import html
import json
import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import pydicom
from dicom_validator.spec_reader.edition_reader import EditionReader
from pydicom.datadict import DicomDictionary

EDITION = "2020b"
# Label maps came in 2024 as a second class of the same object.
OBJECTS = {"segmentation": ("A.51", "Segmentation", ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"]),
           "rt-structure-set": ("A.19", "RT Structure Set", ["1.2.840.10008.5.1.4.1.1.481.3"])}
CLASSES = [(chapter, title, uid) for chapter, title, uids in OBJECTS.values() for uid in uids]
BOOK = '<?xml version="1.0" encoding="UTF-8"?>\n<book xmlns="http://docbook.org/ns/docbook">\n{}\n</book>\n'


def described(text):
    """A description in HTML as docbook: paragraphs, and lists of values."""
    text = html.unescape(re.sub(r"<span href[^>]*>|</?td[^>]*>", "", text)).replace("\xa0", " ")
    out = []
    for piece in re.split(r"(<dl>.*?</dl>)", text, flags=re.S):
        if piece.startswith("<dl>"):
            terms = re.findall(r"<dt>(.*?)</dt>", piece, flags=re.S)
            terms = [re.sub(r"<[^>]+>", "", term).strip() for term in terms]
            title = re.sub(r"<[^>]+>", "", out.pop()).strip() if out else ""
            entries = "".join(f"<varlistentry><term>{escape(term)}</term><listitem><para/></listitem></varlistentry>"
                              for term in terms)
            out.append(f"<variablelist><title>{title}</title>{entries}</variablelist>")
        else:
            parts = re.findall(r"<p>(.*?)</p>", piece, flags=re.S)
            out += [f"<para>{escape(re.sub(r'<[^>]+>', '', part).strip())}</para>" for part in parts]
    return "".join(out)


def table(attributes, names):
    rows = []
    for attribute in attributes:
        depth = attribute["path"].count(":") - 1
        tag = attribute["tag"].upper()
        cells = (">" * depth + names.get(tag, "Unknown"), tag, attribute["type"])
        cells = "".join(f"<td><para>{escape(cell)}</para></td>" for cell in cells)
        rows.append(f"<tr>{cells}<td>{described(attribute['description'])}</td></tr>")
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def in_order(attributes):
    """Items behind their sequences."""
    children = {}
    for attribute in attributes:
        children.setdefault(attribute["path"].rsplit(":", 1)[0], []).append(attribute)

    def walk(path):
        for attribute in children.get(path, []):
            yield attribute
            yield from walk(attribute["path"])
    return walk


def mended(path):
    """The package takes what follows the anatomic region of an observation for a part of it (PS3.3, table C.8-44)."""
    start = "rt-roi-observations:"
    path = re.sub(f"^{start}00082228:(0062|3006|300a)", rf"{start}30060080:\1", path)
    return re.sub(f"^{start}(0008)", rf"{start}30060080:\1", path)


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])

    def load(name):
        return json.loads((source / name).read_text())
    tag_of = {f"({tag >> 16:04X},{tag & 0xffff:04X})": entry for tag, entry in DicomDictionary.items()}
    names = {tag: entry[2] for tag, entry in tag_of.items()}
    modules, macros = {}, {}
    for attribute in load("module_to_attributes.json"):
        attribute["path"] = mended(attribute["path"])
        modules.setdefault(attribute["moduleId"], []).append(attribute)
    for attribute in load("macro_to_attributes.json"):
        macros.setdefault(attribute["macroId"], []).append(attribute)
    sections, objects = [], ['<section label="A.1"><title>Introduction</title></section>']

    def section(kind, attributes):
        label = f"C.{len(sections) + 1}"
        walk = in_order(attributes)
        sections.append(f'<section label="{label}"><title>{kind}</title>{table(walk(kind), names)}</section>')
        return label

    def usage(of):
        statement = of["conditionalStatement"]
        return escape(of["usage"] + (f" - {statement}" if statement else ""))

    def row(name, label, of, entity=""):
        first = f"<td><para>{entity}</para></td>" if entity else ""
        return (f'<tr>{first}<td><para>{name}</para></td><td><para><xref linkend="sect_{label}"/></para></td>'
                f"<td><para>{usage(of)}</para></td></tr>")
    for object_id, (chapter, title, _) in OBJECTS.items():
        rows = [row(of["moduleId"], section(of["moduleId"], modules[of["moduleId"]]), of, "x")
                for of in load("ciod_to_modules.json") if of["ciodId"] == object_id and of["moduleId"] in modules]
        groups = [row(of["macroId"], section(of["macroId"], macros[of["macroId"]]), of)
                  for of in load("ciod_to_fg_macros.json") if of["ciodId"] == object_id and of["macroId"] in macros]
        objects.append(
            f'<section label="{chapter}"><title>{title} IOD</title>'
            f'<section label="{chapter}.1"><title>{title} IOD Module Table</title>'
            f"<table><tbody>{''.join(rows)}</tbody></table></section>"
            f'<section label="{chapter}.2"><title>{title} Functional Group Macros</title>'
            f"<table><tbody>{''.join(groups)}</tbody></table></section></section>")
    book = target / EDITION / "docbook"
    book.mkdir(parents=True, exist_ok=True)
    (target / EDITION / "json").mkdir(exist_ok=True)
    (book / "part03.xml").write_text(BOOK.format(
        f'<chapter label="A">{"".join(objects)}</chapter>\n<chapter label="C">{"".join(sections)}</chapter>'))
    rows = "".join(f'<tr><td><para>{title} Storage</para></td><td><para>{uid}</para></td><td><para>'
                   f'<olink targetptr="sect_{chapter}"/></para></td></tr>' for chapter, title, uid in CLASSES)
    (book / "part04.xml").write_text(BOOK.format(
        f'<chapter label="B"><section label="B.5"><table><tbody>{rows}</tbody></table></section></chapter>'))
    rows = "".join(f"<tr><td><para>{tag}</para></td><td><para>{escape(name)}</para></td><td/><td><para>{vr}</para></td>"
                   f"<td><para>{vm}</para></td><td/></tr>" for tag, (vr, vm, name, *_) in tag_of.items())
    uids = "".join(f"<tr><td><para>{uid}</para></td><td><para>{title} Storage</para></td><td><para>SOP Class</para></td>"
                   f"<td/></tr>" for _, title, uid in CLASSES)
    (book / "part06.xml").write_text(BOOK.format(
        f'<chapter label="6"><table><tbody>{rows}</tbody></table></chapter>'
        f'<chapter label="A"><table><tbody>{uids}</tbody></table></chapter>'))
    EditionReader(target).create_json_files(EDITION)
    (target / "editions.json").write_text(json.dumps([EDITION]))


if __name__ == "__main__":
    main()
